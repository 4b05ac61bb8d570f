"""Connections, seen by a client on a raw socket: a trace of what it sends and gets."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from netengine.http import Answer, Request, Response, Server, connection, server

GET = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"


class Served:
    """A server on a unix socket, and what its handlers have seen."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.server = Server(self.answer, headers={"Server": "test"})
        self.events: list[str] = []
        self.go = asyncio.Event()
        self.over = asyncio.Event()
        self.read = 0

    async def answer(self, request: Request) -> Answer:
        self.events.append(f"{request.method} {request.path}")
        return await getattr(self, request.path.strip("/") or "echo")(request)

    async def echo(self, request: Request) -> Answer:
        """The body, or the path's name."""
        return Response(200, await request.body.whole(1 << 20) or b"hello")

    async def refuse(self, request: Request) -> Answer:
        """Before the body has come."""
        return Response(409, b"no")

    async def slow(self, request: Request) -> Answer:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.events.append("cancelled")
            await asyncio.sleep(0.01)
            self.events.append("undone")
            raise
        self.events.append("done")
        self.over.set()
        return Response(200, b"done")

    async def stream(self, request: Request) -> Answer:
        stream = request.stream({"Content-Type": "text/plain"})
        try:
            await stream.write(b"first\n")
            await self.go.wait()
            await stream.write(b"")
            await stream.write(b"second\n")
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise
        finally:
            self.over.set()
        return stream

    async def flood(self, request: Request) -> Answer:
        stream = request.stream({})
        try:
            while True:
                await stream.write(b"x" * 65536)
                self.read += 65536
        finally:
            self.over.set()

    async def take(self, request: Request) -> Answer:
        """Count what comes, when told to."""
        await self.go.wait()
        async for piece in request.body:
            self.read += len(piece)
        return Response(200, str(self.read).encode())

    async def bug(self, request: Request) -> Answer:
        raise ZeroDivisionError("a bug")

    async def header(self, request: Request) -> Answer:
        return Response(200, b"", {"X": "a\r\nSet-Cookie: b"})

    async def none(self, request: Request) -> Answer:
        return Response(204)


Story = Callable[[Served], Awaitable[None]]


def story(tmp_path: Path, test: Story) -> Served:
    async def main() -> Served:
        async with asyncio.timeout(60):
            served = Served(str(tmp_path / "s"))
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(served.path)
                listener.listen()
                await served.server.listen(listener)
                await test(served)
                await served.server.close(5)
            assert not served.server._connections
            return served

    return asyncio.run(main())


async def say(served: Served, *data: bytes, shut: bool = False) -> bytes:
    """Send it in these pieces and read to the end."""
    reader, writer = await asyncio.open_unix_connection(served.path)
    for piece in data:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    if shut:
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def plain(answers: bytes) -> bytes:
    """Without what goes with every answer."""
    assert answers.count(b"Server: test\r\n") == answers.count(b"\r\nDate: ")
    return re.sub(rb"(Server|Date): [^\r]*\r\n", b"", answers)


