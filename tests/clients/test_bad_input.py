"""Garbage, lies and clients that hang up: each gets a 4xx with the reason, and nothing is made, nothing is left."""

import io
import json
import socket
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.lab import Lab, eventually, python
from tests.clients.rootfs import build
from tests.daemons import Answer, Client

LONG = "x" * 5000


def refused(lab: Lab, answer: Answer, reason: str = "") -> str:
    """Assert a 4xx with a reason, and that the daemon made nothing; the reason."""
    assert 400 <= answer.status < 500, answer.body
    assert answer.message.strip()
    assert reason.lower() in answer.message.lower()
    assert len(answer.message) < 2000, "a reason, not an echo of the garbage"
    assert lab.untouched()
    assert lab.containers() == set()
    assert lab.networks() == {"bridge", "host", "none"}
    return answer.message


# ---------------------------------------------------------------------- bodies

PATHS = ["/networks/create", "/containers/create", "/networks/bridge/connect", "/networks/bridge/disconnect"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "raw",
    [b"{", b'{"Name": "x"', b"[]", b'"text"', b"nul", b"\xff\xfe", b"{'Name': 'x'}", b"[" * 100_000, b'{"Name":"x"}{}'],
    ids=["open", "half", "list", "text", "nul", "bytes", "quotes", "deep", "two"],
)
def test_malformed_json(lab: Lab, path: str, raw: bytes):
    refused(lab, lab.api("POST", path, raw=raw))


@pytest.mark.parametrize("path", PATHS)
def test_another_content_type(lab: Lab, path: str):
    answer = lab.api("POST", path, raw=b'{"Name":"x"}', headers={"Content-Type": "text/plain"})
    refused(lab, answer, "unsupported Content-Type header (text/plain): must be 'application/json'")


@pytest.mark.parametrize(
    "body",
    [
        {"Name": 5},
        {"Name": None},
        {"Name": ["x"]},
        {"Name": "x", "IPAM": "10.0.0.0/8"},
        {"Name": "x", "IPAM": {"Config": {"Subnet": "10.0.0.0/8"}}},
        {"Name": "x", "IPAM": {"Config": [{"Subnet": 10}]}},
        {"Name": "x", "IPAM": {"Config": [None, 3]}},
        {"Name": "x", "Internal": "yes"},
        {"Name": "x", "Options": {"com.docker.network.driver.mtu": 1500}},
        {"Name": "x", "Options": []},
        {"Name": "x", "Labels": "tier=front"},
    ],
    ids=str,
)
def test_wrong_types_in_a_network(lab: Lab, body: dict[str, object]):
    refused(lab, lab.api("POST", "/networks/create", body))


@pytest.mark.parametrize(
    "body",
    [
        {"Image": 5},
        {"Image": "host", "Cmd": 7},
        {"Image": "host", "Cmd": [1, 2]},
        {"Image": "host", "Env": {"A": "b"}},
        {"Image": "host", "Tty": "yes"},
        {"Image": "host", "Labels": ["a"]},
        {"Image": "host", "ExposedPorts": ["80/tcp"]},
        {"Image": "host", "HostConfig": []},
        {"Image": "host", "HostConfig": {"PortBindings": {"80/tcp": "8080"}}},
        {"Image": "host", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": 8080}]}}},
        {"Image": "host", "HostConfig": {"Binds": "/a:/b"}},
        {"Image": "host", "NetworkingConfig": {"EndpointsConfig": ["bridge"]}},
        {},
        {"Image": ""},
    ],
    ids=str,
)
def test_wrong_types_in_a_container(lab: Lab, body: dict[str, object]):
    refused(lab, lab.api("POST", "/containers/create", body))


# ---------------------------------------------------------------------- names

BAD_NAMES = ["", "a/b", "../x", "/", ".", "..", LONG, "a b", "-x", "a\nb", "a\0b", "ü", "x;rm -rf /", "$(id)"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name)[:12])
def test_names_that_no_network_can_have(lab: Lab, name: str):
    if name in (".", "..", "-x", "ü", "x;rm -rf /", "$(id)", "a b"):
        # Docker takes any name without a slash for a network: then it must be usable and removable, whatever it is.
        answer = lab.api("POST", "/networks/create", {"Name": name})
        if answer.status == 201:
            assert lab.api("DELETE", f"/networks/{answer.json['Id']}").status == 204
            return
    else:
        answer = lab.api("POST", "/networks/create", {"Name": name})
    refused(lab, answer)


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if name], ids=lambda name: repr(name)[:12])
def test_names_that_no_container_can_have(lab: Lab, name: str):
    from urllib.parse import quote

    refused(lab, lab.api("POST", f"/containers/create?name={quote(name, safe='')}", {"Image": "host", "Cmd": ["true"]}))


