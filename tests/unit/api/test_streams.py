"""Hijacked connections, seen by a client on a raw socket: a trace of what it sends and gets."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from netengine.api import stdcopy, streams
from netengine.errors import Invalid
from netengine.http import Answer, Request, Response, Server

UPGRADE = b"Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"


class Echo:
    """A process: what it reads it writes to stdout in capitals; at the end of input it says so on stderr."""

    def __init__(self) -> None:
        self.output: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()

    async def read(self):
        return await self.output.get()

    async def write(self, data: bytes) -> None:
        await self.output.put((1, data.upper()))

    async def close_stdin(self) -> None:
        await self.output.put((2, b"end of input"))
        await self.output.put(None)


class Served:
    """A server on a unix socket whose every POST is hijacked and given to `session`."""

    def __init__(self, path: str, session, *, tty: bool = False, body: bool = False) -> None:
        self.path = path
        self.session = session
        self.tty = tty
        self.body = body
        self.bodies: list[object] = []
        self.finished = asyncio.Event()

    async def handle(self, request: Request) -> Answer:
        if self.body:
            self.bodies.append(json.loads(await request.body.whole(1000)))
        try:
            return await streams.hijack(request, tty=self.tty, session=self.session, headers={"Api-Version": "1.51"})
        finally:
            self.finished.set()

    async def __aenter__(self):
        self.server = Server(lambda request: (self.handle if request.method == "POST" else self.ping)(request))
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        await self.server.listen(self.listener)
        return self

    async def ping(self, request: Request) -> Response:
        return Response(200, b"OK")

    async def __aexit__(self, *exc: object) -> None:
        await self.server.close(1)
        self.listener.close()

    async def client(self):
        return await asyncio.open_unix_connection(self.path)


def story(test, tmp_path, session, **more):
    async def main() -> None:
        async with asyncio.timeout(30), Served(str(tmp_path / "s"), session, **more) as served:
            await test(served)

    asyncio.run(main())


async def echo(connection: streams.HijackedConnection) -> None:
    await streams.pump(connection, Echo())


def pieces(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for stream, piece in stdcopy.Demultiplexer().feed(data):
        found[stream] = found.get(stream, b"") + piece
    return found


def test_the_answer_to_an_upgrade_is_exactly_dockers(tmp_path):
    async def test(served):
        reader, writer = await served.client()
        writer.write(b"POST /attach HTTP/1.1\r\n" + UPGRADE + b"Content-Length: 0\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == (
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\nApi-Version: 1.51\r\n\r\n"
        )
        writer.close()

    story(test, tmp_path, echo)


def test_output_goes_on_after_the_clients_end_of_input(tmp_path):
    async def test(served):
        reader, writer = await served.client()
        writer.write(b"POST /attach HTTP/1.1\r\n" + UPGRADE + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hello")
        await asyncio.sleep(0)
        writer.write_eof()
        assert pieces(await reader.read()) == {1: b"HELLO", 2: b"end of input"}
        await served.finished.wait()
        writer.close()

    story(test, tmp_path, echo)


def test_a_body_and_an_upgrade_in_one_request_as_exec_start_sends_it(tmp_path):
    async def test(served):
        reader, writer = await served.client()
        head = b"POST /attach HTTP/1.1\r\n" + UPGRADE + b"Content-Type: application/json\r\nContent-Length: 12\r\n\r\n"
        writer.write(head)
        await writer.drain()
        writer.write(b'{"Tty":true}')
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b"application/vnd.docker.raw-stream" in answer and served.bodies == [{"Tty": True}]
        writer.write(b"raw")
        writer.write_eof()
        assert await reader.read() == b"RAWend of input"
        writer.close()

    story(test, tmp_path, echo, tty=True, body=True)


def test_without_upgrade_the_connection_is_taken_over_all_the_same(tmp_path):
    async def test(served):
        reader, writer = await served.client()
        writer.write(b"POST /attach HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n")
        assert b"chunked" not in answer
        writer.write(b"x")
        writer.write_eof()
        assert pieces(await reader.read()) == {1: b"X", 2: b"end of input"}
        writer.close()

    story(test, tmp_path, echo)


def test_a_client_that_reads_nothing_makes_the_session_wait(tmp_path):
    sent = 0

    async def flood(connection):
        nonlocal sent
        while True:
            await connection.send(1, b"x" * 65536)
            sent += 65536

    async def test(served):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(served.path)
        sock.sendall(b"POST /attach HTTP/1.1\r\n" + UPGRADE + b"\r\n")
        before = -1
        while before != sent or not sent:
            before = sent
            await asyncio.sleep(0.05)
        assert sent < 2_000_000
        sock.close()  # and its leaving ends the session
        await served.finished.wait()

    story(test, tmp_path, flood)


def test_a_session_that_reads_nothing_makes_the_client_wait(tmp_path):
    go = asyncio.Event()
    got = 0

    async def lazy(connection):
        nonlocal got
        await go.wait()
        while data := await connection.read():
            got += len(data)

    async def test(served):
        reader, writer = await served.client()
        writer.write(b"POST /attach HTTP/1.1\r\n" + UPGRADE + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"x" * 20_000_000)
        writer.write_eof()
        left = -1
        while left != writer.transport.get_write_buffer_size():
            left = writer.transport.get_write_buffer_size()
            await asyncio.sleep(0.05)
        assert left > 15_000_000
        go.set()
        await served.finished.wait()
        assert got == 20_000_000
        writer.close()

    story(test, tmp_path, lazy)


@pytest.mark.parametrize("half_close_first", [False, True])
def test_a_client_that_leaves_ends_the_session_of_a_silent_process(tmp_path, half_close_first):
    class Silent(Echo):
        async def close_stdin(self) -> None:
            pass

    async def silent(connection):
        await streams.pump(connection, Silent())

    async def test(served):
        reader, writer = await served.client()
        writer.write(b"POST /attach HTTP/1.1\r\n" + UPGRADE + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        if half_close_first:
            writer.write_eof()
        writer.close()
        await served.finished.wait()

    story(test, tmp_path, silent)


def test_the_server_goes_on_and_stops_cleanly_with_a_session_open(tmp_path):
    async def forever(connection):
        await asyncio.Event().wait()

    async def test(served):
        _, open_one = await served.client()
        open_one.write(b"POST /attach HTTP/1.1\r\n" + UPGRADE + b"\r\n")
        reader, writer = await served.client()
        writer.write(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"OK")
        await asyncio.wait_for(served.server.close(5), 5)
        await served.finished.wait()
        open_one.close()

    story(test, tmp_path, forever)


def test_detach_keys_end_the_session_and_are_not_passed_on(tmp_path):
    detached: list[bool] = []
    process = Echo

    async def session(connection):
        keys = streams.parse_detach_keys("ctrl-p,ctrl-q")
        detached.append(await streams.pump(connection, process(), detach_keys=keys))

    async def test(served):
        reader, writer = await served.client()
        writer.write(b"POST /attach HTTP/1.1\r\n" + UPGRADE + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"a\x10b")
        assert await reader.readexactly(3) == b"A\x10B"
        writer.write(b"\x10")
        await writer.drain()
        writer.write(b"\x11")
        assert await reader.read() == b"" and detached == [True]
        writer.close()

    story(test, tmp_path, session, tty=True)


def test_an_error_after_the_answer_is_told_on_stdout_as_docker_does(tmp_path):
    async def fails(connection):
        raise Invalid('exec: "foo": executable file not found in $PATH')

    async def test(served):
        reader, writer = await served.client()
        writer.write(b"POST /attach HTTP/1.1\r\n" + UPGRADE + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert pieces(await reader.read()) == {1: b'exec: "foo": executable file not found in $PATH\r\n'}
        writer.close()

    story(test, tmp_path, fails)


def test_detach_keys_are_parsed_or_refused():
    assert streams.parse_detach_keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert streams.parse_detach_keys("a,ctrl-[,ctrl-@,DEL") == b"a\x1b\x00\x7f"
    for text in ("", "ctrl-", "ab", "ctrl-1", "a,,b"):
        with pytest.raises(Invalid):
            streams.parse_detach_keys(text)
