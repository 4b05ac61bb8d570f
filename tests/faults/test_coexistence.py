"""Beside others that rule the host's packets, real ones: what is in the way is said at start with what to type; typed, all
works, and goes on working when the other reloads; and the other keeps all that it had."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients import rootfs
from tests.daemons import Daemon
from tests.faults.peers import DockerEngine, Firewalld, Libvirt, Site, Ufw, findings, mount_peers
from tests.hosts import Host, Namespace, wait_until
from tests.kernel.packets import ping


@pytest.fixture
def crowded(host: Host) -> Host:
    mount_peers(host)
    return host


@pytest.fixture
def daemon(crowded: Host) -> Iterator[Daemon]:
    """Not started. What others leave behind is theirs: the host ends with it."""
    made = Daemon(crowded)
    yield made
    if made.process is not None:
        made.stop()


def others(host: Host) -> list[str]:
    """All rules that are not netengine's."""
    tables = re.split(r"^(?=table )", host.rules(), flags=re.M)
    rules = "".join(table for table in tables if not re.match(r"table \w+ netengine ", table))
    return [*rules.splitlines(), *host.run(["iptables-legacy", "-S"]).stdout.splitlines()]


def remedies(daemon: Daemon, pattern: str) -> list[str]:
    """The commands that the doctor prints for findings that match, and that the log of the start had too."""
    found = [finding for finding in findings(daemon) if re.search(pattern, finding) and "ip6" not in finding]
    commands = [command for one in found for command in one.partition("; type: ")[2].split("; ")]
    assert all(command in daemon.tail() for command in commands), "said at start"
    return commands


def firewalld(host: Host) -> Callable[[], object]:
    peer = Firewalld(host)
    return lambda: (peer("--reload"), peer.restart())


def ufw(host: Host) -> Callable[[], object]:
    peer = Ufw(host)
    return lambda: peer("reload")


def iptables(program: str) -> Callable[[Host], Callable[[], object]]:
    """As Kubernetes wants its hosts: nothing is forwarded but what a chain of its own accepts."""

    def start(host: Host) -> Callable[[], object]:
        for words in (
            ["-N", "KUBE-FORWARD"],
            ["-A", "KUBE-FORWARD", "-m", "mark", "--mark", "0x4000/0x4000", "-j", "ACCEPT"],
            ["-A", "FORWARD", "-j", "KUBE-FORWARD"],
            ["-P", "FORWARD", "DROP"],
        ):
            host.run([program, *words], check=True)
        return lambda: None

    return start


def native(host: Host) -> Callable[[], object]:
    host.run(
        ["nft", "add table inet fw; add chain inet fw pass { type filter hook forward priority 5; policy drop; }"],
        check=True,
    )
    return lambda: None


OTHERS = {
    "firewalld": (firewalld, "firewalld is active"),
    "ufw": (ufw, "ufw is active"),
    "iptables-nft": (iptables("iptables-nft"), "iptables-nft: the policy of FORWARD"),
    "iptables-legacy": (iptables("iptables-legacy"), "iptables-legacy: the policy of FORWARD"),
    "nftables": (native, "the chain inet fw pass drops"),
}


@pytest.mark.parametrize(("start", "finding"), OTHERS.values(), ids=OTHERS)
def test_what_is_in_the_way_is_said_and_the_remedy_is_one(
    crowded: Host, neighbour: Host, daemon: Daemon, start: Callable[[Host], Callable[[], object]], finding: str
) -> None:
    reload = start(crowded)
    daemon.start()
    site = Site(daemon, neighbour)
    assert "outside from a container" in site.broken()
    for command in remedies(daemon, finding):
        crowded.run(command.split(), check=True)
    assert site.broken() == []
    assert [one for one in findings(daemon) if re.search(finding, one)] == [], "what was mended is not said again"
    reload()
    wait_until(lambda: site.broken() == [], lambda: f"after a reload: {site.broken()}")
    theirs = others(crowded)
    site.close()
    daemon.cleanup()
    assert others(crowded) == theirs


def test_docker_s_engine_first(crowded: Host, neighbour: Host, daemon: Daemon, tmp_path: Path) -> None:
    docker = DockerEngine(crowded, tmp_path)
    docker("import", str(rootfs.build(tmp_path / "sh.tar")), "sh")
    docker("network", "create", "theirs")
    docker.serve("before")
    daemon.start()
    assert "docker0" not in daemon.request("GET", "/networks/bridge").body.decode(), "Docker's own"
    for command in remedies(daemon, "the policy of FORWARD is DROP"):
        crowded.run(command.split(), check=True)
    site = Site(daemon, neighbour)
    assert site.broken() == []
    docker.serve("after")
    assert docker.broken(neighbour, "before", "after") == []
    docker.restart()
    wait_until(lambda: site.broken() == [], lambda: f"after Docker's restart: {site.broken()}")
    docker.serve("again")
    site.close()
    daemon.cleanup()
    assert docker.broken(neighbour, "again") == []


