"""Calls, as a server sees them that answers by hand; and what the caller is told of answers that are none."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import pytest

from netengine.http import Request, Response, Server
from netengine.http.client import CallError, Client, ConnectTimeout, Disconnected, NotConnected, Unanswered

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"


class Played:
    """A server that plays a script on each connection."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections = 0
        self.heads: list[bytes] = []

    async def __aenter__(self) -> Played:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            try:
                await self.script(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        self.server = await asyncio.start_server(play, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self.server.close()


def story(test: Callable[[Client], Awaitable[None]], keep_seconds: float = 45.0) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            client = Client(keep_seconds)
            await test(client)
            await client.close()

    asyncio.run(main())


async def got(client: Client, url: str, body: bytes = b"") -> tuple[int, bytes | None]:
    async with client.call("POST" if body else "GET", url, body) as answer:
        return answer.status, await answer.read(1 << 20)


def answering(*answers: bytes) -> Script:
    """Each request gets the next answer, and the connection ends behind the last."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()

    return script


def test_what_is_sent_is_what_was_asked() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(4))
        writer.write(OK)

    seen: list[bytes] = []

    async def test(client: Client) -> None:
        async with Played(script) as played:
            async with client.call("POST", f"{played.url}/a?b=c", b"body", headers={"X-One": "1"}) as answer:
                assert (answer.status, answer.headers, await answer.read(10)) == (200, {"content-length": "2"}, b"OK")
            host = played.url.removeprefix("http://").encode()
            assert seen == [b"POST /a?b=c HTTP/1.1\r\nHost: " + host + b"\r\nX-One: 1\r\nContent-Length: 4\r\n\r\nbody"]
            with pytest.raises(ValueError, match="line break"):
                async with client.call("GET", played.url, headers={"X": "1\r\nY: 2"}):
                    pass

    story(test)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK, b"OK"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nO\r\n1\r\nK\r\n0\r\n\r\n", b"OK"),
        (b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" + OK, b"OK"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.0 200 OK\r\n\r\nas long as it lasts", b"as long as it lasts"),
    ],
    ids=["sized", "chunked", "continue", "none", "to the end"],
)
def test_the_forms_of_an_answer(answer: bytes, body: bytes) -> None:
    async def test(client: Client) -> None:
        async with Played(answering(answer)) as played:
            status, content = await got(client, played.url)
            assert status in (200, 204) and content == body

    story(test)


@pytest.mark.parametrize(("keep_seconds", "connections"), [(45, 1), (0, 3)])
def test_a_connection_is_kept_for_the_next_call(keep_seconds: float, connections: int) -> None:
    async def test(client: Client) -> None:
        async with Played(answering(*[OK] * 9)) as played:
            for _ in range(3):
                assert await got(client, played.url) == (200, b"OK")
            assert played.connections == connections

    story(test, keep_seconds)


def test_a_connection_is_not_kept_whose_answer_was_not_read_or_that_the_server_ends() -> None:
    async def test(client: Client) -> None:
        async with Played(answering(OK.replace(b"Length: 2", b"Length: 3"))) as played:
            async with client.call("GET", played.url):
                pass
            played.script = answering(OK, OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), OK)
            for connections in (2, 2, 3):
                await got(client, played.url)
                assert played.connections == connections

    story(test)


def test_an_answer_that_is_more_than_is_taken_is_none() -> None:
    async def test(client: Client) -> None:
        async with Played(answering(OK)) as played, client.call("GET", played.url) as answer:
            assert await answer.read(1) is None

    story(test)


def test_a_stream_comes_as_it_is_sent() -> None:
    go = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await go.wait()
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")

    async def test(client: Client) -> None:
        async with Played(script) as played, client.call("POST", played.url) as answer:
            pieces = aiter(answer)
            assert await anext(pieces) == b"first"
            go.set()
            assert [piece async for piece in pieces] == [b"second"]

    story(test)


@pytest.mark.parametrize(
    ("answer", "words", "kind"),
    [
        (b"", "closed the connection", Unanswered),
        (b"HTTP/1.1 200 OK\r\nConte", "before the end of its answer", Disconnected),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "before the end of its answer", Disconnected),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "before the end", Disconnected),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP", Disconnected),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, "bytes of headers", Disconnected),
    ],
    ids=["nothing", "half a head", "short", "half a chunk", "another protocol", "headers"],
)
def test_what_is_no_whole_answer_is_said(answer: bytes, words: str, kind: type[CallError]) -> None:
    async def test(client: Client) -> None:
        async with Played(answering(answer)) as played:
            with pytest.raises(Disconnected, match=words) as refused:
                await got(client, played.url)
            assert type(refused.value) is kind
            with pytest.raises(Disconnected):  # and the next call has a connection of its own
                await got(client, played.url)
            assert played.connections == 2

    story(test)


def test_where_nobody_listens_there_is_no_connection() -> None:
    async def test(client: Client) -> None:
        async with Played(answering()) as played:
            url = played.url
        with pytest.raises(NotConnected) as refused:
            await got(client, url)
        assert isinstance(refused.value.cause, ConnectionRefusedError)

    story(test)


def test_tls_that_is_none_and_tls_that_does_not_come() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    async def test(client: Client) -> None:
        async with Played(plain) as played:
            with pytest.raises(NotConnected) as refused:
                await got(client, played.url.replace("http:", "https:"))
            assert isinstance(refused.value.cause, (ssl.SSLError, ConnectionError))
        async with Played(silent) as played:
            with pytest.raises(ConnectTimeout):
                async with client.call("GET", played.url.replace("http:", "https:"), connect_seconds=0.1):
                    pass

    story(test)


def test_it_speaks_with_the_server_of_this_package() -> None:
    async def answer(request: Request) -> Response:
        return Response(200, await request.body.whole(10_000_000))

    async def test(client: Client) -> None:
        server = Server(answer)
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(server.connection, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
        for size in (0, 1, 3_000_000):
            async with client.call("POST", url, b"x" * size) as reply:
                assert reply.status == 200 and await reply.read(10_000_000) == b"x" * size
        listening.close()
        await server.close(1)

    story(test)