@pytest.mark.parametrize("name", ["..%2f..%2fetc", "%00", "a%2Fb", LONG, "%ff", "x%0d%0aX-Evil: 1"])
@pytest.mark.parametrize("path", ["/networks/{}", "/containers/{}/json", "/images/{}/json", "/exec/{}/json"])
def test_paths_that_name_nothing(lab: Lab, path: str, name: str):
    answer = lab.api("GET", path.format(name.replace(" ", "%20")))
    assert 400 <= answer.status < 500
    assert "X-Evil" not in answer.headers


@pytest.mark.parametrize("hostname", ["a b", "x" * 300, "../x", "a\nb"], ids=lambda name: repr(name)[:10])
def test_host_names_that_cannot_be(lab: Lab, hostname: str):
    refused(lab, lab.api("POST", "/containers/create", {"Image": "host", "Cmd": ["true"], "Hostname": hostname}))


# ---------------------------------------------------------------------- networks


def network(**config: str) -> dict[str, object]:
    return {"Name": "blue", "IPAM": {"Config": [config]}}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (network(Subnet="10.0.0.1/24"), "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24"),
        (network(Subnet="10.0.0.0"), "invalid"),
        (network(Subnet="10.0.0.0/33"), "invalid"),
        (network(Subnet="10.0.0.0/24", Gateway="10.0.1.1"), "invalid gateway 10.0.1.1"),
        (network(Subnet="10.0.0.0/24", IPRange="10.0.0.0/16"), "invalid ip-range 10.0.0.0/16"),
        (network(Subnet="10.0.0.0/24", IPRange="fd00::/64"), "invalid ip-range fd00::/64"),
        (network(Subnet="172.17.5.0/24"), "Pool overlaps with other one on this address space"),
        (network(Subnet="224.0.0.0/8"), "invalid subnet 224.0.0.0/8"),
        (network(Subnet=LONG), "invalid"),
        ({"Name": "blue", "Driver": "nope"}, "nope"),
        ({"Name": "blue", "Driver": "host"}, ""),
        ({"Name": "blue", "Driver": "../../x"}, ""),
        ({"Name": "blue", "Options": {"com.docker.network.driver.mtu": "big"}}, "mtu"),
        ({"Name": "blue", "Options": {"com.docker.network.driver.mtu": "-1"}}, "mtu"),
        ({"Name": "blue", "Options": {"com.docker.network.bridge.name": "a/b"}}, "a/b"),
        ({"Name": "blue", "Options": {"com.docker.network.bridge.name": "x" * 16}}, "x" * 16),
        ({"Name": "blue", "Options": {"com.docker.network.bridge.name": "docker0"}}, "docker0"),
        ({"Name": "blue", "Options": {"com.docker.network.bridge.name": "up0"}}, "up0"),
        ({"Name": "blue", "Options": {"com.docker.network.bridge.enable_icc": "maybe"}}, "enable_icc"),
        ({"Name": "blue", "Options": {"com.docker.network.bridge.host_binding_ipv4": "x"}}, "host_binding_ipv4"),
    ],
    ids=lambda value: str(value)[-40:] if isinstance(value, dict) else "",
)
def test_networks_that_cannot_be(lab: Lab, body: dict[str, object], reason: str):
    refused(lab, lab.api("POST", "/networks/create", body), reason)


# ---------------------------------------------------------------------- ports, addresses, mounts


def container(**host_config: object) -> dict[str, object]:
    return {"Image": "host", "Cmd": ["sleep", "5"], "HostConfig": host_config}


def published(port: str, host_port: str, address: str = "") -> dict[str, object]:
    return container(PortBindings={port: [{"HostIp": address, "HostPort": host_port}]})