def test_docker_s_engine_afterwards(crowded: Host, neighbour: Host, daemon: Daemon, tmp_path: Path) -> None:
    crowded.ip("link", "add", "docker0", "type", "bridge")  # of an earlier life of Docker's; or "bridge" in daemon.json
    daemon.start()
    docker = DockerEngine(crowded, tmp_path)
    docker("import", str(rootfs.build(tmp_path / "sh.tar")), "sh")
    docker("network", "create", "theirs")
    docker.serve("theirs")
    site = Site(daemon, neighbour)
    assert site.broken() == []
    assert docker.broken(neighbour, "theirs") != []
    (said,) = [one for one in findings(daemon) if "Docker's engine runs" in one]
    assert '"ip-forward": false' in said
    daemon.config_file.write_text('{"ip-forward": false}')
    daemon.restart()
    assert docker.broken(neighbour, "theirs") == []
    assert site.broken() == []
    assert [one for one in findings(daemon) if "Docker's engine runs" in one] == []
    assert crowded.links() >= {"docker0", "ne0"}, "each has its own"
    site.close()
    daemon.cleanup()
    assert docker.broken(neighbour, "theirs") == []


def test_a_table_of_its_name_that_is_somebody_else_s(host: Host) -> None:
    """It is named, and left alone: at the start what cannot be done without, later what needs it; renamed, all works."""

    def theirs(family: str) -> str:
        return host.run(["nft", "list", "table", family, "netengine"], check=True).stdout

    for family in ("ip", "bridge"):
        host.run(["nft", f"add table {family} netengine; add chain {family} netengine mine {{ counter; }}"], check=True)
    before = theirs("ip"), theirs("bridge")
    daemon = Daemon(host)
    refused = host.run(daemon.argv, timeout=30)
    said = "there is a table ip netengine in nftables that is not netengine's"
    assert refused.returncode == 1 and f"netengined: {said}" in refused.stderr, refused.stderr
    assert "nft delete table ip netengine" in refused.stderr
    assert (theirs("ip"), theirs("bridge")) == before

    host.run(["nft", "delete", "table", "ip", "netengine"], check=True)
    daemon.start()
    asked = {"Name": "guarded", "Options": {"anti_spoof": "true"}}
    answer = daemon.request("POST", "/networks/create", asked)
    assert answer.status == 409 and "a table bridge netengine in nftables" in answer.message, answer.message
    assert theirs("bridge") == before[1]
    host.run(["nft", "delete", "table", "bridge", "netengine"], check=True)
    assert daemon.request("POST", "/networks/create", asked).status == 201

    host.run(["nft", "delete table bridge netengine; add table bridge netengine { chain mine { }; }"], check=True)
    wait_until(lambda: "not all of it could be put right" in daemon.tail(), daemon.tail)
    told = str(daemon.request("GET", "/netengine/doctor").json)
    assert told.count("there is a table bridge netengine") == 1 and "nft delete table bridge netengine" in told
    daemon.cleanup()
    assert "chain mine" in theirs("bridge"), "theirs outlives us"


@pytest.mark.needs("br_netfilter")
def test_bridges_of_others_where_netengine_turned_forwarding_on(host: Host) -> None:
    """Guests on a bridge talk as before, though br_netfilter shows netengine's rules what they say, and on a bridge that is
    made later, with no daemon to see it; what was not routed from one bridge to another is not routed now."""
    assert host.sysctl("net.bridge.bridge-nf-call-iptables") == "1"
    assert host.sysctl("net.ipv4.ip_forward") == "0"

    def bridge(number: int) -> tuple[Namespace, Namespace]:
        """Two guests, 10.7.NUMBER.2 and .3."""
        host.ip("link", "add", f"virbr{number}", "type", "bridge")
        host.ip("address", "add", f"10.7.{number}.1/24", "dev", f"virbr{number}")
        host.ip("link", "set", f"virbr{number}", "up")
        made = []
        for n in (2, 3):
            name = f"guest{number}{n}"
            host.ip("netns", "add", name)
            host.ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            host.ip("link", "set", name, "master", f"virbr{number}", "up")
            host.ip("-n", name, "address", "add", f"10.7.{number}.{n}/24", "dev", "eth0")
            host.ip("-n", name, "link", "set", "eth0", "up")
            host.ip("-n", name, "route", "add", "default", "via", f"10.7.{number}.1")
            made.append(Namespace(host.path(f"/run/netns/{name}"), name))
        return made[0], made[1]

    one, two = bridge(0)
    assert ping(one, "10.7.0.3") == "10.7.0.3"
    daemon = Daemon(host).start()
    assert host.sysctl("net.ipv4.ip_forward") == "1"
    assert ping(one, "10.7.0.3") == "10.7.0.3"
    daemon.stop(signal.SIGKILL)
    far, further = bridge(1)
    assert ping(far, "10.7.1.3") == "10.7.1.3"
    with further.listen(80), two.listen(80):
        assert not one.reaches("10.7.1.3", 80) and not far.reaches("10.7.0.3", 80)
    for guest in (one, two, far, further):
        guest.close()


def test_bridges_as_libvirt_s(crowded: Host, neighbour: Host, daemon: Daemon) -> None:
    libvirt = Libvirt(crowded)
    daemon.start()
    site = Site(daemon, neighbour)
    assert site.broken() == []
    assert libvirt.broken(neighbour) == []
    daemon.restart()
    crowded.run(["nft", "delete", "table", "ip", "netengine"], check=True)
    wait_until(lambda: "table ip netengine" in crowded.rules(), "the table is back")
    assert site.broken() == [] and libvirt.broken(neighbour) == []
    site.close()
    daemon.cleanup()
    assert libvirt.broken(neighbour) == []
