"""Overlay networks, plain and encrypted, while somebody takes their parts away: the docker CLI on two hosts of a lab.

The hosts have IPv6 alone between them, so that all of this is a cluster over IPv6 too; test_overlay.py has one over IPv4.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator

import pytest

from tests.clients.swarms import Swarm
from tests.hosts import wait_until
from tests.patience import patient

H1, H2, NOBODY = "fd00:99::1", "fd00:99::2", "fd00:99::77"
PLAIN, HIDDEN = "plain", "hidden"
BOTH = ("--subnet", "10.0.3.0/24", "--subnet", "fd00:3::/64")
ADDRESSES = {PLAIN: ("10.0.1.11", "10.0.1.12"), HIDDEN: ("10.0.2.11", "10.0.2.12")}


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """h1 and h2, a container of each on a plain and on an encrypted network."""
    found = Swarm(tmp_path_factory.mktemp("overlay"), 2, "--ipv6")
    try:
        (join,) = re.findall(r"docker (swarm join .*)", found.docker("h1", "swarm", "init"))
        assert join.endswith(f" [{H1}]:2377"), join
        found.docker("h2", *join.split())
        for name, subnet, *options in ((PLAIN, "10.0.1.0/24"), (HIDDEN, "10.0.2.0/24", "--opt", "encrypted")):
            found.docker("h1", "network", "create", "-d", "overlay", "--attachable", "--subnet", subnet, *options, name)
            for host, address in zip(found.hosts, ADDRESSES[name], strict=True):
                wait_until(lambda h=host, n=name: n in found.docker(h, "network", "ls"), f"{name} on {host}")
                found.docker(
                    host,
                    "run",
                    "-d",
                    "--name",
                    f"{name}-{host}",
                    "--network",
                    name,
                    "--ip",
                    address,
                    "host",
                    "sleep",
                    "inf",
                )
        yield found
    finally:
        found.close()


def reaches(swarm: Swarm, name: str) -> bool:
    """Whether the container on h1 reaches that on h2."""
    argv = ("ping", "-c1", "-i0.3", "-w2", ADDRESSES[name][1])
    return swarm._docker("h1", "exec", f"{name}-h1", *argv).returncode == 0


def link(swarm: Swarm, kind: str) -> str:
    """A link of the plain network on h1, or WireGuard's."""
    network = swarm.docker("h1", "network", "inspect", PLAIN, "--format", "{{.ID}}")[:12]
    if kind != "wg":
        return f"{kind}-{network}"
    (found,) = re.findall(r"(wg-[0-9a-z]+)", swarm.lab("exec", "h1", "ip", "-o", "link"))
    return found


def test_containers_of_both_hosts_reach_each_other(swarm: Swarm) -> None:
    for name in (PLAIN, HIDDEN):
        wait_until(lambda n=name: reaches(swarm, n), f"{name}: {swarm.log('h1')}{swarm.log('h2')}", 20)


def test_the_cluster_is_shown_by_its_ipv6_addresses(swarm: Swarm) -> None:
    form = "{{.Description.Hostname}} {{.Status.Addr}} {{with .ManagerStatus}}{{.Addr}}{{end}}"
    shown = swarm.docker("h1", "node", "inspect", "-f", form, "h1", "h2")
    assert [line.strip() for line in shown.splitlines()] == [f"h1 {H1} [{H1}]:2377", f"h2 {H2}"]
    assert f"[{H1}]:2377" in swarm.docker("h2", "info")
    peers = swarm.docker("h2", "network", "inspect", "-f", "{{range .Peers}}{{.IP}} {{end}}", PLAIN)
    assert set(peers.split()) == {H1, H2}
    # 70 bytes less than the cable's 1,500 for VXLAN over IPv6, 80 more for WireGuard over it.
    for name, mtu in ((PLAIN, 1430), (HIDDEN, 1350)):
        assert f"mtu {mtu}" in swarm.docker("h1", "exec", f"{name}-h1", "ip", "link", "show", "eth0")