@pytest.mark.parametrize(
    "body",
    [
        published("80/tcp", "65536"),
        published("80/tcp", "-1"),
        published("80/tcp", "http"),
        published("80/tcp", "9090-9089"),
        published("80/tcp", LONG),
        published("0/tcp", "80"),
        published("65536/tcp", "80"),
        published("80/carp", "80"),
        published("eighty/tcp", "80"),
        published("80/tcp", "80", "1.2.3"),
        published("80/tcp", "80", "localhost"),
        container(NetworkMode="nope/../x"),
        container(NetworkMode="container:"),
        container(Sysctls={"kernel.panic": "1"}),
        container(Sysctls={"net.ipv4.../../kernel/panic": "1"}),
        container(Binds=["relative:/x"]),
        container(Binds=["/etc:relative"]),
        container(Binds=["/etc:/x:wild"]),
        container(CapAdd=["CAP_NOPE"]),
        container(ExtraHosts=["nocolon"]),
        container(ExtraHosts=["a:not-an-address"]),
        {**container(), "MacAddress": "01:00:5e:00:00:01"},
        {**container(), "User": "a:b:c"},
        {**container(), "WorkingDir": "relative"},
        {**container(), "Env": ["=x"]},
        {**container(), "StopSignal": "SIGNOPE"},
    ],
    ids=lambda body: json.dumps({k: v for k, v in body.items() if k not in ("Image", "Cmd")})[-50:],
)
def test_containers_that_cannot_be(lab: Lab, body: dict[str, object]):
    """Refused at create; or at start at the latest, and then without a trace but the container itself."""
    answer = lab.api("POST", "/containers/create?name=web", body)
    if answer.status == 201:
        answer = lab.api("POST", "/containers/web/start")
        assert 400 <= answer.status < 500, answer.body
        assert lab.api("DELETE", "/containers/web").status == 204
    refused(lab, answer)


@pytest.mark.parametrize(
    "address", ["10.20.1.1", "10.20.0.0", "10.20.0.255", "10.20.0.1", "fd00::1", "x", "10.20.0.9/24"]
)
def test_addresses_that_cannot_be_given(lab: Lab, docker: Client, address: str):
    docker("network", "create", "--subnet", "10.20.0.0/24", "blue")
    body = {
        **container(NetworkMode="blue"),
        "NetworkingConfig": {"EndpointsConfig": {"blue": {"IPAMConfig": {"IPv4Address": address}}}},
    }
    answer = lab.api("POST", "/containers/create?name=web", body)
    if answer.status == 201:
        answer = lab.api("POST", "/containers/web/start")
        assert lab.api("DELETE", "/containers/web").status == 204
    assert 400 <= answer.status < 500, answer.body
    assert docker.inspect("blue")["Containers"] == {}


@pytest.mark.parametrize("query", ["signal=SIGNOPE", "signal=99", "signal=-1", "signal=" + LONG])
def test_signals_that_do_not_exist(lab: Lab, query: str):
    lab.run("web", command=["sh", "-c", "echo ready; exec sleep 100"])
    answer = lab.api("POST", f"/containers/web/kill?{query}")
    assert answer.status == 400
    assert lab.state("web")["Running"] is True


@pytest.mark.parametrize("path", ["/containers/json", "/networks", "/images/json", "/events"])
@pytest.mark.parametrize("filters", ["{", "[]", "5", '{"name":5}', '{"nope":["x"]}', "x" * 5000])
def test_filters_that_cannot_be_read(lab: Lab, path: str, filters: str):
    assert lab.api("GET", f"{path}?filters={filters.replace(' ', '%20')}").status == 400


@pytest.mark.parametrize("query", ["tail=x", "since=x", "h=-1&w=5", "t=x"])
def test_numbers_that_are_none(lab: Lab, query: str):
    lab.run("web", command=["sh", "-c", "echo ready; exec sleep 100"])
    if query.startswith(("tail", "since")):
        answer = lab.api("GET", f"/containers/web/logs?stdout=1&{query}")
    elif query.startswith("h"):
        answer = lab.api("POST", f"/containers/web/resize?{query}")
    else:
        answer = lab.api("POST", f"/containers/web/stop?{query}")
    assert answer.status == 400 or (query == "tail=x" and answer.status == 200), "Docker takes any other tail for `all`"
    assert lab.state("web")["Running"] is True


