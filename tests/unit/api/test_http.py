"""What every route shares: versions, bodies, queries, errors; asked over a unix socket as clients do."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from netengine.api import http
from netengine.errors import Conflict, Forbidden, Invalid, KernelRefused, NotFound, NotModified, Unavailable
from netengine.http import Answer, Request, Server


def query(text: str) -> Request:
    return Request("GET", f"/x?{text}")


# ---------------------------------------------------------------------- filters


def filters(value: Any, known: tuple[str, ...] = ("name", "label")) -> dict[str, list[str]]:
    text = value if isinstance(value, str) else json.dumps(value)
    return http.filters(query(urlencode({"filters": text})), known)


def test_filters_of_both_encodings() -> None:
    assert filters({"name": {"web": True, "db": True}}) == {"name": ["web", "db"]}
    assert filters({"name": ["web", "db"]}) == {"name": ["web", "db"]}


def test_a_filter_that_is_switched_off_is_none() -> None:
    assert filters({"name": {"web": False, "db": True}}) == {"name": ["db"]}


def test_no_filters() -> None:
    assert http.filters(query(""), ()) == {}
    assert filters("") == {}
    assert filters("{}") == {}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", "invalid filter: not JSON"),
        ("[" * 100_000, "invalid filter: not JSON"),
        ("[]", "invalid filter: an object is expected"),
        ("null", "invalid filter: an object is expected"),
        ({"colour": ["blue"]}, "invalid filter 'colour'"),
        ({"x" * 5000: ["blue"]}, "invalid filter 'xxx"),
        ({"name": "web"}, "invalid filter 'name': give a list of texts"),
        ({"name": [1]}, "invalid filter 'name': give a list of texts"),
        ({"name": None}, "invalid filter 'name': give a list of texts"),
    ],
)
def test_filters_that_cannot_be(value: Any, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        filters(value)
    assert refused.value.message.startswith(words)
    assert len(refused.value.message) < 200


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ([], True),
        (["a"], True),
        (["a=1"], True),
        (["a=2"], False),
        (["b"], False),
        (["a", "e="], True),
        (["a=1", "b"], False),
        (["x=y=z"], False),
    ],
)
def test_labels(wanted: list[str], matches: bool) -> None:
    assert http.matches_labels({"a": "1", "e": ""}, wanted) is matches


# ---------------------------------------------------------------------- the query


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", False),
        ("all=1", True),
        ("all=true", True),
        ("all=0", False),
        ("all=false", False),
        ("all=", False),
        ("all=yes", True),
    ],
)
def test_a_flag(text: str, value: bool) -> None:
    assert http.flag(query(text), "all") is value


def test_a_flag_s_default() -> None:
    assert http.flag(query(""), "all", default=True) is True
    assert http.flag(query("all=0"), "all", default=True) is False


@pytest.mark.parametrize(("text", "value"), [("", None), ("t=", None), ("t=10", 10), ("t=-1", -1)])
def test_a_number(text: str, value: int | None) -> None:
    assert http.number(query(text), "t") == value


@pytest.mark.parametrize("text", ["ten", "1.5", "1e3", "99999999999", "%D9%A1", "1 2", "0x10"])
def test_numbers_that_are_none(text: str) -> None:
    with pytest.raises(Invalid, match="must be a whole number"):
        http.number(query(f"t={text}"), "t")


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("", None),
        ("1700000000", 1_700_000_000_000_000_000),
        ("1700000000.5", 1_700_000_000_500_000_000),
        ("1700000000.000000001", 1_700_000_000_000_000_001),
    ],
)
def test_a_moment(text: str, nanoseconds: int | None) -> None:
    assert http.moment(query(f"since={text}"), "since") == nanoseconds


@pytest.mark.parametrize("text", ["yesterday", "1.", ".5", "1.1234567890", "nan", "1e9"])
def test_moments_that_are_none(text: str) -> None:
    with pytest.raises(Invalid, match="give seconds since the epoch"):
        http.moment(query(f"since={text}"), "since")


# ---------------------------------------------------------------------- over a socket


class Wish(msgspec.Struct, rename="pascal"):
    name: str = ""
    count: int = 0


ERRORS = {
    "notmodified": NotModified("so it is"),
    "invalid": Invalid("bad value 'x'"),
    "forbidden": Forbidden("no"),
    "notfound": NotFound("network x not found"),
    "conflict": Conflict("taken"),
    "refused": KernelRefused("the kernel refused"),
    "unavailable": Unavailable("full"),
    "bug": ZeroDivisionError("division by zero"),
}


async def body(request: Request) -> Answer:
    return http.reply(await http.body_object(request, optional="optional" in request.query))


async def wish(request: Request) -> Answer:
    return http.reply(http.decode(await http.body_object(request), Wish))


async def fail(request: Request) -> Answer:
    raise ERRORS[request.variables["how"]]


async def version(request: Request) -> Answer:
    return http.reply(list(http.version_of(request)))


resolve = http.resolver(
    [
        ("POST", "/body", body),
        ("POST", "/wish", wish),
        ("GET", "/fail/{how}", fail),
        ("GET", "/version", version),
    ]
)


def ask(tmp_path: Path, *requests: tuple[str, str, dict[str, Any]]) -> list[tuple[int, dict[str, str], bytes]]:
    """Serve the handlers above and send requests: (method, path, {"data": body, "headers": ...})."""

    async def story() -> list[tuple[int, dict[str, str], bytes]]:
        server = Server(lambda request: http.docker_semantics(request, resolve(request)), headers=http.HEADERS)
        with socket.socket(socket.AF_UNIX) as listener:
            (tmp_path / "s").unlink(missing_ok=True)
            listener.bind(str(tmp_path / "s"))
            listener.listen()
            await server.listen(listener)
            out = await asyncio.to_thread(lambda: list(answers()))
            await server.close(1)
        return out

    def answers() -> Iterator[tuple[int, dict[str, str], bytes]]:
        for method, path, options in requests:
            connection = Connection(str(tmp_path / "s"))
            connection.request(method, path, options.get("data"), options.get("headers", {}))
            answer = connection.getresponse()
            yield answer.status, dict(answer.getheaders()), answer.read()
            connection.close()

    return asyncio.run(story())


class Connection(HTTPConnection):
    """To a unix socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.host)


