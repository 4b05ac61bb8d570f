"""Membership of a cluster as a person types it: the real docker CLI on the hosts of a lab."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from tests.clients.swarms import ADDRESS, Swarm
from tests.hosts import wait_until

H1, H2, H3 = (ADDRESS.format(n) for n in (1, 2, 3))
NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try '
    "again."
)
A_WORKER = "Worker nodes can't be used to view or modify cluster state."
UP, MANAGES, GONE = ("Ready", ""), ("Ready", "Reachable"), ("Down", "")


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    found = Swarm(tmp_path_factory.mktemp("swarm"), 3, "--managers", "2")
    yield found
    found.close()


@pytest.fixture
def alone(swarm: Swarm) -> Iterator[Swarm]:
    """Three hosts of which none is in a cluster."""
    states = {host: swarm.info(host) for host in reversed(swarm.hosts)}
    # Workers first: they tell a manager, and wait for one when there is none any more.
    for host in sorted(states, key=lambda host: bool(states[host]["ControlAvailable"])):
        if states[host]["LocalNodeState"] != "inactive":
            swarm.docker(host, "swarm", "leave", "--force")
    yield swarm


@pytest.fixture
def cluster(alone: Swarm) -> Swarm:
    """h1 is the manager, h2 and h3 are workers. A node that is not heard of for six seconds is down."""
    alone.docker("h1", "swarm", "init", "--advertise-addr", H1, "--dispatcher-heartbeat", "2s")
    token = alone.token("h1")
    for host in ("h2", "h3"):
        alone.docker(host, "swarm", "join", "--token", token, H1)
    return alone


def test_a_lab_comes_up_as_a_cluster(swarm: Swarm) -> None:
    swarm.await_nodes("h1", h1=MANAGES, h2=MANAGES, h3=UP)
    assert swarm.nodes("h1") == {
        "h1": ("Ready", "Active", "Leader"),
        "h2": ("Ready", "Active", "Reachable"),
        "h3": ("Ready", "Active", ""),
    }


def test_the_usual_tutorial(alone: Swarm) -> None:
    """docker swarm init, what it says typed on the other hosts, docker node ls, promote and demote, leave and join again."""
    said = alone.docker("h1", "swarm", "init", "--advertise-addr", H1)
    assert re.match(r"Swarm initialized: current node \([0-9a-z]{25}\) is now a manager\.", said)
    (join,) = re.findall(r"^ +docker (swarm join --token SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25} \S+)$", said, re.M)
    assert alone.docker("h2", *join.split()) == "This node joined a swarm as a worker."
    (as_manager,) = re.findall(r"docker (swarm join .*)", alone.docker("h1", "swarm", "join-token", "manager"))
    assert alone.docker("h3", *as_manager.split()) == "This node joined a swarm as a manager."
    for manager in ("h1", "h3"):
        alone.await_nodes(manager, h1=MANAGES, h2=UP, h3=MANAGES)  # on a busy machine one may look silent for a moment
    assert alone.nodes("h1") == {
        "h1": ("Ready", "Active", "Leader"),
        "h2": ("Ready", "Active", ""),
        "h3": ("Ready", "Active", "Reachable"),
    }
    assert alone.nodes("h3") == alone.nodes("h1")
    assert A_WORKER in alone.refused("h2", "node", "ls")

    info = alone.docker("h1", "info")
    for line in ("Swarm: active", "Is Manager: true", "Managers: 2", "Nodes: 3", f"Node Address: {H1}", f"{H3}:2377"):
        assert line in info
    assert "Is Manager: false" in alone.docker("h2", "info")
    assert f"Address:\t\t{H3}:2377" in alone.docker("h1", "node", "inspect", "--pretty", "h3")

    assert "promoted to a manager" in alone.docker("h3", "node", "promote", "h2")
    alone.await_nodes("h2", h1=MANAGES, h2=MANAGES, h3=MANAGES)
    assert "demoted" in alone.docker("h2", "node", "demote", "h1")
    alone.await_nodes("h2", h1=UP, h2=MANAGES, h3=MANAGES)
    wait_until(lambda: not alone.info("h1")["ControlAvailable"], "h1 knows that it is a worker")
    wait_until(lambda: not alone.etcd_pid("h1"), "its etcd has ended")

    assert alone.docker("h1", "swarm", "leave") == "Node left the swarm."
    assert alone.is_alone("h1")
    alone.await_nodes("h2", h1=GONE)
    assert alone.docker("h2", "node", "rm", "h1") == "h1"
    assert set(alone.nodes("h2")) == {"h2", "h3"}
    alone.docker("h1", "swarm", "join", "--token", alone.token("h2"), H3)
    alone.await_nodes("h3", h1=UP)


def test_the_same_with_the_netengine_command(alone: Swarm) -> None:
    said = alone.netengine("h1", "swarm", "init", "--advertise-addr", "eth0", "--dispatcher-heartbeat", "2s")
    (join,) = re.findall(r"netengine (swarm join --token \S+ \S+)$", said, re.M)
    assert alone.netengine("h2", *join.split()) == "This host has joined the cluster as a worker."
    token = alone.netengine("h1", "swarm", "join-token", "-q", "manager")
    assert "as a manager" in alone.netengine("h3", "swarm", "join", "--token", token, H1)
    alone.await_nodes("h1", h1=MANAGES, h2=UP, h3=MANAGES)
    form = "{{.Hostname}} {{.Address}} {{.Status}} {{.ManagerStatus}}"
    assert alone.netengine("h1", "node", "ls", "--format", form).splitlines() == [
        f"h1 {H1} ready leader",
        f"h2 {H2} ready -",
        f"h3 {H3} ready reachable",
    ]
    assert alone.netengine("h1", "node", "demote", "h3") == "h3 is a worker now"
    alone.netengine("h1", "node", "update", "--label-add", "a=b", "--availability", "drain", "h2")
    assert (
        alone.netengine("h1", "node", "inspect", "-f", "{{.Spec.Labels.a}} {{.Spec.Availability}}", "h2") == "b drain"
    )
    alone.netengine("h1", "swarm", "join-token", "--rotate", "manager")
    assert alone.netengine("h1", "swarm", "join-token", "-q", "manager") != token
    alone.netengine("h1", "swarm", "update", "--cert-expiry", "48h")
    assert "Role: manager" in alone.netengine("h1", "info")
    before = alone.netengine("h1", "swarm", "ca")
    assert before.startswith("-----BEGIN CERTIFICATE-----")
    assert alone.netengine("h2", "swarm", "leave") == "This host has left the cluster."
    assert alone.netengine("h1", "node", "rm", "h2") == "h2"


def test_a_host_in_no_cluster_says_so(alone: Swarm) -> None:
    assert alone.refused("h1", "node", "ls") == NOT_A_MANAGER
    assert alone.refused("h1", "swarm", "join-token", "worker") == NOT_A_MANAGER
    assert alone.refused("h1", "swarm", "update", "--cert-expiry", "2h") == NOT_A_MANAGER
    assert alone.refused("h1", "swarm", "leave", "--force") == "This node is not part of a swarm"
    assert "Swarm: inactive" in alone.docker("h1", "info")


def test_wrong_words_at_the_beginning_change_nothing(alone: Swarm) -> None:
    for flags, words in (
        (
            ("--advertise-addr", "203.0.113.9"),
            "203.0.113.9 is not an address of this host, which has: 192.168.99.1 (eth0)",
        ),
        (("--advertise-addr", "eth7"), "there is no link 'eth7'"),
        (("--data-path-port", "80"), "must be in the range 1024 to 49151"),
        (("--default-addr-pool", "10.0.0.0/25"), "smaller than a subnet of /24"),
        (("--autolock",), "autolock is not supported by netengine"),
        (("--cert-expiry", "1m"), "minimum certificate expiry time is: 1h0m0s"),
    ):
        assert words in alone.refused("h1", "swarm", "init", *flags)
        assert alone.is_alone("h1")


def test_several_addresses_are_the_users_choice(alone: Swarm) -> None:
    alone.lab("exec", "h1", "ip", "addr", "add", "198.51.100.1/24", "dev", "eth0")
    try:
        refused = alone.refused("h1", "swarm", "init")
        assert "could not choose an IP address to advertise since this system has multiple addresses" in refused
        assert refused.endswith("specify one with --advertise-addr")
    finally:
        alone.lab("exec", "h1", "ip", "addr", "del", "198.51.100.1/24", "dev", "eth0")


@pytest.mark.parametrize(("kind", "port"), [("tcp", 2377), ("tcp", 2379), ("tcp", 2380), ("udp", 4789)])
def test_a_port_that_is_taken_is_named(alone: Swarm, kind: str, port: int) -> None:
    made = "SOCK_STREAM" if kind == "tcp" else "SOCK_DGRAM"
    script = f"import socket, time; s = socket.socket(socket.AF_INET, socket.{made})\n"
    script += f"s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('', {port}))\n"
    script += "s.listen()\n" if kind == "tcp" else ""
    script += "print('ready', flush=True); time.sleep(100)"
    first = json.loads(alone.machine.path("/run/netengine-lab/lab.json").read_text())["hosts"]["h1"]["pid"]
    holder = alone.machine.popen(["nsenter", "--target", str(first), "--net", "--", "python3", "-c", script])
    assert holder.popen.stdout is not None and holder.popen.stdout.readline() == b"ready\n"
    try:
        refused = alone.refused("h1", "swarm", "init", "--advertise-addr", H1)
        assert str(port) in refused and "in use" in refused
        assert alone.is_alone("h1")
    finally:
        holder.stop()


def test_who_cannot_join_is_told_why_and_nothing_is_left_of_it(cluster: Swarm) -> None:
    worker = cluster.token("h1")
    cluster.docker("h3", "swarm", "leave")
    secret, digest = worker.split("-")[3], worker.split("-")[2]
    for token, address, words in (
        (f"SWMTKN-1-{digest}-{'0' * 25}", H1, "the join token's secret is not, or no longer, one of this cluster"),
        (f"SWMTKN-1-{'1' * 50}-{secret}", H1, "is not the one that the join token was made for"),
        (worker[:-1], H1, "the join token's secret has 24 characters, not 25"),
        (worker, f"{H1}:2378", f"no manager answers at {H1}:2378"),
        (worker, H2, f"no manager answers at {H2}:2377"),
        ("", H1, "no join token is given"),
    ):
        assert words in cluster.refused("h3", "swarm", "join", "--token", token, address)
        assert cluster.is_alone("h3")
    # Tunnels are of one family on all hosts.
    cluster.lab("exec", "h3", "ip", "addr", "add", "fd00:99::3/64", "dev", "eth0", "nodad")
    try:
        mixed = ("--advertise-addr", H3, "--data-path-addr", "fd00:99::3")
        words = cluster.refused("h3", "swarm", "join", "--token", worker, *mixed, H1)
        assert "the data path address fd00:99::3 is IPv6, and that of node h" in words and "one family" in words
        assert cluster.is_alone("h3")
    finally:
        cluster.lab("exec", "h3", "ip", "addr", "del", "fd00:99::3/64", "dev", "eth0")
    assert [row for name, row in cluster.nodes("h1").items() if name == "h3"] == [("Down", "Active", "")]
    assert "is already part of a swarm" in cluster.refused("h2", "swarm", "join", "--token", worker, H1)
    assert "is already part of a swarm" in cluster.refused("h1", "swarm", "init")


def test_a_token_that_was_rotated_lets_nobody_in(cluster: Swarm) -> None:
    old, manager = cluster.token("h1"), cluster.token("h1", "manager")
    assert "Successfully rotated worker join token." in cluster.docker(
        "h1", "swarm", "join-token", "--rotate", "worker"
    )
    new = cluster.token("h1")
    assert new != old and cluster.token("h1", "manager") == manager
    cluster.docker("h3", "swarm", "leave")
    assert "not, or no longer, one of this cluster" in cluster.refused("h3", "swarm", "join", "--token", old, H1)
    cluster.docker("h3", "swarm", "join", "--token", new, H1)


def test_a_name_that_is_taken_is_refused(cluster: Swarm) -> None:
    cluster.docker("h3", "swarm", "leave")
    cluster.lab("exec", "h3", "hostname", "h2")
    try:
        words = cluster.refused("h3", "swarm", "join", "--token", cluster.token("h1"), H1)
        assert "the name h2 is taken by node" in words and cluster.is_alone("h3")
    finally:
        cluster.lab("exec", "h3", "hostname", "h3")


def test_nodes_are_changed_by_managers(cluster: Swarm) -> None:
    cluster.docker("h1", "node", "update", "--label-add", "zone=a", "--availability", "drain", "h2")
    shown = json.loads(cluster.docker("h1", "node", "inspect", "h2"))[0]
    assert shown["Spec"] == {"Labels": {"zone": "a"}, "Role": "worker", "Availability": "drain"}
    assert shown["Status"] == {"State": "ready", "Addr": H2} and shown["Description"]["Hostname"] == "h2"
    assert cluster.docker("h1", "node", "ls", "-q", "--filter", "node.label=zone=a") == shown["ID"]
    assert cluster.docker("h1", "node", "inspect", "-f", "{{.ID}}", shown["ID"][:8]) == shown["ID"]
    assert cluster.docker("h1", "node", "inspect", "-f", "{{.Description.Hostname}}", "self") == "h1"
    assert "node nosuch not found" in cluster.refused("h1", "node", "inspect", "nosuch")
    assert "attempting to demote the last manager of the swarm" in cluster.refused("h1", "node", "demote", "h1")
    assert "is not down and can't be removed" in cluster.refused("h1", "node", "rm", "h2")
    assert "must be demoted to worker before removal" in cluster.refused("h1", "node", "rm", "--force", "h1")
    # Not "0s": the CLI makes whole seconds of that, and what happened in the present one is left out.
    happened = cluster.docker(
        "h1",
        "events",
        "--since",
        "1h",
        "--until",
        f"{time.time():.3f}",
        "--filter",
        "type=node",
        "--filter",
        "scope=swarm",
    )
    assert re.search(
        r"node update \w+ \(availability.new=drain, availability.old=active, labels=changed, name=h2\)", happened
    )
    assert "node create" in happened and "state.new=ready, state.old=down" in happened
    assert (
        cluster.docker("h1", "node", "ps")
        == "ID        NAME      IMAGE     NODE      DESIRED STATE   CURRENT STATE   ERROR     PORTS"
    )
    assert "services are not there yet" in cluster.refused("h1", "service", "create", "-d", "sandbox")


def test_a_node_that_was_removed_by_force_can_come_back(cluster: Swarm) -> None:
    assert cluster.docker("h1", "node", "rm", "--force", "h3") == "h3"
    wait_until(
        lambda: "was removed from its cluster" in cluster.info("h3")["Error"], lambda: str(cluster.info("h3")), 60
    )
    # And by a daemon that starts afterwards, whom the store does not let in.
    cluster.kill_daemon("h3")
    cluster.start_daemon("h3")
    wait_until(
        lambda: "was removed from its cluster" in cluster.info("h3")["Error"], lambda: str(cluster.info("h3")), 60
    )
    cluster.docker("h3", "swarm", "leave", "--force")
    assert cluster.is_alone("h3")
    cluster.docker("h3", "swarm", "join", "--token", cluster.token("h1"), H1)
    cluster.await_nodes("h1", h3=UP)


def test_a_manager_does_not_leave_by_mistake(cluster: Swarm) -> None:
    assert "Removing the last manager erases all current state of the swarm." in cluster.refused("h1", "swarm", "leave")
    assert cluster.docker("h2", "swarm", "leave") == "Node left the swarm."
    cluster.docker("h1", "swarm", "leave", "--force")
    assert cluster.is_alone("h1") and cluster.is_alone("h2")


def test_the_settings_of_a_cluster(cluster: Swarm) -> None:
    assert (
        cluster.docker("h1", "swarm", "update", "--cert-expiry", "48h", "--task-history-limit", "9") == "Swarm updated."
    )
    info = cluster.docker("h1", "info")
    assert "Expiry Duration: 2 days" in info and "Task History Retention Limit: 9" in info
    assert "autolock is not supported" in cluster.refused("h1", "swarm", "update", "--autolock")


def test_the_root_of_all_certificates_is_changed_while_all_goes_on(cluster: Swarm) -> None:
    before = cluster.docker("h1", "swarm", "ca")
    version = cluster.docker("h1", "node", "inspect", "-f", "{{.Version.Index}}", "h2")
    cluster.docker("h1", "swarm", "ca", "--rotate", "--quiet")
    # The node's record says which certificate it has; of who changes what users change, that makes no latecomer.
    assert cluster.docker("h1", "node", "inspect", "-f", "{{.Version.Index}}", "h2") != version
    assert _update(cluster, "h2", version, "pause") == ""
    assert "update out of sequence" in _update(cluster, "h2", version, "drain")
    assert _update(cluster, "h2", "1", "drain") == '{"message":"update out of sequence"}\n'
    after = cluster.docker("h1", "swarm", "ca")
    assert "BEGIN CERTIFICATE" in after and after != before
    form = "{{.Hostname}} {{.Status}} {{.TLSStatus}}"
    rows = cluster.docker("h1", "node", "ls", "--format", form).splitlines()
    assert sorted(rows) == ["h1 Ready Ready", "h2 Ready Ready", "h3 Ready Ready"]
    cluster.docker("h3", "swarm", "leave")
    cluster.docker("h3", "swarm", "join", "--token", cluster.token("h1"), H1)


def _update(cluster: Swarm, node: str, version: str, availability: str) -> str:
    """Of somebody who saw that version of a worker; what is answered."""
    body = json.dumps({"Role": "worker", "Availability": availability})
    url = f"http://h/v1.44/nodes/{node}/update?version={version}"
    argv = ["curl", "-s", "--unix-socket", "/run/netengine-lab/h1.sock", "-H", "Content-Type: application/json"]
    return cluster.machine.run([*argv, "-d", body, url]).stdout


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_daemon_that_was_killed_is_the_same_node_again(cluster: Swarm) -> None:
    before = {host: cluster.info(host)["NodeID"] for host in cluster.hosts}
    etcd = cluster.etcd_pid("h1")
    for host in ("h1", "h2"):
        cluster.kill_daemon(host)
        cluster.start_daemon(host)
    wait_until(lambda: cluster.state("h1") == cluster.state("h2") == "active", "both are nodes again", 30)
    cluster.await_nodes("h1", h1=MANAGES, h2=UP, h3=UP)
    assert {host: cluster.info(host)["NodeID"] for host in cluster.hosts} == before
    assert cluster.etcd_pid("h1") == etcd, "etcd has not noticed"


def test_a_member_of_etcd_that_was_killed_is_started_again(cluster: Swarm) -> None:
    before = cluster.etcd_pid("h1")
    cluster.kill_etcd("h1")
    wait_until(lambda: cluster.etcd_pid("h1") not in ("", before), "it runs again", 30)
    cluster.await_nodes("h1", h1=MANAGES, h2=UP, h3=UP)


def test_a_daemon_without_its_cluster_serves_what_is_local(cluster: Swarm) -> None:
    """The one manager is away when a worker's daemon starts."""
    cluster.lab("partition", "h1", "h2")
    cluster.kill_daemon("h2")
    cluster.start_daemon("h2")
    assert cluster.docker("h2", "network", "create", "local") and cluster.docker("h2", "network", "rm", "local")
    assert cluster.state("h2") == "active", "it knows from before"
    cluster.await_nodes("h1", h2=GONE)
    cluster.lab("heal")
    cluster.await_nodes("h1", h2=UP)