# ---------------------------------------------------------------------- images


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o777
    return info


def _escape(victim: Path) -> list[tuple[str, bytes]]:
    up = "../" * 20 + str(victim).lstrip("/")
    evil = b"escaped"
    return [
        ("parent", archive((member(up), evil))),
        ("absolute", archive((member(str(victim)), evil))),
        ("inner parent", archive((member("a/../../" * 20 + str(victim)), evil))),
        (
            "through a symlink",
            archive((member("out", tarfile.SYMTYPE, str(victim.parent)), b""), (member(f"out/{victim.name}"), evil)),
        ),
        (
            "through a relative symlink",
            archive((member("out", tarfile.SYMTYPE, "../" * 20), b""), (member(f"out{victim}"), evil)),
        ),
        ("hard link", archive((member("stolen", tarfile.LNKTYPE, str(victim)), b""), (member("stolen"), evil))),
        ("hard link up", archive((member("stolen", tarfile.LNKTYPE, up), b""), (member("stolen"), evil))),
    ]


@pytest.mark.parametrize("number", range(7))
def test_an_archive_cannot_write_outside_its_root(lab: Lab, tmp_path: Path, number: int):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    _, data = _escape(victim)[number]
    answer = lab.api(
        "POST", "/images/create?fromSrc=-&repo=evil", raw=data, headers={"Content-Type": "application/x-tar"}
    )
    assert victim.read_text() == "untouched"
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]
    # An absolute name and a symbolic link are harmless inside the root: those may be taken, the rest is refused.
    if answer.status != 200 or b'"error"' in answer.body:
        assert lab.images() == set()


@pytest.mark.parametrize("name", ["../up", "a/../../up", "a/b/../../../up"])
def test_an_archive_with_parent_paths_is_refused(lab: Lab, name: str):
    refused(lab, _import(lab, archive((member(name), b"x"))), "..")
    assert lab.images() == set()


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE], ids=["character", "block"])
def test_an_archive_with_device_nodes_is_refused(lab: Lab, kind: bytes):
    device = member("dev/mem", kind)
    device.devmajor, device.devminor = 1, 1
    refused(lab, _import(lab, archive((device, b""))), "dev/mem")
    assert lab.images() == set()


@pytest.mark.parametrize("data", [b"", b"not a tar" * 1000, b"\x1f\x8b" + b"\0" * 600, b"\0" * 511], ids=range(4))
def test_what_is_no_archive_is_refused(lab: Lab, data: bytes):
    refused(lab, _import(lab, data))
    assert lab.images() == set()


