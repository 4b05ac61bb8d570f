"""How calls go on when a member comes back: against a gateway whose answers are timed, which those of a real one are not.

What real members answer is in tests/cluster/test_etcd.py.
"""

from __future__ import annotations

import asyncio
import socket

import msgspec
import pytest

from netengine.http import Request, Response, Server
from netengine.store.etcd import Etcd


def test_a_member_that_was_waited_for_and_has_forgotten_the_token_is_asked_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = 0
    asked: list[str] = []

    async def gateway(request: Request) -> Response:
        asked.append(request.path)
        token = request.headers.get("authorization")
        if request.path == "/v3/auth/authenticate":
            return Response(200, b'{"token": "fresh"}')
        if token != "fresh":
            return Response(401, msgspec.json.encode({"error": "etcdserver: invalid auth token", "code": 16}))
        return Response(200, b'{"header": {"revision": "7"}}')

    async def story() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))  # and nobody listens yet
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            server = Server(gateway)
            came = asyncio.Event()

            def count(url: str) -> None:
                nonlocal refused
                refused += 1
                if refused > 5:
                    came.set()

            async with asyncio.timeout(60), Etcd([url], name="root", password="r", time_limit=30) as etcd:
                monkeypatch.setattr(etcd, "_prefer_another", count)
                etcd._token = "forgotten"
                reading = asyncio.ensure_future(etcd.read("/"))
                await came.wait()
                listener.listen()
                await server.listen(listener)
                assert await reading == ([], 7)
            await server.close(1)

    asyncio.run(story())
    assert asked == ["/v3/kv/range", "/v3/auth/authenticate", "/v3/kv/range"]
