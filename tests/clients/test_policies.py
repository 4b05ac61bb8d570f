"""Policies with `netengine policy`: packets that pass and packets that do not, as containers come, go, move and are renamed."""

from __future__ import annotations

import json

import pytest

from tests.clients.lab import HERE, Lab
from tests.daemons import Client
from tests.hosts import wait_until

pytestmark = pytest.mark.needs("br_netfilter")


@pytest.fixture(autouse=True)
def no_policies_left(lab: Lab):
    yield
    for policy in lab.api("GET", "/netengine/policies").json:
        assert lab.api("DELETE", f"/netengine/policies/{policy['Id']}").status == 204


def box(docker: Client, name: str, *flags: str) -> None:
    docker("run", "-d", "--name", name, *flags, "sandbox")


def reaches(lab: Lab, client: str, server: str, port: int = 80, network: str = "") -> bool:
    """Whether `client` gets a TCP connection to an open port of `server`."""
    found = lab.api("GET", f"/containers/{server}/json").json["NetworkSettings"]["Networks"]
    address = found[network or next(iter(found))]["IPAddress"]
    with lab.sandbox(server).listen(port):
        return lab.sandbox(client).reaches(address, port)


@pytest.fixture
def app(lab: Lab, docker: Client) -> None:
    docker("network", "create", "app")
    for name in ("web", "db"):
        box(docker, name, "--network", "app")


# ---------------------------------------------------------------------- who reaches whom


def test_a_port_is_denied_on_one_bridge_and_back_again(lab: Lab, netengine: Client, app: None):
    assert reaches(lab, "web", "db", 5432)
    identity = netengine("policy", "add", "--deny", "--from", "web", "--to", "db", "--port", "5432/tcp")
    assert not reaches(lab, "web", "db", 5432)
    assert reaches(lab, "web", "db", 5433)
    assert reaches(lab, "db", "web", 5432)
    assert netengine("policy", "rm", identity) == identity
    assert reaches(lab, "web", "db", 5432)


def test_answers_pass_a_policy_against_their_direction(lab: Lab, netengine: Client, app: None):
    netengine("policy", "add", "--deny", "--from", "db", "--to", "web")
    assert reaches(lab, "web", "db")
    assert not reaches(lab, "db", "web")


def test_an_open_connection_is_cut(lab: Lab, docker: Client, netengine: Client, app: None):
    address = docker.address("db", "app")
    with lab.sandbox("db").listen(80) as listener, lab.sandbox("web").connect(address, 80) as here:
        there, _ = listener.accept()
        with there:
            here.sendall(b"one")
            assert there.recv(16) == b"one"
            netengine("policy", "add", "--deny", "--from", "web", "--to", "db")
            here.sendall(b"two")
            there.settimeout(0.5)
            with pytest.raises(TimeoutError):
                there.recv(16)


def test_the_closest_policy_decides(lab: Lab, docker: Client, netengine: Client, app: None):
    docker("network", "create", "other")
    box(docker, "guest", "--network", "app")
    netengine("policy", "add", "--deny", "--to", "app")
    assert not reaches(lab, "web", "db") and not reaches(lab, "guest", "db")
    netengine("policy", "add", "--allow", "--from", "web", "--to", "db", "--port", "80")
    assert reaches(lab, "web", "db") and not reaches(lab, "guest", "db")
    assert not reaches(lab, "web", "db", 81)
    netengine("policy", "add", "--allow", "--from", "network:app", "--to", "db", "--port", "81")
    assert reaches(lab, "web", "db", 81) and reaches(lab, "guest", "db", 81) and not reaches(lab, "guest", "db")


def test_networks_are_opened_to_each_other(lab: Lab, docker: Client, netengine: Client):
    for name in ("front", "back"):
        docker("network", "create", name)
        box(docker, f"in-{name}", "--network", name)
    assert not reaches(lab, "in-front", "in-back")
    netengine("policy", "add", "--allow", "--from", "front", "--to", "back", "--port", "80-81")
    assert reaches(lab, "in-front", "in-back", 81)
    assert not reaches(lab, "in-front", "in-back", 82) and not reaches(lab, "in-back", "in-front", 80)
    docker("rm", "-f", "in-back")
    docker("network", "rm", "back")
    docker("network", "create", "--subnet", "10.44.0.0/24", "back")
    box(docker, "in-back", "--network", "back")
    assert reaches(lab, "in-front", "in-back", 80)