def test_a_cluster_that_was_off_for_longer_than_its_certificates_last_starts_again(cluster: Swarm) -> None:
    """Nobody can be asked for another certificate: without a valid one there is no way to the store. The workers join again."""
    before = cluster.nodes("h1")
    wait_until(lambda: "root.json" in cluster.files_of("h1"), "the manager keeps what it would need", 30)
    for host in cluster.hosts:
        cluster.kill_daemon(host)
    cluster.kill_etcd("h1")
    for host in ("h1", "h2"):
        _expire(cluster, host)
    for host in cluster.hosts:
        cluster.start_daemon(host)
    cluster.await_nodes("h1", h1=MANAGES, h3=UP)
    assert cluster.nodes("h1").keys() == before.keys()
    wait_until(lambda: "expired" in cluster.info("h2")["Error"], lambda: f"h2 says why: {cluster.info('h2')}", 30)
    cluster.docker("h2", "swarm", "leave", "--force")
    cluster.docker("h1", "node", "rm", "--force", "h2")
    cluster.docker("h2", "swarm", "join", "--token", cluster.token("h1"), H1)
    cluster.await_nodes("h1", h2=UP)


def _expire(cluster: Swarm, host: str) -> None:
    """As if the host's certificate had been made half a year ago."""
    from netengine.cluster import certificates
    from netengine.cluster.certificates import Authority
    from netengine.cluster.identity import Files

    root = msgspec.json.decode(Files(cluster.cluster_directory("h1")).kept_root(), type=Authority)
    files = Files(cluster.cluster_directory(host))
    key, made = files.key_and_certificate()
    said, request = certificates.read(made), certificates.make_request(key)
    then = datetime.now(UTC) - timedelta(days=180)
    addresses = [files.load().advertise_address]
    files.replace_certificate(
        key, certificates.issue(root, request, said.node, said.role, said.cluster, addresses, then)
    )


