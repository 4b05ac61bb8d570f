"""The calls: keys, transactions, leases and members of an etcd cluster, over its JSON gateway. Users are in auth.py, watches in
watches.py.

Nothing here knows what netengine keeps in etcd. Reads are linearizable: what they answer is what a majority of the members has
agreed on. Every call ends within its time limit; where no majority answers it raises Unavailable. After a time-out a change may
or may not have been made, as with every distributed store: callers make changes that can be repeated.

Source: etcd v3.4 API, https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/ and rpc.proto; gRPC status codes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import TracebackType

from netengine.errors import Forbidden, Invalid, NetengineError, NotFound, Unavailable
from netengine.http import client as http
from netengine.store.etcd.auth import Auth
from netengine.store.etcd.records import (
    Compare,
    Delete,
    Entry,
    JsonDict,
    Member,
    Outcome,
    Put,
    Step,
    entry_of,
    key_range,
    member_of,
)
from netengine.store.etcd.watches import TRY, Stale, Watches

log = logging.getLogger(__name__)

TIME_LIMIT = 3.0
"""Seconds that a call may take, over all members that are tried."""

_OURS = "a majority of the managers must be up and reachable"
_ROUNDS = 3  # times that all members are asked, those not counted in which none listens
_INVALID, _NOT_FOUND, _DENIED, _OUT_OF_RANGE, _UNAUTHENTICATED = 3, 5, 7, 11, 16  # gRPC status codes
_CN_REFUSED = "CommonName of client sending a request against gateway"  # with --client-cert-auth and users
_STALE_TOKEN = ("invalid auth token", "user name is empty", "revision of auth store is old")


class Etcd(Auth, Watches):
    """A client of the members at `urls`, as the user `name` where the cluster asks for one; an async context manager.

    With a `namespace` all keys begin with it in etcd, and callers neither write nor see it.
    """

    def __init__(
        self,
        urls: Sequence[str],
        tls: ssl.SSLContext | None = None,
        name: str = "",
        password: str = "",
        time_limit: float = TIME_LIMIT,
        server_name: str = "",
        namespace: str = "",
        remedy: str = _OURS,
        foreign: bool = False,
    ) -> None:
        """`server_name` is the name that the members' certificates must have; "" for the address that is asked.

        `remedy` is what must be so for etcd to answer, for people; a `foreign` one's members are not for its callers to change.
        """
        if not urls:
            raise Invalid("no etcd member is given: name at least one, such as https://192.0.2.1:2379")
        super().__init__()
        self._urls = list(urls)
        self.namespace, self.remedy, self.foreign = namespace, remedy, foreign
        self._tls = tls
        self._name, self._password = name, password
        self._time_limit = time_limit
        self._server_name = server_name
        self._token = ""
        self._http = http.Client(keep_seconds=60)

    async def __aenter__(self) -> Etcd:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.close()

    def renew(self, tls: ssl.SSLContext) -> None:
        """Another certificate and other roots, for connections made from now on. What goes on over others goes on."""
        self._tls = tls

    def use(self, urls: Sequence[str]) -> None:
        """Other members from now on: one has joined or left."""
        if urls:
            self._urls = list(urls)

    # -- keys ---------------------------------------------------------------------------------------------------------

    async def get(self, key: str, revision: int = 0) -> Entry | None:
        """As it is, or as it was at a revision; raises NotFound when that is no longer kept, or not yet there."""
        wanted = {**key_range(self.namespace + key, False), "revision": str(revision)}
        found = (await self._call("/v3/kv/range", wanted)).get("kvs", ())
        return self._entries(found)[0] if found else None

    async def read(self, prefix: str) -> tuple[list[Entry], int]:
        """Every key that begins with `prefix`, in order, and the revision that this is the state of."""
        answer = await self._call("/v3/kv/range", key_range(self.namespace + prefix, True))
        return self._entries(answer.get("kvs", ())), int(answer["header"]["revision"])

    async def put(self, key: str, value: bytes, lease: int = 0) -> int:
        """Write one key; the revision of the change."""
        return (await self.transact((), [Put(key, value, lease)])).revision

    async def delete(self, key: str, prefix: bool = False) -> int:
        return (await self.transact((), [Delete(key, prefix)])).revision

    async def transact(
        self, compare: Sequence[Compare], then: Sequence[Step], otherwise: Sequence[Step] = ()
    ) -> Outcome:
        """Carry out `then` if every condition holds, else `otherwise`: wholly or not at all."""
        answer = await self._call(
            "/v3/kv/txn",
            {
                "compare": [replace(c, key=self.namespace + c.key).encoded() for c in compare],
                "success": [replace(s, key=self.namespace + s.key).encoded() for s in then],
                "failure": [replace(s, key=self.namespace + s.key).encoded() for s in otherwise],
            },
        )
        read = tuple(
            tuple(self._entries(response["response_range"].get("kvs", ())))
            for response in answer.get("responses", ())
            if "response_range" in response
        )
        return Outcome(bool(answer.get("succeeded")), int(answer["header"]["revision"]), read)

    def _entries(self, found: Iterable[JsonDict]) -> list[Entry]:
        return [self._seen(entry_of(kv)) for kv in found]

    def _seen(self, entry: Entry) -> Entry:
        """Its key as callers know it."""
        return replace(entry, key=entry.key.removeprefix(self.namespace)) if self.namespace else entry

    # -- leases -------------------------------------------------------------------------------------------------------

    async def grant(self, seconds: int) -> int:
        """A lease: keys put with it vanish when it is not kept alive."""
        return int((await self._call("/v3/lease/grant", {"TTL": str(seconds)}))["ID"])

    async def keep_alive(self, lease: int) -> list[int]:
        """Renew a lease at every member; the seconds that it has now, 0 when it is gone, by each that answers. Raises nothing.

        Renewals do not go through the log: the leader remembers them. One whose disk hangs does not hear that another leads by
        now, goes on to answer, and once its disk is back revokes what was not renewed with itself (etcd issue 15247).
        """
        body = {"ID": str(lease)}
        asked = (self._post(url, "/v3/lease/keepalive", body, TRY) for url in list(self._urls))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return [int(a["result"].get("TTL", 0)) for a in answers if isinstance(a, dict) and "result" in a]

    async def revoke(self, lease: int) -> None:
        try:
            await self._call("/v3/lease/revoke", {"ID": str(lease)})
        except NotFound:
            log.debug("lease %d had expired", lease)

    # -- members ------------------------------------------------------------------------------------------------------

    async def members(self) -> list[Member]:
        return [member_of(m) for m in (await self._call("/v3/cluster/member/list", {})).get("members", ())]

    async def clusters(self) -> dict[str, str]:
        """The id of the cluster that each URL's member is of, by URL; of those that answer."""

        async def of(url: str) -> str:
            try:
                return str(
                    (await self._post(url, "/v3/maintenance/status", {}, self._time_limit))["header"]["cluster_id"]
                )
            except (http.CallError, TimeoutError, OSError, Unavailable):
                return ""

        urls = list(self._urls)
        found = dict(zip(urls, await asyncio.gather(*(of(url) for url in urls)), strict=True))
        return {url: cluster for url, cluster in found.items() if cluster}

    async def add_member(self, peer_url: str, learner: bool = False) -> tuple[Member, list[Member]]:
        """The new member, and all that there are then: others may answer with an older list for a while.

        A learner has no vote until it is promoted: so the majority does not grow before there is somebody to be in it."""
        answer = await self._call("/v3/cluster/member/add", {"peerURLs": [peer_url], "isLearner": learner})
        return member_of(answer["member"]), [member_of(m) for m in answer.get("members", ())]

    async def promote_member(self, member: int) -> None:
        """Give a learner its vote. Raises Unavailable while it has not read enough of the log."""
        await self._call("/v3/cluster/member/promote", {"ID": str(member)})

    async def remove_member(self, member: int) -> None:
        await self._call("/v3/cluster/member/remove", {"ID": str(member)})

    async def leader(self) -> int:
        """The number of the member that leads, as the member that is asked sees it; 0 when there is none."""
        return int((await self._call("/v3/maintenance/status", {})).get("leader", 0))

    # -- calls --------------------------------------------------------------------------------------------------------

    async def _call(self, path: str, body: JsonDict) -> JsonDict:
        """Ask one member after another until one answers, within the time limit."""
        problems: list[str] = []
        try:
            async with asyncio.timeout(self._time_limit):
                rounds = 0  # in which somebody was there
                while rounds < _ROUNDS:
                    unheard = True
                    for url in list(self._urls):
                        last = len(self._urls) == 1
                        try:
                            if self._name and not self._token:
                                await self._authenticate()
                            return await self._post(url, path, body, self._time_limit if last else TRY)
                        except Stale as e:
                            problems.append(f"{url}: {e}")
                            self._token, unheard = "", False  # a member that was just started has forgotten all tokens
                            break
                        except (http.CallError, TimeoutError, OSError, Unavailable) as e:
                            problems.append(f"{url}: {_words(e)}")
                            # Where no member listens at all one may be starting just now, and that is waited for.
                            unheard = unheard and isinstance(e, http.NotConnected)
                            self._prefer_another(url)
                    rounds += not unheard
                    await asyncio.sleep(0.1)
        except TimeoutError:
            problems.append(f"no answer within {self._time_limit:g} s")
        raise Unavailable(f"etcd does not answer ({'; '.join(dict.fromkeys(problems))}): {self.remedy}")

    def _prefer_another(self, url: str) -> None:
        if url in self._urls:
            self._urls.remove(url)
            self._urls.append(url)
        self._doubt(url)

    async def _authenticate(self) -> None:
        self._token = ""
        wanted = {"name": self._name, "password": self._password}
        problem: Exception = Unavailable("no member is known")
        for url in list(self._urls):
            try:
                self._token = (await self._post(url, "/v3/auth/authenticate", wanted, TRY))["token"]
                return
            except (http.CallError, TimeoutError, OSError, Unavailable) as e:
                problem = e
                self._prefer_another(url)
            except Invalid as e:
                if "authentication is not enabled" in e.message:
                    return
                raise Forbidden(f"etcd does not know user {self._name} with this password: {e.message}") from e
        raise Unavailable(_words(problem))

    async def _post(self, url: str, path: str, body: JsonDict, seconds: float) -> JsonDict:
        headers = {"Authorization": self._token} if self._token else {}
        async with asyncio.timeout(seconds), self._asked(url + path, json.dumps(body), headers, None) as answer:
            text = b"".join([piece async for piece in answer]).decode("utf-8", "replace")
        try:
            decoded = json.loads(text)
        except json.JSONDecodeError:
            if _CN_REFUSED in text:
                raise Forbidden(
                    f"{url} refuses the certificate that it is shown (--store-cert), since that has a CN: etcd's HTTP gateway "
                    "takes nobody for a user by a certificate. Have one made without a CN, and name a user "
                    "(--store-user, --store-password-file)"
                ) from None
            raise Unavailable(f"{url}{path}: HTTP {answer.status}: {text[:200].strip()}") from None
        if answer.status != 200 or "error" in decoded:
            raise self._error(decoded)
        return dict(decoded)

    def _error(self, decoded: JsonDict) -> Exception:
        code = int(decoded.get("code") or decoded.get("grpc_code") or 0)
        words = str(decoded.get("message") or decoded.get("error"))
        if self._name and (code == _UNAUTHENTICATED or any(w in words for w in _STALE_TOKEN)):
            return Stale(words)
        kinds: dict[int, type[NetengineError]] = {
            _NOT_FOUND: NotFound,
            _OUT_OF_RANGE: NotFound,
            _INVALID: Invalid,
            _DENIED: Forbidden,
        }
        return kinds.get(code, Unavailable)(words)

    def _asked(
        self, url: str, body: str, headers: dict[str, str], connect_seconds: float | None
    ) -> AbstractAsyncContextManager[http.Reply]:
        headers = {"Content-Type": "application/json", **headers}
        return self._http.call(
            "POST",
            url,
            body.encode(),
            headers=headers,
            tls=self._tls,
            server_name=self._server_name,
            connect_seconds=connect_seconds,
        )


def _words(error: Exception) -> str:
    if isinstance(error, http.NotConnected):
        cause = error.cause
        if isinstance(cause, ConnectionResetError | ssl.SSLEOFError) or "WRONG_VERSION_NUMBER" in str(cause):
            return "it ends the connection: does it speak TLS?"
        # asyncio puts words of its own where the kernel's were.
        number = cause.errno if isinstance(cause.errno, int) and not isinstance(cause, ssl.SSLError) else 0
        return os.strerror(number) if number > 0 else cause.strerror or str(cause) or type(cause).__name__
    if any(
        alert in str(error).lower() for alert in ("alert bad certificate", "certificate required", "alert unknown ca")
    ):
        return "it asks for a client certificate, and got none that it accepts (--store-cert, --store-key)"
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
