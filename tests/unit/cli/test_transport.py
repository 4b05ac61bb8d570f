"""HTTP framing, and what is said when there is nobody to talk to."""

from __future__ import annotations

import os
import socket

import pytest

from netengine.cli.engine import Engine, filters, target
from netengine.cli.transport import Unreachable, request
from netengine.errors import Conflict, Forbidden, Invalid, KernelRefused, NotFound, Unsupported

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhelloEXTRA", b"hello"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: 1\r\n\r\n", b"hello"),
        (OK + b"\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304\r\n\r\n", b""),
    ],
)
def test_bodies(engine, raw, body):
    engine.raw("GET /x", raw)
    with request(str(engine.path), "GET", "/x") as response:
        assert response.body() == body


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        OK,
        OK + b"Content-Length: 9\r\n\r\nshort",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
    ],
)
def test_broken_answers_are_unreachable_and_never_a_traceback(engine, raw):
    engine.raw("GET /x", raw)
    with pytest.raises(Unreachable), request(str(engine.path), "GET", "/x") as response:
        response.body()


def test_lines_cross_chunk_borders(engine):
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (b"on", b"e\ntwo\nth", b"ree"))
    engine.raw("GET /x", OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    with request(str(engine.path), "GET", "/x") as response:
        assert list(response.lines()) == [b"one", b"two", b"three"]


def test_a_hijacked_stream_begins_with_what_was_already_read(engine):
    engine.raw("POST /x", b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nearly")
    sock, left, framed = Engine(engine.host).hijack("/x")
    with sock:
        assert left + sock.recv(10) == b"early"
    assert framed
    assert engine.requests[0].headers["upgrade"] == "tcp"


def test_uploads_are_chunked_and_an_early_refusal_wins(engine):
    engine.on("POST /images/create", {"ok": 1})
    blocks = iter([b"a" * 1000, b"", b"b" * 10])
    with Engine(engine.host).upload("/images/create", {"repo": "x"}, blocks) as response:
        assert response.status == 200
    assert engine.requests[0].body == b"a" * 1000 + b"b" * 10


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Invalid), (403, Forbidden), (404, NotFound), (409, Conflict), (500, KernelRefused), (501, Unsupported)],
)
def test_errors_keep_the_daemons_words(engine, status, kind):
    engine.refuse("GET /networks/x", status, "its own words")
    with pytest.raises(kind, match="its own words"):
        Engine(engine.host).get("/networks/x")


def test_an_error_without_json_is_shown_as_it_is(engine):
    engine.raw("GET /x", b"HTTP/1.1 500 X\r\nContent-Length: 4\r\n\r\nboom")
    with pytest.raises(KernelRefused, match="boom"):
        Engine(engine.host).get("/x")


def test_no_daemon(tmp_path):
    with pytest.raises(Unreachable) as caught:
        Engine(f"unix://{tmp_path}/none.sock").get("/networks")
    assert caught.value.message == (
        f"Cannot connect to the netengine daemon at unix://{tmp_path}/none.sock. "
        "Is it running? Start it with: netengined"
    )


def test_a_socket_that_nobody_listens_on(tmp_path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "dead.sock"))
    with pytest.raises(Unreachable, match="Is it running"):
        Engine(f"unix://{tmp_path}/dead.sock").get("/networks")


def test_a_socket_that_may_not_be_opened_names_the_way_in(engine, monkeypatch):
    class Refused(socket.socket):
        def connect(self, address):
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("netengine.cli.transport.socket.socket", Refused)  # root is let in everywhere
    for group, remedy in ((0, "use sudo"), (os.getgid() or 1, "sudo usermod -aG")):
        os.chown(engine.path, -1, group) if os.geteuid() == 0 else None
        with pytest.raises(Unreachable, match="permission denied on the daemon's socket") as caught:
            Engine(engine.host).get("/networks")
        assert remedy in caught.value.message or os.geteuid() != 0


def test_a_path_too_long_for_a_socket():
    with pytest.raises(Unreachable, match="no usable socket"):
        Engine("unix:///" + "x" * 200).get("/networks")


@pytest.mark.parametrize("host", ["tcp://1.2.3.4:2375", "/run/x.sock", "unix://x.sock", "unix://", ""])
def test_hosts_that_are_no_unix_socket(host):
    with pytest.raises(Invalid, match="give a unix socket by its full path"):
        Engine(host)


def test_targets():
    assert target(
        "/a", {"on": True, "off": False, "none": None, "empty": "", "n": 0, "t": "a b&c", "l": ["x", "y"]}
    ) == ("/v1.51/a?on=1&n=0&t=a%20b%26c&l=x&l=y")
    assert target("/netengine/explain", {"ref": "ü"}) == "/netengine/explain?ref=%C3%BC"


def test_filters_need_a_key_and_a_value():
    assert filters([]) == ""
    with pytest.raises(Invalid, match="invalid filter 'web'"):
        filters(["web"])