def test_cleaning_up_ends_the_member_of_etcd(cluster: Swarm) -> None:
    cluster.kill_daemon("h1")
    assert cluster.etcd_pid("h1")
    done = cluster.clean_up("h1")
    assert "membership of a cluster" in done
    assert not cluster.etcd_pid("h1") and not cluster.files_of("h1")
    cluster.start_daemon("h1")
    assert cluster.state("h1") == "inactive"
    for host in ("h2", "h3"):
        cluster.docker(host, "swarm", "leave")


@pytest.mark.parametrize("command", ["init", "join"])
def test_a_daemon_that_is_killed_on_the_way_in_is_in_or_out(cluster: Swarm, command: str) -> None:
    """kill -9 at each step: started again it is the node that it was about to be, or nothing of it is left."""
    host = "h3"
    words = ["init", "--advertise-addr", H3] if command == "init" else ["join", "--token", cluster.token("h1"), H1]
    cluster.docker(host, "swarm", "leave")
    points = cluster.machine.path(f"/run/netengine-lab/{host}/failpoints")
    points.mkdir(exist_ok=True)
    inside = f"/run/netengine-lab/{host}/failpoints"
    cluster.kill_daemon(host)
    cluster.start_daemon(host, inside)
    (points / "arm").write_text("0")
    cluster.docker(host, "swarm", *words)
    (points / "arm").unlink()
    steps = (points / "reached").read_text().splitlines()
    assert len([step for step in steps if step.startswith("swarm: ")]) == {"init": 6, "join": 4}[command], steps
    for number, step in enumerate(steps, start=1):
        if not step.startswith("swarm: "):
            continue
        cluster.docker(host, "swarm", "leave", "--force")
        (points / "arm").write_text(str(number))
        pid = cluster.daemon_pid(host)
        said = cluster.refused(host, "swarm", *words)
        cluster.await_end(host, pid, f"{step}: {said}")
        (points / "arm").unlink()
        cluster.start_daemon(host, inside)
        if cluster.state(host) == "inactive":
            assert cluster.is_alone(host), step
            cluster.docker(host, "swarm", *words)
        wait_until(
            lambda: cluster.state(host) == "active" and not cluster.info(host)["Error"], f"a node after {step}", 30
        )
    if command == "join":
        cluster.await_nodes("h1", h3=UP)
    (points / "reached").unlink()


