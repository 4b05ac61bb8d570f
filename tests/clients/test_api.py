"""The rules of the Engine API that every client relies on, checked on the wire."""

import json
import socket
import struct

import pytest

from tests.clients.lab import Lab


def test_ping_announces_the_api(lab: Lab):
    answer = lab.api("GET", "/_ping")
    assert (answer.status, answer.body) == (200, b"OK")
    assert answer.headers["Api-Version"] == "1.51"
    assert answer.headers["Ostype"] == "linux"
    assert answer.headers["Docker-Experimental"] == "false"
    assert answer.headers["Swarm"] == "inactive"
    assert answer.headers["Cache-Control"] == "no-cache, no-store, must-revalidate"
    head = lab.api("HEAD", "/_ping")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "0")


@pytest.mark.parametrize("prefix", ["", "/v1.24", "/v1.40", "/v1.51"])
@pytest.mark.parametrize("path", ["/_ping", "/version", "/info", "/networks", "/networks/bridge", "/containers/json"])
def test_every_path_is_served_bare_and_under_each_version(lab: Lab, prefix: str, path: str):
    assert lab.api("GET", prefix + path).status == 200


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("1.23", "client version 1.23 is too old. Minimum supported API version is 1.24"),
        ("1.99", "client version 1.99 is too new. Maximum supported API version is 1.51"),
    ],
)
def test_a_version_out_of_range_is_refused(lab: Lab, version: str, text: str):
    answer = lab.api("GET", f"/v{version}/networks")
    assert answer.status == 400
    assert text in answer.message


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nope"),
        ("POST", "/nope"),
        ("PATCH", "/networks"),
        ("GET", "/"),
        ("PUT", "/info"),
    ],
)
def test_what_is_not_there_is_page_not_found(lab: Lab, method: str, path: str):
    answer = lab.api(method, path)
    assert (answer.status, answer.message) == (404, "page not found")


def test_create_answers_201_with_id_and_warning(lab: Lab):
    answer = lab.api("POST", "/networks/create", {"Name": "blue"})
    assert answer.status == 201
    assert sorted(answer.json) == ["Id", "Warning"]
    container = lab.api("POST", "/containers/create?name=web", {"Image": "host", "Cmd": ["true"]})
    assert container.status == 201
    assert sorted(container.json) == ["Id", "Warnings"]


def test_the_statuses_of_a_containers_life(lab: Lab):
    lab.api("POST", "/containers/create?name=web", {"Image": "host", "Cmd": ["sleep", "100"]})
    assert lab.api("POST", "/containers/web/start").status == 204
    assert lab.api("POST", "/containers/web/start").status == 304
    assert lab.api("DELETE", "/containers/web").status == 409
    assert lab.api("POST", "/containers/web/kill").status == 204
    waited = lab.api("POST", "/containers/web/wait")
    assert (waited.status, waited.json["StatusCode"]) == (200, 137)
    assert lab.api("POST", "/containers/web/stop").status == 304
    assert lab.api("POST", "/containers/web/kill").status == 409
    assert lab.api("DELETE", "/containers/web").status == 204
    assert lab.api("DELETE", "/containers/web").status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/networks/nope", 404),
        ("DELETE", "/networks/nope", 404),
        ("DELETE", "/networks/bridge", 403),
        ("GET", "/containers/nope/json", 404),
        ("POST", "/exec/nope/start", 404),
        ("GET", "/images/nope/json", 404),
    ],
)
def test_errors_have_dockers_status_and_body(lab: Lab, method: str, path: str, status: int):
    answer = lab.api(method, path, {} if method == "POST" else None)
    assert answer.status == status
    assert answer.message


def test_both_encodings_of_filters_are_understood(lab: Lab):
    lab.api("POST", "/networks/create", {"Name": "blue"})
    for filters in ({"name": {"blue": True}}, {"name": ["blue"]}):
        found = lab.api("GET", f"/networks?filters={json.dumps(filters, separators=(',', ':'))}").json
        assert [network["Name"] for network in found] == ["blue"]
    refused = lab.api("GET", '/networks?filters={"colour":["blue"]}')
    assert (refused.status, refused.message) == (400, "invalid filter 'colour'")


def test_no_address_is_ever_written_as_nil(lab: Lab):
    lab.serve("web")
    for path in ("/containers/web/json", "/containers/json", "/networks", "/networks/bridge"):
        assert b"<nil>" not in lab.api("GET", path).body


def hijack(lab: Lab, path: str, body: dict[str, object]) -> tuple[bytes, socket.socket]:
    """POST with an upgrade; the head of the answer and the raw connection after it."""
    data = json.dumps(body).encode()
    sock = lab.daemon.connect()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
    sock.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    seen = b""
    while not seen.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        assert byte, f"the connection ended: {seen!r}"
        seen += byte
    return seen, sock


@pytest.mark.parametrize(
    ("version", "tty", "kind"),
    [
        ("1.51", False, b"application/vnd.docker.multiplexed-stream"),
        ("1.51", True, b"application/vnd.docker.raw-stream"),
        ("1.41", False, b"application/vnd.docker.raw-stream"),
    ],
)
def test_exec_upgrades_the_connection_and_frames_the_streams(lab: Lab, version: str, tty: bool, kind: bytes):
    lab.serve("web")
    made = lab.api(
        "POST",
        f"/v{version}/containers/web/exec",
        {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True, "Tty": tty},
    )
    assert made.status == 201
    head, sock = hijack(lab, f"/v{version}/exec/{made.json['Id']}/start", {"Detach": False, "Tty": tty})
    with sock:
        assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
        assert b"Content-Type: " + kind + b"\r\n" in head
        assert b"Upgrade: tcp\r\n" in head
        sock.sendall(b"hello\n")
        stream = sock.makefile("rb")
        if tty:
            assert stream.readline() == b"hello\r\n"
            return
        kind_of_stream, length = struct.unpack(">BxxxL", stream.read(8))
        assert (kind_of_stream, stream.read(length)) == (1, b"hello\n")
        sock.shutdown(socket.SHUT_WR)  # cat ends when its standard input does, and then the stream
        assert stream.read() == b""
    assert lab.api("GET", f"/exec/{made.json['Id']}/json").json["ExitCode"] == 0


def test_wait_answers_its_head_before_the_container_ends(lab: Lab):
    """`docker run` sends the wait before the start, and starts only when that has been accepted."""
    lab.api("POST", "/containers/create?name=web", {"Image": "host", "Cmd": ["sleep", "100"]})
    with lab.daemon.connect() as sock:
        sock.sendall(
            b"POST /v1.51/containers/web/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        )
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 OK")
        lab.api("POST", "/containers/web/start")
        lab.api("POST", "/containers/web/kill")
        seen = b""
        while b"StatusCode" not in seen:
            data = sock.recv(4096)
            assert data
            seen += data
        assert b'"StatusCode":137' in seen.replace(b" ", b"")


def test_the_socket_is_for_root_and_its_group(lab: Lab):
    assert lab.here.path("/run/netengine/netengine.sock").stat().st_mode & 0o777 == 0o660


def test_status_counts_the_addresses(lab: Lab):
    """Status.IPAM is of API 1.52; a server of 1.51 may show it or not, but must count as Docker does."""
    lab.api("POST", "/networks/create", {"Name": "blue", "IPAM": {"Config": [{"Subnet": "10.20.0.0/24"}]}})
    status = lab.api("GET", "/networks/blue").json.get("Status")
    if status is not None:
        assert status["IPAM"]["Subnets"]["10.20.0.0/24"] == {"IPsInUse": 3, "DynamicIPsAvailable": 253}
