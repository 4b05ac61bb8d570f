"""One connection: requests are answered in order, one at a time; what comes behind the one under way waits.

When a client leaves, a handler that streams its answer is cancelled. Any other is finished all the same, so that nothing is
left half-made; its answer is dropped.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from netengine.http import heads
from netengine.http.body import Body
from netengine.http.chunks import Malformed
from netengine.http.hangup import HangUp
from netengine.http.messages import Answer, Request, Response
from netengine.http.owner import Owner
from netengine.http.receiver import Head, Receiver
from netengine.http.stream import Stream

log = logging.getLogger(__name__)

IDLE_SECONDS = 75.0
"""That a connection may be silent between requests, and before the first."""
HEAD_SECONDS = 30.0
"""From the first byte of a request to the end of its headers."""
SEND_SECONDS = 300.0
"""In which a client has to read an answer that is there as a whole."""
LINGER_SECONDS = 5.0
"""In which what is left of a request is read that was answered before its end: to close on it would lose the answer."""
_PENDING_LIMIT = 64 << 10  # bytes behind a request under way, before the client is made to wait
_NEVER = float("inf")


class Taken(NamedTuple):
    """A connection that speaks HTTP no more: its transport, and what has come already."""

    transport: asyncio.Transport
    early: bytes


class _State(enum.Enum):
    IDLE = "nothing is asked, or the head of a request has not come to its end"
    BUSY = "a request is being handled, and its body may still be coming"
    TAKEN = "the connection is somebody else's"
    LINGER = "nothing more is answered; what comes is thrown away"


class Connection(asyncio.Protocol):
    """`remote` is what is known of a peer that is not local; each of its requests has it."""

    __slots__ = (
        "_continue", "_eof", "_hangup", "_loop", "_lost", "_owner", "_paused", "_pending", "_receiver", "_remote", "_request",
        "_state", "_stream", "_task", "_transport", "_writable", "deadline",
    )  # fmt: skip

    def __init__(self, owner: Owner, remote: Mapping[str, str] | None = None) -> None:
        self._owner = owner
        self._remote = remote
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._receiver = Receiver(self, owner.head_limit)
        self._state = _State.IDLE
        self._request: Request | None = None
        self._task: asyncio.Task[None] | None = None  # of the request under way
        self._stream: Stream | None = None  # its answer, if it is one
        self._pending = b""  # what has come behind it
        self._continue = False  # its sender waits for leave to send the body
        self._paused = self._eof = self._lost = False
        self._writable: asyncio.Future[None] | None = None
        self._hangup: HangUp | None = None
        self.deadline = self._loop.time() + IDLE_SECONDS
        """When the server ends it."""

    # -- what the transport calls -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._state is _State.LINGER:
            return
        if not self._receiver.ended:
            data = self._receive(data)
        if data:
            self._pending += data
            if len(self._pending) >= _PENDING_LIMIT:
                self.pause()

    def eof_received(self) -> bool:
        self._eof = True
        if self._state is not _State.BUSY or self._transport is None or not self._transport.can_write_eof():
            return False
        # To close one direction only: who waits for an answer may do so. (Over TLS, asyncio's cannot.)
        if self._request is not None:
            self._request.body.fail("the client ended its request in the middle")
        if self._stream is not None:
            self._watch_for_hangup()
        return True

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    def connection_lost(self, error: BaseException | None) -> None:
        self._lost = True
        self._receiver.close()
        self._forget_hangup()
        self.resume_writing()
        if self._request is not None:
            self._request.body.fail("the client left in the middle of its request")
        if self._task is None:
            self._owner.closed(self)
        elif self._stream is not None:
            self._task.cancel()

    # -- receiving ----------------------------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> bytes:
        """What is behind the request that comes."""
        if self._state is _State.IDLE and not self._receiver.begun:
            self.deadline = self._loop.time() + HEAD_SECONDS
        try:
            data = self._receiver.feed(data)
        except Malformed as error:
            self._refuse(str(error))
            return b""
        if self._request is not None and self._task is None:
            self._task = self._loop.create_task(self._handle(self._request))
        return data

    def on_head(self, head: Head) -> None:
        body = Body(self if head.length != 0 else None, head.length)
        self._request = Request(
            head.method,
            head.target,
            head.fields,
            version=head.version,
            keep_alive=head.keep_alive,
            body=body,
            connection=self,
            app=self._owner.app,
            remote=self._remote,
        )
        self._continue = head.length != 0 and head.fields.get("expect", "").lower() == "100-continue"
        self._state = _State.BUSY
        self.deadline = _NEVER

    def on_piece(self, piece: bytes) -> None:
        self._continue = False
        if self._request is not None:
            self._request.body.feed(piece)

    def on_end(self) -> None:
        if self._request is not None:
            self._request.body.end()

    def _refuse(self, why: str) -> None:
        log.info("a request that is not HTTP was refused: %s", ascii(why[:200]))
        if self._request is not None and self._task is not None:
            self._request.body.fail("the request is not HTTP")
            self._request.keep_alive = False
            self._state = _State.LINGER
            return
        self._request = None
        self._owner.refused(self._remote, self.info("socket"), why)
        if self._transport is not None:
            self._transport.write(heads.refusal(self._owner.common))
        self._linger()

    # What the body calls.

    def pause(self) -> None:
        if not self._paused and not self._lost and not self._eof and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            if not self._lost and not self._eof and self._transport is not None:
                self._transport.resume_reading()

    def ask_for_body(self) -> None:
        if self._continue and self._stream is None and self._transport is not None:
            self._continue = False
            self._transport.write(heads.CONTINUE)

    # -- answering ----------------------------------------------------------------------------------------------------

    async def _handle(self, request: Request) -> None:
        keeps = False
        try:
            try:
                answer = await self._owner.answer(request)
            except ConnectionError:
                log.debug("%s %s: the client left before the end of the answer", request.method, request.path)
                return self.abort()
            if not self._lost and self._transport is not None and self._state is not _State.TAKEN:
                keeps = await self._send_answer(request, answer) and await self._rest_of(request)
        except asyncio.CancelledError:
            pass  # the client of a stream has left, or the server stops
        except ConnectionError:
            self.abort()
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            self.abort()
        finally:
            self._task = None
            if keeps and not self._lost:
                self._next()
            else:
                self._end()

    async def _send_answer(self, request: Request, answer: Answer) -> bool:
        """Whether the connection can go on."""
        if self._stream is not None:
            if answer is not self._stream:
                raise ConnectionAbortedError("the handler gave its stream up")
            await self._stream.end()
            return self._keeps(request) and request.version == "1.1"
        assert isinstance(answer, Response)
        keeps = self._keeps(request) and not answer.close
        head = self._head(request, answer.status, answer.headers, keeps)
        if not heads.has_body(answer.status):
            await self.send(head + b"\r\n")
        elif request.method == "HEAD":
            await self.send(head + b"Content-Length: %d\r\n\r\n" % len(answer.body))
        else:
            await self.send(head + b"Content-Length: %d\r\n\r\n" % len(answer.body) + answer.body)
        return keeps

    def _head(self, request: Request, status: int, headers: Mapping[str, str], keeps: bool) -> bytes:
        """All of it but the length and the empty line."""
        if not keeps:
            connection = b"Connection: close\r\n"
        else:
            connection = b"Connection: keep-alive\r\n" if request.version == "1.0" else b""
        line = heads.status_line(request.version, status)
        return b"".join((line, heads.fields(headers), self._owner.common, heads.date(), connection))

    def _keeps(self, request: Request) -> bool:
        if self._continue:  # nobody knows whether the body comes
            return False
        return request.keep_alive and not self._owner.stopping and (not self._eof or bool(self._pending))

    async def _rest_of(self, request: Request) -> bool:
        """Wait for the end of a request that was answered before it: whether it came."""
        if not self._receiver.ended:
            request.body.discard()
            try:
                async with asyncio.timeout(LINGER_SECONDS):
                    await request.body.read()
            except TimeoutError:
                pass
        return self._receiver.ended

    def begin_stream(self, request: Request, status: int, headers: Mapping[str, str]) -> Stream:
        """See Request.stream()."""
        transport = self._open()
        chunked = request.version == "1.1"
        head = self._head(request, status, headers, chunked and self._keeps(request))
        self._stream = Stream(self, status, chunked=chunked)
        transport.write(head + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n"))
        if self._eof:
            self._watch_for_hangup()
        return self._stream

    async def send(self, data: bytes) -> None:
        """Returns when the client has room for more. Raises ConnectionError when it is gone."""
        self._open().write(data)
        if self._writable is not None:
            if self._stream is None:
                self.deadline = self._loop.time() + SEND_SECONDS
            await self._writable
            self._open()

    def take_over(self) -> Taken:
        """See Request.take_over()."""
        transport = self._open()
        early, self._pending = self._pending, b""
        self._state = _State.TAKEN
        self._receiver.close()
        self.resume()
        return Taken(transport, early)

    def _open(self) -> asyncio.Transport:
        if self._lost or self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        return self._transport

    # -- the next request, or the end ---------------------------------------------------------------------------------

    def _next(self) -> None:
        self._request = self._stream = None
        self._state = _State.IDLE
        self._receiver.next()
        self.deadline = self._loop.time() + IDLE_SECONDS
        pending, self._pending = self._pending, b""
        if pending:
            self._pending = self._receive(pending)
        if self._eof and self._task is None:
            self.close()
        if len(self._pending) < _PENDING_LIMIT:
            self.resume()

    def _end(self) -> None:
        """Of the connection, after a request."""
        if self._state is _State.TAKEN or self._lost:
            self._owner.closed(self)
        elif self._eof or (self._receiver.ended and not self._pending):
            self.close()
        else:
            self._linger()

    def _linger(self) -> None:
        """Close this direction, and the other when the client has seen it: RFC 9112, 9.6."""
        self._state = _State.LINGER
        self._pending = b""
        self.deadline = self._loop.time() + LINGER_SECONDS
        if self._lost or self._eof or self._transport is None or self._transport.is_closing():
            return self.close()
        if self._transport.can_write_eof():  # else the client knows by the header Connection
            self._transport.write_eof()
        self.resume()
        return None

    def close(self) -> None:
        """What was written is sent yet."""
        # asyncio's transport of TLS that is closed twice cannot be aborted any more (sslproto.py, Python 3.11).
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    def abort(self) -> None:
        """At once."""
        if self._transport is not None:
            self._transport.abort()

    def stop(self) -> None:
        """The server ends: streams, too, and what is idle. What may change something is finished."""
        if self._task is None:
            self.close()
        elif self._stream is not None or self._state is _State.TAKEN:
            self._task.cancel()

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The handling of the request under way."""
        return self._task

    def info(self, name: str) -> Any:
        return self._transport.get_extra_info(name) if self._transport is not None else None

    def _watch_for_hangup(self) -> None:
        if self._remote is not None:
            self.abort()  # nothing tells the two apart on the way here
        elif self._hangup is None:
            self._hangup = HangUp(self.info("socket"), self.abort)

    def _forget_hangup(self) -> None:
        if self._hangup is not None:
            self._hangup.close()
            self._hangup = None