def test_the_answer_is_exactly_this(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        answer = await say(served, b"GET /echo HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert re.search(rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", answer)
        assert plain(answer) == b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"

    story(tmp_path, test)


def test_requests_behind_each_other_are_answered_in_order_one_at_a_time(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        post = b"POST /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
        asking = asyncio.ensure_future(say(served, GET % b"slow" + post + GET % b"echo", shut=True))
        while not served.events:
            await asyncio.sleep(0.01)
        assert served.events == ["GET /slow"]
        served.go.set()
        answers = plain(await asking)
        assert re.findall(rb"\r\n\r\n(\w*?)(?=HTTP|$)", answers) == [b"done", b"abc", b"hello"]

    story(tmp_path, test)


@pytest.mark.parametrize("size", [1, 3, 100_000])
def test_a_body_may_come_in_any_pieces_and_the_connection_goes_on(tmp_path: Path, size: int) -> None:
    async def test(served: Served) -> None:
        body = b"x" * size
        chunked = (
            b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"%x\r\n" % size,
            body,
            b"\r\n0\r\n",
            b"\r\n",
        )
        sized = b"POST /echo HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size, body[: size // 2], body[size // 2 :]
        reader, writer = await asyncio.open_unix_connection(served.path)
        for pieces in chunked, sized:
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
            assert await reader.readexactly(size) == body
        writer.write(GET % b"echo")
        writer.write_eof()
        assert (await reader.read()).endswith(b"\r\n\r\nhello")
        writer.close()

    story(tmp_path, test)


def test_a_request_in_one_segment_behind_a_chunked_body_is_served(tmp_path: Path) -> None:
    """RFC 9112, 9.3.2: who pipelines is answered in order, one for each."""

    async def test(served: Served) -> None:
        chunked = b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        last = GET.replace(b"Host: x", b"Connection: close") % b"echo"
        for pieces in ([chunked + chunked + last], [chunked[:-1], chunked[-1:] + chunked[:20], chunked[20:] + last]):
            reader, writer = await asyncio.open_unix_connection(served.path)
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            answers = await reader.read()
            assert re.findall(rb"\r\n\r\n(\w*?)(?=HTTP|$)", answers) == [b"abc", b"abc", b"hello"], answers
            writer.close()

    story(tmp_path, test)


def test_a_client_that_waits_for_leave_gets_it_when_the_body_is_wanted(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        reader, writer = await asyncio.open_unix_connection(served.path)
        head = b"POST /%b HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        writer.write(head % b"echo")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await reader.readuntil(b"\r\n\r\nabc")).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.write(head % b"refuse")  # the answer, and no leave
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 409 Conflict\r\n") and b"Connection: close\r\n" in answer
        writer.close()

    story(tmp_path, test)


def test_an_answer_before_the_end_of_the_request_is_heard_and_the_connection_goes_on(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        reader, writer = await asyncio.open_unix_connection(served.path)
        writer.write(b"POST /refuse HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n")
        assert b"409" in await reader.readuntil(b"\r\n\r\nno")
        writer.write(b"x" * 5_000_000 + GET % b"echo")
        assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")
        writer.close()

    story(tmp_path, test)


def test_a_body_without_end_that_nobody_wants_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.1)
    monkeypatch.setattr(server, "_SWEEP_SECONDS", 0.1)

    async def test(served: Served) -> None:
        reader, writer = await asyncio.open_unix_connection(served.path)
        writer.write(b"POST /refuse HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert b"409" in await reader.readuntil(b"\r\n\r\nno")
        with pytest.raises(ConnectionError):
            while True:
                writer.write(b"10\r\n" + b"x" * 16 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0)

    story(tmp_path, test)


def test_head_has_the_head_of_get(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        answer = await say(served, b"HEAD /echo HTTP/1.1\r\n\r\nHEAD /none HTTP/1.1\r\n\r\n", shut=True)
        first, second, rest = plain(answer).split(b"\r\n\r\n")
        assert first == b"HTTP/1.1 200 OK\r\nContent-Length: 5"
        assert second.startswith(b"HTTP/1.1 204 No Content") and b"Content-Length" not in second and rest == b""

    story(tmp_path, test)


@pytest.mark.parametrize(
    ("head", "kept"),
    [(b"GET /echo HTTP/1.0\r\n\r\n", False), (b"GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True)],
)
def test_http_1_0_is_answered_as_such(tmp_path: Path, head: bytes, kept: bool) -> None:
    async def test(served: Served) -> None:
        answers = await say(served, head * 2, shut=kept)
        assert answers.count(b"HTTP/1.0 200 OK\r\n") == (2 if kept else 1)
        assert b"Connection: keep-alive\r\n" in answers or not kept
        served.go.set()
        streamed = plain(await say(served, b"GET /stream HTTP/1.0\r\n\r\n"))
        assert streamed.endswith(b"Connection: close\r\n\r\nfirst\nsecond\n") and b"chunked" not in streamed

    story(tmp_path, test)


def test_a_stream_is_sent_as_it_is_written_and_the_connection_goes_on(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        reader, writer = await asyncio.open_unix_connection(served.path)
        writer.write(GET % b"stream")
        assert (await reader.readuntil(b"6\r\nfirst\n\r\n")).count(b"Transfer-Encoding: chunked\r\n") == 1
        served.go.set()
        assert await reader.readuntil(b"0\r\n\r\n") == b"7\r\nsecond\n\r\n0\r\n\r\n"
        writer.write(GET % b"echo")
        await reader.readuntil(b"hello")
        writer.close()

    story(tmp_path, test)


@pytest.mark.parametrize("half_closed", [False, True])
def test_a_client_that_leaves_ends_its_stream(tmp_path: Path, half_closed: bool) -> None:
    async def test(served: Served) -> None:
        reader, writer = await asyncio.open_unix_connection(served.path)
        writer.write(GET % b"stream")
        await reader.readuntil(b"first\n")
        if half_closed:
            writer.write_eof()
            for _ in range(20):  # and that alone does not
                await asyncio.sleep(0)
            assert not served.over.is_set()
        writer.close()
        await served.over.wait()
        assert served.events == ["GET /stream", "cancelled"]

    story(tmp_path, test)


def test_a_client_that_leaves_ends_nothing_else(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        _, writer = await asyncio.open_unix_connection(served.path)
        writer.write(b"POST /slow HTTP/1.1\r\n\r\n")
        while not served.events:
            await asyncio.sleep(0.01)
        writer.transport.abort()
        await say(served, GET % b"echo", shut=True)  # by now the server has heard of it
        served.go.set()
        await served.over.wait()
        assert served.events == ["POST /slow", "GET /echo", "done"]

    story(tmp_path, test)


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(served: Served) -> None:
        served.go.set()
        part = b"POST /take HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc"
        assert await say(served, part, shut=True) == b""
        _, writer = await asyncio.open_unix_connection(served.path)
        writer.write(part)
        await writer.drain()
        writer.close()
        while served.read != 6 or served.server._connections:
            await asyncio.sleep(0.01)

    story(tmp_path, test)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_client_that_reads_nothing_makes_the_stream_wait(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        reader, writer = await asyncio.open_unix_connection(served.path, limit=1024)
        writer.write(GET % b"flood")
        await reader.readuntil(b"\r\n\r\n")
        before = -1
        while before != served.read or not served.read:
            before = served.read
            await asyncio.sleep(0.05)
        assert served.read < 2_000_000
        writer.close()
        await served.over.wait()

    story(tmp_path, test)


def test_a_handler_that_reads_nothing_makes_the_client_wait(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        reader, writer = await asyncio.open_unix_connection(served.path)
        writer.write(b"POST /take HTTP/1.1\r\nContent-Length: 20000000\r\n\r\n" + b"x" * 20_000_000)
        left = -1
        while left != writer.transport.get_write_buffer_size():
            left = writer.transport.get_write_buffer_size()
            await asyncio.sleep(0.05)
        assert left > 15_000_000
        served.go.set()
        assert (await reader.readuntil(b"\r\n\r\n20000000")).startswith(b"HTTP/1.1 200 OK")
        writer.close()

    story(tmp_path, test)


def test_a_client_that_asks_and_asks_and_reads_nothing_is_made_to_wait(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        _, writer = await asyncio.open_unix_connection(served.path, limit=1024)
        writer.write(GET % b"echo" * 200_000)
        left = -1
        while left != (left := writer.transport.get_write_buffer_size()) or not served.events:
            await asyncio.sleep(0.1)
        assert len(served.events) < 20_000
        writer.transport.abort()

    story(tmp_path, test)


@pytest.mark.parametrize(
    ("data", "constant"),
    [(b"", "IDLE_SECONDS"), (GET % b"echo", "IDLE_SECONDS"), (b"GET / HT", "HEAD_SECONDS")],
    ids=["nothing", "nothing more", "half a head"],
)
def test_who_says_nothing_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, constant: str
) -> None:
    monkeypatch.setattr(connection, constant, 0.1)
    monkeypatch.setattr(server, "_SWEEP_SECONDS", 0.05)

    async def test(served: Served) -> None:
        assert await say(served, data) == b"" or data.startswith(b"GET /echo")

    story(tmp_path, test)


def test_what_is_no_http_is_one_line_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def test(served: Served) -> None:
        answer = await say(served, b"\x16\x03\x01\x02\x00" * 10)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n") and b'{"message":' in answer
        assert b" 400 " in await say(served, GET % b"echo" + b"nonsense\r\n\r\n")
        chunked = b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        await say(served, chunked, b"3\r\nabc\r\nnot a number\r\n", shut=True)

    story(tmp_path, test)
    assert len(caplog.records) == 3 and not any(r.exc_info for r in caplog.records)
    assert all("is not HTTP was refused" in r.getMessage() for r in caplog.records)


@pytest.mark.parametrize("path", [b"bug", b"header"])
def test_a_bug_ends_the_connection_and_not_the_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: bytes
) -> None:
    async def test(served: Served) -> None:
        with pytest.raises(ConnectionError):
            assert await say(served, GET % path) == b""
            raise ConnectionResetError
        assert b"hello" in await say(served, GET % b"echo", shut=True)

    story(tmp_path, test)
    (record,) = caplog.records
    assert record.exc_info


def test_the_end_waits_for_changes_and_ends_streams(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        reader, writer = await asyncio.open_unix_connection(served.path)
        writer.write(GET % b"stream")
        await reader.readuntil(b"first\n")
        changing = asyncio.ensure_future(say(served, b"POST /slow HTTP/1.1\r\n\r\n"))
        idle = await asyncio.open_unix_connection(served.path)
        while len(served.events) < 2:
            await asyncio.sleep(0.01)
        ending = asyncio.ensure_future(served.server.close(30))
        assert (await reader.read()) == b"\r\n"  # of the chunk; the stream is cut, and its client can tell
        assert await idle[0].read() == b""
        assert not ending.done() and served.events[-1] == "cancelled"
        served.go.set()
        answer = await changing
        assert answer.endswith(b"done") and b"Connection: close\r\n" in answer
        await ending
        for one in (writer, idle[1]):
            one.close()

    story(tmp_path, test)


def test_the_end_does_not_wait_for_ever_and_sees_what_is_cut_off_undone(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        changing = asyncio.ensure_future(say(served, b"POST /slow HTTP/1.1\r\n\r\n"))
        while not served.events:
            await asyncio.sleep(0.01)
        await served.server.close(0.05)
        assert served.events == ["POST /slow", "cancelled", "undone"]
        assert await changing == b""

    story(tmp_path, test)


class Once(asyncio.Transport):
    """As asyncio's of TLS in Python 3.11, which cannot be aborted when it was closed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def is_closing(self) -> bool:
        return bool(self.said)

    def close(self) -> None:
        assert "close" not in self.said
        self.said.append("close")

    def abort(self) -> None:
        self.said.append("abort")


def test_a_connection_that_is_ending_is_not_closed_again(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        ending, transport = served.server.connection(), Once()
        ending.connection_made(transport)
        ending.close()
        ending.close()
        ending.abort()
        ending.connection_lost(None)
        assert transport.said == ["close", "abort"]

    story(tmp_path, test)
