"""Ports of a running container, published and withdrawn by `netengine` and looked at with `docker`."""

from __future__ import annotations

import pytest

from tests.clients.lab import HERE, Lab, eventually
from tests.daemons import Client


@pytest.fixture
def web(lab: Lab, docker: Client) -> str:
    docker("network", "create", "--subnet", "10.9.0.0/24", "blue")
    return lab.serve("web", "--network", "blue", "-p", "8080:80", speak=("tcp:80", "udp:90", "tcp:443"))


def test_a_port_is_published_while_the_container_runs(lab: Lab, docker: Client, netengine: Client, web: str):
    started = docker.inspect("web")["State"]["StartedAt"]
    assert not lab.outside.reaches(HERE, 9443)
    assert netengine("publish", "web", "9443:443").splitlines() == ["443/tcp -> 0.0.0.0:9443", "443/tcp -> [::]:9443"]
    assert lab.outside.fetch(HERE, 9443) == "web sees 192.0.2.2"
    assert lab.outside.fetch(HERE, 8080) == "web sees 192.0.2.2"
    assert docker("port", "web", "443").splitlines() == ["0.0.0.0:9443", "[::]:9443"]
    assert docker.inspect("web")["State"]["StartedAt"] == started
    docker("restart", "-t", "0", "web")
    eventually(lambda: lab.outside.fetch(HERE, 9443) == "web sees 192.0.2.2")
    assert netengine("unpublish", "web", "9443:443").splitlines() == ["443/tcp -> 0.0.0.0:9443", "443/tcp -> [::]:9443"]
    assert not lab.outside.reaches(HERE, 9443)
    assert lab.outside.fetch(HERE, 8080) == "web sees 192.0.2.2"
    docker("restart", "-t", "0", "web")
    eventually(lambda: lab.outside.fetch(HERE, 8080) == "web sees 192.0.2.2")
    assert not lab.outside.reaches(HERE, 9443)


def test_ranges_udp_addresses_and_free_ports(lab: Lab, docker: Client, netengine: Client, web: str):
    printed = netengine("publish", "web", f"{HERE}:9000-9002:90-92/udp", "127.0.0.1::80").splitlines()
    assert printed[:3] == [f"{90 + n}/udp -> {HERE}:{9000 + n}" for n in range(3)]
    assert lab.outside.ask(HERE, 9000) == "web sees 192.0.2.2"
    free = int(printed[3].rpartition(":")[2])
    assert lab.here.fetch("127.0.0.1", free).startswith("web sees")
    assert not lab.outside.reaches(HERE, free)
    assert netengine("unpublish", "web", "90-92/udp") == "\n".join(printed[:3])
    assert netengine("unpublish", "web", f"127.0.0.1:{free}:80") == printed[3]
    assert docker("port", "web").splitlines() == ["80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"]
    # UDP flows that were translated are forgotten with their port.
    with pytest.raises(OSError):
        lab.outside.ask(HERE, 9000, timeout=0.4)


def test_all_ports_or_none(lab: Lab, docker: Client, netengine: Client, web: str):
    before = lab.here.rules()
    with lab.here.listen(9001):
        refused = netengine.refused("publish", "web", "9000-9003:80-83", "9100:90/udp")
    assert refused.text == "netengine: Bind for 0.0.0.0:9001 failed: port is already allocated"
    assert docker("port", "web").splitlines() == ["80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"]
    assert lab.here.rules() == before
    lab.here.listen(9000).close()
    assert docker.inspect("web")["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}


def test_an_open_connection_outlives_its_port(lab: Lab, netengine: Client, web: str):
    with lab.outside.connect(HERE, 8080) as connection:
        netengine("unpublish", "web", "80")
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"web sees" in connection.recv(4096)
    assert not lab.outside.reaches(HERE, 8080)


def test_a_stopped_container_publishes_when_it_starts(lab: Lab, docker: Client, netengine: Client, web: str):
    docker("stop", "-t", "0", "web")
    assert netengine("publish", "web", "9443:443") == ""
    assert netengine("unpublish", "web", "8080:80") == ""
    docker("start", "web")
    assert docker("port", "web").splitlines() == ["443/tcp -> 0.0.0.0:9443", "443/tcp -> [::]:9443"]


def test_what_publish_all_stands_for_can_be_withdrawn(lab: Lab, docker: Client, netengine: Client):
    docker("run", "-d", "--name", "web", "-P", "--expose", "80", "--expose", "443", "sandbox")
    netengine("unpublish", "web", "443")
    docker("restart", "web")
    assert docker("port", "web").startswith("80/tcp -> 0.0.0.0:")


def test_the_default_route_takes_live_ports_along(lab: Lab, docker: Client, netengine: Client, web: str):
    netengine("publish", "web", "9443:443")
    docker("network", "connect", "--gw-priority", "1", "bridge", "web")
    assert lab.outside.fetch(HERE, 9443) == "web sees 192.0.2.2"
    docker("network", "disconnect", "bridge", "web")
    assert lab.outside.fetch(HERE, 9443) == "web sees 192.0.2.2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["publish", "nobody", "80"], "No such container: nobody"),
        (["publish", "hosted", "80"], "container hosted is on the host's network: its ports are the host's already"),
        (["publish", "guest", "80"], "container guest shares the network of inner: publish ports of that one"),
        (["publish", "inner", "80"], "container inner has no network with a way out"),
        (["publish", "inner", "1.2.3:80:80"], "invalid IP address: 1.2.3 in 1.2.3:80:80"),
        (["publish", "inner", "80:99999"], "invalid containerPort: 99999"),
        (["publish", "inner", "80-82:90-91"], "invalid ranges specified"),
        (["unpublish", "inner", "80"], "container inner does not publish 80/tcp; it publishes nothing"),
        (["publish", "inner"], "'netengine publish' "),
    ],
)
def test_what_cannot_be(docker: Client, netengine: Client, words: list[str], message: str):
    docker("network", "create", "--internal", "blue")
    docker("run", "-d", "--name", "inner", "--network", "blue", "sandbox")
    docker("create", "--name", "guest", "--network", "container:inner", "sandbox")
    docker("create", "--name", "hosted", "--network", "host", "sandbox")
    assert message in netengine.refused(*words).text
    assert docker.inspect("inner")["HostConfig"]["PortBindings"] in (None, {})


def test_nothing_to_publish_and_unknown_fields(lab: Lab, web: str):
    for body in ({"PortBindings": {}}, {"PortBindings": {"80/tcp": []}}, {}, {"PortBindings": {"80/icmp": [{}]}}):
        assert lab.api("POST", "/netengine/containers/web/publish", body).status == 400