def test_a_truncated_archive_is_refused(lab: Lab, tmp_path: Path):
    whole = build(tmp_path / "tiny.tar").read_bytes()
    refused(lab, _import(lab, whole[: len(whole) // 2 + 100]))
    assert lab.images() == set()


@pytest.mark.parametrize("reference", ["UPPER", "a b", "../x", LONG, "host", "a:b:c", ":"], ids=lambda text: text[:8])
def test_image_names_that_cannot_be(lab: Lab, tmp_path: Path, reference: str):
    from urllib.parse import quote

    data = build(tmp_path / "tiny.tar").read_bytes()
    answer = lab.api("POST", f"/images/create?fromSrc=-&repo={quote(reference, safe='')}", raw=data)
    refused(lab, answer)
    assert lab.images() == set()


def _import(lab: Lab, data: bytes) -> Answer:
    headers = {"Content-Type": "application/x-tar"}
    return lab.api("POST", "/images/create?fromSrc=-&repo=evil", raw=data, headers=headers)


# ---------------------------------------------------------------------- clients that hang up


def hang_up(lab: Lab, data: bytes) -> None:
    """Send a part of a request and close the connection."""
    with lab.daemon.connect() as sock:
        sock.sendall(data)


def post(path: str, body: bytes, length: int | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"POST",
        b"POST /networks/create HTTP/1.1\r\nHost: x\r\n",
        post("/networks/create", b'{"Name":"blue"', 100),
        post("/containers/create?name=web", b'{"Image":"host"', 100),
        b"\x16\x03\x01\x02\x00\x01\x00" + b"\0" * 100,
        b"GET /" + b"x" * 100_000,
    ],
    ids=["nothing", "word", "head", "network", "container", "tls", "endless"],
)
def test_half_a_request_leaves_nothing(lab: Lab, data: bytes):
    hang_up(lab, data)
    assert lab.api("GET", "/_ping").status == 200
    assert lab.networks() == {"bridge", "host", "none"}
    assert lab.containers() == set()


def test_an_upload_that_stops_half_way_leaves_no_image(lab: Lab, tmp_path: Path):
    data = build(tmp_path / "tiny.tar").read_bytes()
    data_root = lab.here.path(str(lab.daemon.data_root))
    before = sorted(path.name for path in data_root.rglob("*"))
    head = f"POST /images/create?fromSrc=-&repo=half HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    hang_up(lab, head.encode() + data[: len(data) // 2])
    eventually(lambda: sorted(path.name for path in data_root.rglob("*")) == before, "no file is left")
    assert lab.images() == set()


def test_a_start_whose_client_is_gone_is_whole_or_not_at_all(lab: Lab):
    """Hang up at growing delays into the start; afterwards the container either runs with its network or does not run."""
    for delay in (0.0, 0.005, 0.02, 0.05):
        body = {
            "Image": "host",
            "Cmd": ["sleep", "100"],
            "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}},
        }
        assert lab.api("POST", "/containers/create?name=web", body).status == 201
        with lab.daemon.connect() as sock:
            sock.sendall(post("/containers/web/start", b""))
            time.sleep(delay)  # not a wait: the moment of the hang-up is what is tested
        answer = lab.api("GET", "/containers/web/json").json
        if answer["State"]["Running"]:
            assert answer["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        assert lab.api("DELETE", "/containers/web?force=1").status == 204
        eventually(lab.untouched, "nothing left")


def test_a_killed_docker_run_leaves_the_container_running_or_removed(lab: Lab, docker: Client):
    process = docker.start("run", "--rm", "-i", "--name", "web", "host", *python("print('ready'); input()"), stdin=-1)
    assert process.popen.stdout is not None
    assert process.popen.stdout.readline() == b"ready\n"
    process.stop()

    def running_or_removed() -> bool:
        answer = lab.api("GET", "/containers/web/json")  # it may go between two questions
        return answer.status == 404 or bool(answer.json["State"]["Running"])

    eventually(running_or_removed)


def test_a_hundred_connections_that_say_nothing_do_not_stop_the_others(lab: Lab):
    idle = [lab.daemon.connect() for _ in range(100)]
    try:
        assert lab.api("GET", "/_ping").status == 200
    finally:
        for sock in idle:
            sock.close()


def test_a_reader_of_logs_that_never_reads_does_not_stop_the_others(lab: Lab, docker: Client):
    lab.run("loud", command=["sh", "-c", "yes $(seq -s ' ' 200) | head -c 20000000; echo ready; exec sleep 100"])
    with lab.daemon.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /containers/loud/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert docker("run", "--rm", "host", "echo", "alive") == "alive"
    docker("rm", "-f", "loud")


def test_two_creates_of_one_name_at_once_make_one(lab: Lab):
    from concurrent.futures import ThreadPoolExecutor

    def race(request: Callable[[], Answer]) -> list[int]:
        with ThreadPoolExecutor(8) as pool:
            return sorted(answer.status for answer in pool.map(lambda _: request(), range(8)))

    assert race(lambda: lab.api("POST", "/networks/create", {"Name": "blue"})) == [201] + [409] * 7
    body = {"Image": "host", "Cmd": ["true"]}
    assert race(lambda: lab.api("POST", "/containers/create?name=web", body)) == [201] + [409] * 7


def test_eight_starts_for_one_port_give_it_to_one(lab: Lab):
    from concurrent.futures import ThreadPoolExecutor

    body = {**published("80/tcp", "8080"), "Cmd": ["sleep", "100"]}
    for number in range(8):
        assert lab.api("POST", f"/containers/create?name=c{number}", body).status == 201
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: lab.api("POST", f"/containers/c{number}/start"), range(8)))
    assert sorted(answer.status for answer in answers).count(204) == 1