def one(tmp_path: Path, method: str, path: str, **options: Any) -> tuple[int, Any]:
    ((status, _, content),) = ask(tmp_path, (method, path, options))
    return status, json.loads(content) if content.strip() else None


def post(tmp_path: Path, path: str, data: bytes | str, kind: str = "application/json") -> tuple[int, Any]:
    return one(tmp_path, "POST", path, data=data, headers={"Content-Type": kind})


@pytest.mark.parametrize(
    ("how", "status", "message"),
    [
        ("invalid", 400, "bad value 'x'"),
        ("forbidden", 403, "no"),
        ("notfound", 404, "network x not found"),
        ("conflict", 409, "taken"),
        ("refused", 500, "the kernel refused"),
        ("unavailable", 503, "full"),
    ],
)
def test_an_error_is_its_status_and_its_message(tmp_path: Path, how: str, status: int, message: str) -> None:
    ((code, headers, content),) = ask(tmp_path, ("GET", f"/fail/{how}", {}))
    assert (code, json.loads(content)) == (status, {"message": message})
    assert headers["Content-Type"] == "application/json", "Docker's client compares without charset"


def test_not_modified_has_no_body(tmp_path: Path) -> None:
    ((status, _, content),) = ask(tmp_path, ("GET", "/fail/notmodified", {}))
    assert (status, content) == (304, b"")


def test_a_bug_is_an_error_of_the_server_that_says_so(tmp_path: Path) -> None:
    status, answer = one(tmp_path, "GET", "/fail/bug")
    assert status == 500
    assert answer["message"].startswith("internal error: ZeroDivisionError")


@pytest.mark.parametrize(("method", "path"), [("GET", "/nowhere"), ("DELETE", "/body"), ("GET", "/v1.51/nowhere")])
def test_what_is_not_there(tmp_path: Path, method: str, path: str) -> None:
    assert one(tmp_path, method, path) == (404, {"message": "page not found"})