def test_of_three_managers_one_may_go_but_not_two(alone: Swarm) -> None:
    """With one the cluster goes on; with two lost nothing is changed any more, at once and with a word; what is, is shown."""
    alone.docker("h1", "swarm", "init", "--advertise-addr", H1, "--dispatcher-heartbeat", "2s")
    for host in ("h2", "h3"):
        alone.docker(host, "swarm", "join", "--token", alone.token("h1", "manager"), H1)
    leader = next(host for host, status in alone.managers("h1").items() if status == "Leader")
    lost, last, other = leader, *(host for host in alone.hosts if host != leader)
    alone.kill_daemon(lost)
    alone.kill_etcd(lost)
    alone.await_nodes(last, **{lost: ("Down", "Unreachable"), last: MANAGES, other: MANAGES})
    alone.docker(last, "node", "update", "--label-add", "after=one", last)

    alone.lab("partition", last, other)
    wait_until(lambda: "majority" in alone.info(last)["Error"], lambda: str(alone.info(last)), 60)
    for words in (("node", "update", "--label-add", "x=y", last), ("swarm", "join-token", "worker")):
        assert "a majority of the managers must be up" in alone.refused(last, *words)
    assert alone.nodes(last)[other][::2] == ("Unknown", "Unknown")
    assert "Doing so may lose the consensus" in alone.refused(last, "swarm", "leave")

    alone.lab("heal")
    alone.start_daemon(lost)
    alone.await_nodes(last, h1=MANAGES, h2=MANAGES, h3=MANAGES)
    assert alone.docker(lost, "node", "inspect", "-f", "{{.Spec.Labels}}", last) == "map[after:one]"

    # Two of three are lost for good: the last goes on alone.
    gone = [host for host in alone.hosts if host != last]
    for host in gone:
        alone.lab("partition", last, host)
    wait_until(lambda: "majority" in alone.info(last)["Error"], lambda: str(alone.info(last)), 60)
    address = ADDRESS.format(last[1:])
    assert "is now a manager" in alone.docker(last, "swarm", "init", "--force-new-cluster", "--advertise-addr", address)
    alone.await_nodes(last, **dict.fromkeys(gone, GONE), **{last: MANAGES})
    assert alone.docker(last, "node", "inspect", "-f", "{{.Spec.Labels}}", last) == "map[after:one]"
    alone.docker(last, "node", "update", "--label-add", "after=two", last)
    # Those that were lost and come back all the same find that they are workers.
    alone.lab("heal")
    alone.await_nodes(last, **dict.fromkeys(gone, UP))
    wait_until(lambda: not any(alone.etcd_pid(host) for host in gone), "their members of etcd have ended", 30)


def test_a_manager_without_etcd_names_the_package(tmp_path: Path) -> None:
    swarm = Swarm(tmp_path, 1, has_etcd=False)
    try:
        assert "install the package etcd-server" in swarm.refused("h1", "swarm", "init", "--advertise-addr", H1)
        assert swarm.is_alone("h1")
    finally:
        swarm.close()