def state(swarm: Swarm) -> dict[str, list[str]]:
    """What the kernel of h1 has of the networks, but for numbers and MACs of links."""
    links = swarm.lab("exec", "h1", "ip", "-br", "link")
    fdb = swarm.lab("exec", "h1", "bridge", "fdb").splitlines()
    neighbours = swarm.lab("exec", "h1", "ip", "neigh", "show", "nud", "permanent").splitlines()
    addresses = swarm.lab("exec", "h1", "ip", "-6", "-br", "address").splitlines()
    return {
        "addresses": sorted(line for line in addresses if line.startswith(("br-", "vx-", "ve"))),
        "entries": sorted(line.strip() for line in fdb if " dst " in line),
        "neighbours": sorted(line.strip() for line in neighbours),
        "links": sorted(re.sub(r"@\w+|([0-9a-f]{2}:){5}[0-9a-f]{2}", "", line).strip() for line in links.splitlines()),
    }


DEEDS: dict[str, tuple[str, ...]] = {
    "a forwarding entry": ("bridge", "fdb", "del", "MAC", "dev", "VX", "self"),
    "a forwarding entry leads elsewhere": ("bridge", "fdb", "replace", "MAC", "dev", "VX", "dst", NOBODY),
    "frames are flooded": ("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "VX", "dst", NOBODY),
    "a neighbour": ("ip", "neigh", "del", "10.0.1.12", "dev", "VX"),
    "a neighbour is another": ("ip", "neigh", "replace", "10.0.1.12", "lladdr", "02:00:00:00:00:99", "dev", "VX"),
    "a neighbour too many": ("ip", "neigh", "add", "10.0.1.66", "lladdr", "02:00:00:00:00:99", "dev", "VX"),
    "the VXLAN link": ("ip", "link", "delete", "VX"),
    "the VXLAN link is down": ("ip", "link", "set", "VX", "down"),
    "the bridge": ("ip", "link", "delete", "BR"),
    "the WireGuard link": ("ip", "link", "delete", "WG"),
    "its address": ("ip", "address", "flush", "dev", "WG"),
    "its process": ("kill", "-9", "PID"),
}


@pytest.mark.parametrize("what", DEEDS)
def test_what_is_taken_away_is_back(swarm: Swarm, what: str) -> None:
    process = swarm.pid_of("h1", "wireguard-go") if what == "its process" else "-"
    if not process:
        return  # this kernel has WireGuard itself, and no process can be taken away
    words = {"VX": link(swarm, "vx"), "BR": link(swarm, "br"), "WG": link(swarm, "wg"), "MAC": "02:42:0a:00:01:0c"}
    words["PID"] = process
    before = state(swarm)
    started = time.time()
    swarm.lab("exec", "h1", *(words.get(word, word) for word in DEEDS[what]))
    wait_until(lambda: state(swarm) == before, lambda: f"{before}\n{state(swarm)}{swarm.log('h1')}", 30)
    # By the daemon's own word: a look at it is processes of the lab, which on a busy machine take longer than the mending.
    healed = (
        "events",
        "--since",
        f"{started:.9f}",
        "--until",
        "0s",
        "--filter",
        "event=heal",
        "--format",
        "{{.TimeNano}}",
    )
    said = wait_until(lambda: swarm.docker("h1", *healed).split(), lambda: f"it is told{swarm.log('h1')}", 10)
    took = [int(at) / 1e9 - started for at in said]
    print(f"{what}: put right after {', '.join(f'{seconds:.2f}' for seconds in took)} s")
    assert took[0] < patient(5), "within a second where nobody else is at work"
    for name in (PLAIN, HIDDEN):
        wait_until(lambda n=name: reaches(swarm, n), f"{name} after {what}: {swarm.log('h1')}", 20)


def test_the_underlay_changes(swarm: Swarm) -> None:
    """Its MTU, that of an encrypted network below what IPv6 needs; its link's name; its address, lost and back."""

    def inside() -> list[str]:
        shown = "".join(swarm.docker("h1", "exec", f"{n}-h1", "ip", "-o", "link", "show", "eth0") for n in ADDRESSES)
        return re.findall(r"mtu (\d+)", shown)

    def both(words: str) -> str:
        return swarm._docker("h1", "exec", "both-h1", *words.split()).stdout

    swarm.docker("h1", "network", "create", "-d", "overlay", "--attachable", "--ipv6", *BOTH, "both")
    for host in swarm.hosts:
        wait_until(lambda h=host: "both" in swarm.docker(h, "network", "ls"), f"both on {host}")  # type: ignore[misc]
        swarm.docker(host, "run", "-d", "--name", f"both-{host}", "--network", "both", "host", "sleep", "inf")
    ping, ping6 = (f"ping -{version} -c1 -i0.3 -w2 both-h2" for version in (4, 6))
    wait_until(lambda: "1 received" in both(ping) and "1 received" in both(ping6), "both families", 20)
    before, own = state(swarm), both("ip -br address show eth0")
    for mtu, plain, hidden in (("1400", "1330", "1250"), ("1300", "1230", "1210"), ("1500", "1430", "1350")):
        swarm.lab("exec", "h1", "ip", "link", "set", "eth0", "mtu", mtu)
        wait_until(lambda p=plain, h=hidden: inside() == [p, h], lambda: f"{inside()}{swarm.log('h1')}", 20)  # type: ignore[misc]
        if mtu == "1300":  # less than IPv6 needs inside
            told = swarm.run("h1", sys.executable, "-m", "netengine.cli.main", "doctor").stdout
            said = f"network both has IPv6, which needs 1280 bytes, and the link that has {H1} leaves 1230 of its 1300"
            assert said in told and "give that link an MTU of 1350 or more" in told, told
            assert "kernel and model agree" in told or "missing" not in told, told
            assert said in swarm.log("h1"), swarm.log("h1")
            assert "inet6" not in both("ip address show eth0")
            wait_until(lambda: "1 received" in both(ping), lambda: f"IPv4 goes on{swarm.log('h1')}", 20)
    wait_until(lambda: state(swarm) == before, lambda: f"{before}\n{state(swarm)}", 10)
    assert both("ip -br address show eth0") == own
    wait_until(lambda: "1 received" in both(ping6), lambda: f"IPv6 is back{swarm.log('h1')}", 20)
    for host in swarm.hosts:
        swarm.docker(host, "rm", "-f", f"both-{host}")

    swarm.lab("exec", "h1", "ip", "link", "set", "eth0", "down")  # which takes the IPv6 addresses of a link away
    swarm.lab("exec", "h1", "ip", "link", "set", "eth0", "name", "wan0")
    swarm.lab("exec", "h1", "ip", "link", "set", "wan0", "up")
    wait_until(lambda: f"no link of this host has {H1}" in swarm.log("h1"), lambda: swarm.log("h1"), 20)
    told = swarm.run("h1", sys.executable, "-m", "netengine.cli.main", "doctor")
    assert told.returncode != 0 and f"no link of this host has {H1}" in told.stdout, told.stdout
    assert "--fix" not in told.stdout, f"nobody can give it back but who has taken it: {told.stdout}"
    swarm.lab("exec", "h1", "ip", "addr", "add", f"{H1}/64", "dev", "wan0", "nodad")
    wait_until(lambda: "again: on link wan0" in swarm.log("h1"), lambda: swarm.log("h1"), 20)
    for name in (PLAIN, HIDDEN):
        wait_until(lambda n=name: reaches(swarm, n), f"{name}: {swarm.log('h1')}", 30)
    swarm.lab("exec", "h1", "ip", "link", "set", "wan0", "mtu", "1400")
    wait_until(lambda: inside() == ["1330", "1250"], lambda: f"{inside()}{swarm.log('h1')}", 20)


def test_a_daemon_that_is_killed_leaves_all_at_work(swarm: Swarm) -> None:
    """And the next one finds it: the same links, with the same numbers, and no packet lost meanwhile."""
    links = _numbers(swarm)
    assert len(links) == 5
    flow = f"ping -q -i 0.05 -c 100 {ADDRESSES[HIDDEN][1]} > /flow.part; mv /flow.part /flow"
    swarm.docker("h1", "exec", "-d", "hidden-h1", "sh", "-c", flow)
    swarm.kill_daemon("h1")
    swarm.start_daemon("h1")
    wait_until(lambda: swarm._docker("h1", "exec", "hidden-h1", "test", "-e", "/flow").returncode == 0, "its end", 60)
    said = swarm.docker("h1", "exec", "hidden-h1", "cat", "/flow")
    assert "100 received" in said, said
    assert _numbers(swarm) == links


def _numbers(swarm: Swarm) -> list[str]:
    """The links of the networks on h1, with their numbers."""
    return sorted(re.findall(r"^(\d+: (?:wg|vx|br)-\w+)", swarm.lab("exec", "h1", "ip", "-o", "link"), re.M))