def test_every_answer_says_who_speaks(tmp_path: Path) -> None:
    ((_, headers, _), (_, missing, _)) = ask(tmp_path, ("GET", "/version", {}), ("GET", "/nowhere", {}))
    for each in (headers, missing):
        assert each["Api-Version"] == "1.51"
        assert each["Ostype"] == "linux"
        assert each["Server"].endswith("(linux)")


@pytest.mark.parametrize(
    ("path", "status", "answer"),
    [
        ("/version", 200, [1, 51]),
        ("/v1.51/version", 200, [1, 51]),
        ("/v1.24/version", 200, [1, 24]),
        (
            "/v1.23/version",
            400,
            {
                "message": "client version 1.23 is too old. Minimum supported API version is 1.24, "
                "please upgrade your client to a newer version"
            },
        ),
        ("/v1.52/version", 400, {"message": "client version 1.52 is too new. Maximum supported API version is 1.51"}),
        ("/v9.0/version", 400, {"message": "client version 9.0 is too new. Maximum supported API version is 1.51"}),
    ],
)
def test_the_version_that_a_client_chooses(tmp_path: Path, path: str, status: int, answer: Any) -> None:
    assert one(tmp_path, "GET", path) == (status, answer)


def test_nulls_stand_for_not_given(tmp_path: Path) -> None:
    sent = {"A": None, "B": {"C": None, "D": 1}, "E": [{"F": None, "G": 2}, None]}
    assert post(tmp_path, "/body", json.dumps(sent)) == (200, {"B": {"D": 1}, "E": [{"G": 2}, None]})


def test_nulls_whose_key_is_what_counts_are_kept(tmp_path: Path) -> None:
    sent = {"EndpointsConfig": {"app": None}, "PortBindings": {"80/tcp": None}, "ExposedPorts": {"80": None}}
    assert post(tmp_path, "/body", json.dumps(sent)) == (200, sent)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", "invalid JSON: got EOF while reading request body"),
        ("  ", "invalid JSON: got EOF while reading request body"),
        ("{", "invalid JSON: "),
        ("{} {}", "unexpected content after JSON"),
        ("[]", "invalid JSON: an object is expected, got list"),
        ("null", "invalid JSON: an object is expected, got NoneType"),
        (b"\xff\xfe{}", "invalid JSON"),
        ("[" * 200_000, "invalid JSON"),
        ('{"a": ' + "9" * 5000 + "}", "invalid JSON"),
    ],
)
def test_bodies_that_are_none(tmp_path: Path, data: Any, words: str) -> None:
    status, answer = post(tmp_path, "/body", data)
    assert status == 400
    assert answer["message"].startswith(words)


def test_a_body_of_another_type_is_refused(tmp_path: Path) -> None:
    status, answer = post(tmp_path, "/body", "{}", "text/plain")
    assert (status, answer["message"]) == (
        400,
        "unsupported Content-Type header (text/plain): must be 'application/json'",
    )


def test_a_charset_beside_the_type_is_nobody_s_problem(tmp_path: Path) -> None:
    assert post(tmp_path, "/body", "{}", "Application/JSON; charset=utf-8") == (200, {})


def test_where_a_body_is_optional_none_is_an_empty_one(tmp_path: Path) -> None:
    assert post(tmp_path, "/body?optional=1", "") == (200, {})
    assert post(tmp_path, "/body?optional=1", "null") == (200, {})


def test_a_body_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_LIMIT", 1000)

    chunks = (b" " * 100 for _ in range(100))
    status, answer = one(tmp_path, "POST", "/body", data=chunks, headers={"Content-Type": "application/json"})
    assert (status, answer["message"]) == (400, "the request body has more than 1000 bytes")


def test_a_field_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    status, answer = post(tmp_path, "/wish", '{"Name": "x", "Count": "many"}')
    assert status == 400
    assert answer["message"] == "invalid JSON: Expected `int`, got `str` - at `$.Count`"


def test_fields_that_are_not_known_are_left_alone(tmp_path: Path) -> None:
    """Clients of newer versions send more."""
    assert post(tmp_path, "/wish", '{"Name": "x", "Colour": "blue"}') == (200, {"Name": "x", "Count": 0})
