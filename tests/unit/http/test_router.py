"""Which path leads where."""

from __future__ import annotations

from typing import Any

import pytest

from netengine.http import Answer, Request, Router


def handler(name: str) -> Any:
    async def found(request: Request) -> Answer:
        raise NotImplementedError

    found.__name__ = name
    return found


ROUTES = [
    ("GET", "/_ping"),
    ("GET", "/networks"),
    ("GET", "/networks/"),
    ("POST", "/networks/create"),
    ("GET", "/networks/{id:.+}"),
    ("DELETE", "/networks/{id:.+}"),
    ("POST", "/networks/{id:.+}/connect"),
    ("GET", "/containers/json"),
    ("GET", "/containers/{id}/json"),
    ("DELETE", "/containers/{id}"),
    ("GET", "/images/{name:.+}/json"),
    ("GET", "/own/policies/{id}"),
    ("POST", "/own/containers/{id}/publish"),
]
ROUTER = Router([(method, path, handler(f"{method} {path}")) for method, path in ROUTES])


@pytest.mark.parametrize(
    ("asked", "route", "variables"),
    [
        ("GET /_ping", "GET /_ping", {}),
        ("GET /networks", "GET /networks", {}),
        ("GET /networks/", "GET /networks/", {}),
        ("POST /networks/create", "POST /networks/create", {}),
        ("GET /networks/create", "GET /networks/{id:.+}", {"id": "create"}),
        ("GET /networks/a/b", "GET /networks/{id:.+}", {"id": "a/b"}),
        ("GET /networks/a%2Fb%20c", "GET /networks/{id:.+}", {"id": "a/b c"}),
        ("GET /networks/a/", "GET /networks/{id:.+}", {"id": "a/"}),
        ("POST /networks/a/b/connect", "POST /networks/{id:.+}/connect", {"id": "a/b"}),
        ("DELETE /networks/a/connect", "DELETE /networks/{id:.+}", {"id": "a/connect"}),
        ("GET /containers/json", "GET /containers/json", {}),
        ("DELETE /containers/json", "DELETE /containers/{id}", {"id": "json"}),
        ("GET /containers/web/json", "GET /containers/{id}/json", {"id": "web"}),
        ("GET /containers/json/json", "GET /containers/{id}/json", {"id": "json"}),
        ("GET /images/a/b:1/json", "GET /images/{name:.+}/json", {"name": "a/b:1"}),
        ("GET /own/policies/1", "GET /own/policies/{id}", {"id": "1"}),
        ("POST /own/containers/web/publish", "POST /own/containers/{id}/publish", {"id": "web"}),
    ],
)
def test_a_path_leads_to_its_route(asked: str, route: str, variables: dict[str, str]) -> None:
    found = ROUTER.find(*asked.split(" "))
    assert found is not None
    assert (found[0].__name__, found[1]) == (route, variables)


@pytest.mark.parametrize(
    "asked",
    [
        "GET /",
        "GET *",
        "GET example.com:443",
        "POST /_ping",
        "GET /_ping/",
        "POST /networks/connect",
        "POST /networks//connect",
        "GET /containers",
        "DELETE /containers/",
        "DELETE /containers/a/b",
        "DELETE /containers/a/",
        "GET /containers//json",
        "GET /containers/a/b/json",
        "GET /images/json",
        "GET /images//json",
        "GET /own/policies/",
        "GET /own",
    ],
)
def test_a_path_that_leads_nowhere(asked: str) -> None:
    assert ROUTER.find(*asked.split(" ")) is None


def test_a_route_that_it_cannot_tell_from_others_is_refused() -> None:
    with pytest.raises(ValueError, match="none that this router knows"):
        Router([("GET", "/a/{b}/{c}", handler("x"))])