def test_outside_and_published_ports(lab: Lab, docker: Client, netengine: Client):
    box(docker, "web", "-p", "8080:80")
    with lab.sandbox("web").listen(80), lab.outside.listen(99):
        assert lab.outside.reaches(HERE, 8080)
        identity = netengine("policy", "add", "--deny", "--to", "web")
        assert not lab.outside.reaches(HERE, 8080)
        assert lab.sandbox("web").reaches("192.0.2.2", 99)
        netengine("policy", "rm", identity)
        netengine("policy", "add", "--deny", "--from", "web")
        assert lab.outside.reaches(HERE, 8080)
        assert not lab.sandbox("web").reaches("192.0.2.2", 99)


def test_udp_and_icmp(lab: Lab, docker: Client, netengine: Client, app: None):
    address, web = docker.address("db", "app"), lab.sandbox("web")
    lab.sandbox("db")
    ping = ["ip", "netns", "exec", "web", "ping", "-c1", "-W1", address]
    assert lab.here.run(ping).returncode == 0
    netengine("policy", "add", "--deny", "--from", "web", "--to", "db", "--protocol", "icmp")
    assert lab.here.run(ping).returncode == 1
    assert reaches(lab, "web", "db")
    netengine("policy", "add", "--deny", "--from", "web", "--to", "db", "--port", "53/udp")
    with lab.sandbox("db").socket(2) as server:
        server.bind(("0.0.0.0", 53))
        server.settimeout(0.4)
        with web.socket(2) as client:
            client.sendto(b"?", (address, 53))
        with pytest.raises(TimeoutError):
            server.recv(16)


def test_ipv6_too(lab: Lab, docker: Client, netengine: Client):
    docker("network", "create", "--ipv6", "--subnet", "fd00:6::/64", "app")
    for name in ("web", "db"):
        box(docker, name, "--network", "app")
    address = docker.inspect("db")["NetworkSettings"]["Networks"]["app"]["GlobalIPv6Address"]
    probe = f"import socket; s = socket.create_connection(('{address}', 80), 0.5)"

    def connects() -> bool:
        return lab.here.run(["ip", "netns", "exec", "web", "python3", "-c", probe]).returncode == 0

    server = lab.here.popen(["ip", "netns", "exec", "db", "python3", "-m", "http.server", "--bind", "::", "80"])
    wait_until(connects, "the server to answer")
    identity = netengine("policy", "add", "--deny", "--from", "web", "--to", "db")
    assert not connects()
    netengine("policy", "rm", identity)
    assert connects()
    server.stop()


# ---------------------------------------------------------------------- following


def test_a_policy_follows_its_ends(lab: Lab, docker: Client, netengine: Client, app: None):
    netengine("policy", "add", "--deny", "--from", "web", "--to", "db")

    def status() -> str:
        return netengine("policy", "ls", "--format", "{{.From}} {{.To}} {{.Status}}")

    docker("rename", "db", "store")
    assert status() == "container:web container:store active"
    assert not reaches(lab, "web", "store")
    docker("stop", "store")
    assert status() == "container:web container:store waiting"
    box(docker, "squatter", "--network", "app")  # it may get the address that has become free
    assert reaches(lab, "web", "squatter")
    docker("start", "store")
    assert not reaches(lab, "web", "store")
    docker("network", "create", "other")
    for name in ("web", "store"):
        docker("network", "connect", "other", name)
        docker("network", "disconnect", "app", name)
    assert not reaches(lab, "web", "store")
    docker("rm", "-f", "store")
    box(docker, "store", "--network", "other")
    assert not reaches(lab, "web", "store")
    lab.daemon.restart()
    assert not reaches(lab, "web", "store")
    lab.daemon.kill9()
    lab.here.run(["nft", "flush", "ruleset"], check=True)
    lab.daemon.start()
    assert not reaches(lab, "web", "store")


