"""Following what changes in an etcd: the part of the client (client.py) that lasts for as long as somebody listens.

A member that says nothing may be one for which nothing has changed, or one that hangs: its kernel acknowledges what comes, and
etcd's own sign of life in a watch comes every ten minutes. So the member is asked something else beside the watch, which it can
answer only if it is up to date with the majority; when it does not, the watch goes on at another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from netengine.errors import NetengineError, Unavailable
from netengine.http import client as http
from netengine.store.etcd.records import Change, Compacted, Entry, JsonDict, change_of, key_range

log = logging.getLogger(__name__)

TRY = 1.0
"""Seconds for one member, as long as there is another to try."""

_LOOK = (
    5.0  # seconds after which a watch's member is asked whether it keeps up, where no call has found it silent before
)
_LATE = 2.0  # seconds that it has to answer


class Stale(Exception):
    """The token has expired or its member has forgotten it."""


class Watches:
    """What `Etcd` can do besides calls."""

    namespace: str
    _urls: list[str]
    _name: str
    _token: str
    _time_limit: float

    def __init__(self) -> None:
        self._doubts: dict[asyncio.Event, str] = {}  # one for each watch, and where it is

    async def watch(self, prefix: str, after: int) -> AsyncIterator[tuple[list[Change], int]]:
        """Changes of the keys that begin with `prefix`, after revision `after`, with the revision that they lead to.

        Goes on over lost connections, from member to member; while none answers it waits. Raises Compacted when what comes
        next is no longer kept.
        """
        tried = 0
        while True:
            url = self._urls[0]
            try:
                async for changes, revision in self._watch_once(url, prefix, after):
                    after = revision
                    if changes:
                        yield changes, revision
            except Compacted:
                raise
            except (http.CallError, NetengineError, TimeoutError, OSError, json.JSONDecodeError) as e:
                log.debug("watch of %s at %s: %s", prefix, url, e)
            self._prefer_another(url)
            tried += 1
            await asyncio.sleep(0.2 if tried % len(self._urls) else 0.5)

    async def _watch_once(self, url: str, prefix: str, after: int) -> AsyncIterator[tuple[list[Change], int]]:
        wanted = {**key_range(self.namespace + prefix, True), "start_revision": str(after + 1), "progress_notify": True}
        if self._name and not self._token:
            await self._authenticate()
        # A member that is cut off from the others would be silent, too: so it ends the watch when it knows no leader.
        headers = {"Grpc-Metadata-hasleader": "true"}
        if self._token:
            headers["Authorization"] = self._token
        body = json.dumps({"create_request": wanted})
        async with contextlib.AsyncExitStack() as stack:
            # A kept connection to a member that is cut off takes the request and never answers it. From then on there is no
            # limit: etcd says nothing while nothing changes, progress apart (every ten minutes).
            async with asyncio.timeout(self._time_limit if len(self._urls) == 1 else _LATE):
                answer = await stack.enter_async_context(self._asked(f"{url}/v3/watch", body, headers, TRY))
            _notice_death(answer)
            stack.enter_context(self._doubting(url, prefix, answer))
            async for line in _lines(answer):
                message = json.loads(line)
                if "error" in message:
                    self._token = ""
                    raise Unavailable(str(message["error"]))
                result = message["result"]
                if result.get("created") and int(result["header"]["revision"]) < after:
                    # This member is behind, and will soon not be; or all are: the store was begun anew from an older one.
                    reading = key_range(self.namespace + prefix, False)
                    at = int((await self._call("/v3/kv/range", reading))["header"]["revision"])
                    if at < after:
                        raise Compacted(f"revision {after} is of another past: the store is at {at}")
                if int(result.get("compact_revision", 0)):
                    raise Compacted(f"revision {after} is compacted, {result['compact_revision']} is the oldest kept")
                if result.get("canceled"):
                    self._token = ""
                    raise Unavailable(f"etcd cancelled the watch: {result.get('cancel_reason', 'no reason given')}")
                changes = [change_of(event) for event in result.get("events", ())]
                changes = [replace(c, entry=self._seen(c.entry)) for c in changes] if self.namespace else changes
                yield changes, max([after, *(c.entry.modified for c in changes)])
                after = max([after, *(c.entry.modified for c in changes)])

    # -- members that hang --------------------------------------------------------------------------------------------

    def _doubt(self, url: str) -> None:
        """A call was not answered there: is a watch better off?"""
        for event, where in self._doubts.items():
            if where == url:
                event.set()

    @contextlib.contextmanager
    def _doubting(self, url: str, prefix: str, answer: http.Reply) -> Iterator[None]:
        doubted = asyncio.Event()
        task = asyncio.create_task(self._end_when_late(url, prefix, answer, doubted), name=f"watch at {url}")
        self._doubts[doubted] = url
        try:
            yield
        finally:
            del self._doubts[doubted]
            task.cancel()

    async def _end_when_late(self, url: str, prefix: str, answer: http.Reply, doubted: asyncio.Event) -> None:
        """End the connection of a watch whose member does not keep up with the others, if there are others to go to."""
        reading = key_range(
            self.namespace + prefix, False
        )  # linearizable: answered when all that was agreed on is there
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await doubted.wait()
            doubted.clear()
            if len(self._urls) == 1:
                continue
            try:
                await self._post(url, "/v3/kv/range", reading, _LATE)
            except (http.CallError, TimeoutError, OSError, Unavailable) as e:
                log.debug("the watch of %s leaves %s: %s", prefix, url, e or type(e).__name__)
                answer.abort()
                return
            except (NetengineError, Stale):
                pass  # it answers

    # -- of the client ------------------------------------------------------------------------------------------------

    async def _call(self, path: str, body: JsonDict) -> JsonDict:
        raise NotImplementedError

    async def _post(self, url: str, path: str, body: JsonDict, seconds: float) -> JsonDict:
        raise NotImplementedError

    async def _authenticate(self) -> None:
        raise NotImplementedError

    def _asked(
        self, url: str, body: str, headers: dict[str, str], connect_seconds: float | None
    ) -> AbstractAsyncContextManager[http.Reply]:
        raise NotImplementedError

    def _prefer_another(self, url: str) -> None:
        raise NotImplementedError

    def _seen(self, entry: Entry) -> Entry:
        raise NotImplementedError


def _notice_death(answer: http.Reply) -> None:
    """Have the kernel find out within seconds that a member is gone which says nothing anyway: tcp(7)."""
    sock = answer.info("socket")
    if sock is not None:
        for option, value in ((socket.TCP_KEEPIDLE, 4), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 2)):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 8000)  # milliseconds


async def _lines(answer: http.Reply) -> AsyncIterator[bytes]:
    """Lines of any length: a watch answers everything that it missed in one."""
    kept = b""
    async for piece in answer:
        *whole, kept = (kept + piece).split(b"\n")
        for line in whole:
            if line:
                yield line