def test_what_is_taken_away_is_put_back(lab: Lab, netengine: Client, app: None):
    netengine("policy", "add", "--deny", "--from", "web", "--to", "db")
    for command in (
        ["nft", "flush", "map", "ip", "netengine", "policy-container-container"],
        ["nft", "flush", "map", "ip", "netengine", "policy-gate"],
        ["nft", "flush", "ruleset"],
    ):
        lab.here.run(command, check=True)
        wait_until(lambda: "10.0.0.0" in lab.here.rules() or not reaches(lab, "web", "db"), "the policy is back")
    lab.here.sysctl("net.bridge.bridge-nf-call-iptables", "0")
    assert "bridge-nf-call-iptables" in netengine.run("doctor").stdout
    netengine("doctor", "--fix")
    assert not reaches(lab, "web", "db")


def test_it_is_explained_and_inspected(lab: Lab, docker: Client, netengine: Client, app: None):
    identity = netengine("policy", "add", "--deny", "--from", "web", "--to", "db", "--port", "5432")
    web, db = (docker.address(name, "app") for name in ("web", "db"))
    element = f"policy-container-container {{ {web}/32 . {db}/32 . tcp . 5432 : drop }}"
    for name in ("web", "db"):
        assert f"nft 'add element ip netengine {element}'" in netengine("explain", name)
    (shown,) = json.loads(netengine("policy", "inspect", identity[:6]))
    assert shown["Elements"] == [f"nft 'add element ip netengine {element}'"]
    assert (shown["From"], shown["To"], shown["Traffic"]) == ("container:web", "container:db", "5432/tcp")
    assert lab.daemon.restart() is None and netengine("policy", "ls", "-q") == identity


def test_filtering_within_bridges_is_turned_on_and_off_again(lab: Lab, netengine: Client, app: None):
    name = "net.bridge.bridge-nf-call-iptables"
    lab.here.sysctl(name, "0")
    try:
        identity = netengine("policy", "add", "--deny", "--from", "web", "--to", "db")
        assert not reaches(lab, "web", "db")
        assert "turning net.bridge.bridge-nf-call-iptables on, because policies need it" in lab.daemon.tail()
        netengine("policy", "rm", identity)
        assert lab.here.sysctl(name) == "0"
        assert reaches(lab, "web", "db")
    finally:
        lab.here.sysctl(name, "1")


# ---------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--deny", "--from", "web", "--to", "nowhere"], "no container and no network is called 'nowhere' (--to)"),
        (["--deny", "--from", "container:app", "--to", "db"], "no container is called 'app' (--from)"),
        (["--deny", "--from", "web", "--to", "web"], "a policy needs two different ends, and both are container:web"),
        (["--deny", "--from", "any", "--to", "any"], "a policy needs two different ends, and both are any"),
        (["--deny", "--from", "web", "--to", "host"], "network host has driver host"),
        (
            ["--deny", "--from", "web", "--to", "both"],
            "--to both is a container and a network: write container:both or",
        ),
        (["--deny", "--from", "web", "--to", "db", "--port", "0"], "invalid port '0'"),
        (["--deny", "--from", "web", "--to", "db", "--port", "9-7"], "it ends before it begins"),
        (["--deny", "--from", "web", "--to", "db", "--port", "80/icmp"], "invalid protocol 'icmp' of port 80"),
        (["--deny", "--from", "web", "--to", "db", "--port", "80/udp", "--protocol", "tcp"], "two protocols are given"),
        (["--deny", "--from", "web", "--to", "db", "--protocol", "ip"], "invalid protocol 'ip'"),
        (["--from", "web", "--to", "db"], "give either --allow or --deny"),
        (["--allow", "--deny", "--from", "web"], "give either --allow or --deny"),
        (["--deny"], "give --from, --to, or both"),
        (
            ["--allow", "--from", "web", "--to", "db", "--port", "90-100"],
            "from container:web to container:db of 80-99/tcp",
        ),
    ],
)
def test_bad_policies(lab: Lab, docker: Client, netengine: Client, app: None, words: list[str], message: str):
    docker("network", "create", "both")
    box(docker, "both")
    netengine("policy", "add", "--deny", "--from", "web", "--to", "db", "--port", "80-99")
    before = lab.here.rules()
    assert message in netengine.refused("policy", "add", *words).text
    assert lab.here.rules() == before


def test_unknown_policies(netengine: Client, lab: Lab):
    assert netengine.refused("policy", "rm", "4d1f").text == "netengine: no such policy: 4d1f"
    assert netengine.refused("policy", "inspect", "4d1f").text == "netengine: no such policy: 4d1f"
    assert lab.api("POST", "/netengine/policies", {"Action": "maybe", "From": "any"}).status == 400
