"""Clusters in an etcd of the user's own, as a person begins and joins them: the real docker CLI on the hosts of a lab, of which
the last one has the etcd and nothing else."""

from __future__ import annotations

import json
import signal
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.clients.certificates import CLIENT, SERVER, Authority
from tests.clients.swarms import ADDRESS, RUN, Swarm
from tests.cluster.etcd_members import etcd_program
from tests.hosts import Process, wait_until

H1, H4 = ADDRESS.format(1), ADDRESS.format(4)
WORKS, MANAGES = ("Ready", ""), ("Ready", "Reachable")
MEMBERS = {"m1": "[fd00:99::4]:2379", "m2": f"{H4}:2379", "m3": f"{H4}:2381"}
PLAIN = f"etcd+http://{','.join(MEMBERS.values())}"


class Cluster(Swarm):
    """Hosts h1 to h3, and h4 with the store."""

    def __init__(self, directory: Path, count: int) -> None:
        super().__init__(directory, count)
        self.stores: list[Process] = []

    def etcd(self, name: str, client: str, *flags: str, scheme: str = "http", peers: Sequence[str] = ()) -> Process:
        """Start a member of a store on h4, which answers at `client`; `peers` are all members, if there are others."""
        first = json.loads(self.machine.path(f"{RUN}/lab.json").read_text())["hosts"]["h4"]["pid"]
        ports = {peer: 2400 + n for n, peer in enumerate(peers)} or {name: 2480}
        url, peer = f"{scheme}://{client}", f"http://127.0.0.1:{ports[name]}"
        argv = ["nsenter", "--target", str(first), "--net", "--", etcd_program(), "--name", name]
        argv += ["--data-dir", str(self.machine.disk / name), "--logger", "zap", "--log-level", "error"]
        argv += ["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer]
        argv += ["--initial-advertise-peer-urls", peer, "--bcrypt-cost", "4"]
        argv += ["--heartbeat-interval", "50", "--election-timeout", "500"]
        argv += ["--initial-cluster", ",".join(f"{peer}=http://127.0.0.1:{port}" for peer, port in ports.items())]
        self.stores.append(self.machine.popen([*argv, *flags]))
        return self.stores[-1]

    def configure(self, host: str, failpoints: str = "", **directives: str) -> None:
        """Start the host's daemon again with these directives."""
        self.kill_daemon(host)
        found = {name.replace("_", "-"): value for name, value in directives.items()}
        self.machine.path(f"{RUN}/{host}/daemon.json").write_text(json.dumps(found))
        self.start_daemon(host, failpoints)

    def ask(self, body: str, *arguments: str) -> str:
        """Run the body of a coroutine on h4, with `Etcd` and `context(ca, cert, key)` at hand; what it prints."""
        script = (
            "import asyncio, json, ssl, sys\nfrom netengine.store.etcd import Etcd\n"
            "def context(ca, cert, key):\n"
            "    made = ssl.create_default_context(cafile=ca)\n    made.load_cert_chain(cert, key)\n    return made\n"
            f"async def main(*words):\n{textwrap.indent(textwrap.dedent(body), '    ')}\nasyncio.run(main(*sys.argv[1:]))\n"
        )
        return self.lab("exec", "h4", sys.executable, "-c", script, *arguments)

    def stored(self, settings: str = "", *, kept: bool = False) -> list[str]:
        """The keys that the plain store holds, or those on no lease; before that, other settings are written into the record of
        cluster "one"."""
        body = """
            async with Etcd([words[0]]) as etcd:
                key = "/one/netengine/v1/shared/cluster"
                if words[1]:
                    await etcd.put(key, json.dumps(json.loads((await etcd.get(key)).value) | json.loads(words[1])).encode())
                print(*(e.key for e in (await etcd.read("/"))[0] if not (words[2] and e.lease)), sep="\\n")
        """
        return self.ask(body, f"http://{MEMBERS['m3']}", settings, "kept" * kept).split()

    def run_on(self, host: str, name: str, network: str) -> None:
        wait_until(lambda: network in self.docker(host, "network", "ls"), f"{network} is known on {host}")
        self.docker(host, "run", "-d", "--name", name, "--network", network, "host", "sleep", "infinity")

    def network(self, host: str, name: str) -> None:
        """Make one as soon as the store has a leader; an attempt that was answered too late may have made it."""
        make = ("network", "create", "-d", "overlay", "--attachable", name)

        def there() -> bool:
            return not self._docker(host, *make).returncode or name in self.docker(host, "network", "ls")

        wait_until(there, lambda: f"{name} is made on {host}{self.log(host)}", 60)

    def goes_on(self, host: str, network: str) -> None:
        """Containers come to the network."""
        run = ("run", "--rm", "--network", network, "host", "true")
        wait_until(lambda: not self._docker(host, *run).returncode, lambda: f"{host} goes on{self.log(host)}", 60)

    def takes_over(self, host: str, *words: str) -> None:
        """As soon as the managers that were are known to be gone."""
        init = ("swarm", "init", "--force-new-cluster", *words)
        wait_until(lambda: not self._docker(host, *init).returncode, lambda: f"{host} takes over{self.log(host)}", 60)

    def reaches(self, host: str, name: str, target: str) -> bool:
        return not self._docker(host, "exec", name, "ping", "-c", "1", "-W", "1", target).returncode

    def await_reach(self, host: str, name: str, target: str) -> None:
        wait_until(lambda: self.reaches(host, name, target), lambda: f"{target} from {name}{self.log(host)}", 30)

    def stop_stores(self) -> None:
        for etcd in self.stores:
            paused(etcd, False)
            etcd.stop()


def paused(etcd: Process, yes: bool) -> None:
    etcd.send(signal.SIGSTOP if yes else signal.SIGCONT)
    if not yes:
        etcd.popen.send_signal(signal.SIGCONT)  # nsenter stops along with what it runs
    stat = Path(f"/proc/{etcd.pid}/stat")
    wait_until(lambda: (stat.read_text().rpartition(")")[2].split()[0] == "T") is yes, "etcd is paused or not")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("outside"), 4)
    try:
        yield found
    finally:
        found.stop_stores()
        found.close()


def test_a_cluster_in_an_etcd_of_ones_own(lab: Cluster) -> None:
    """Begun, joined, used, cut off from its store, and left: then the store is empty again. Of the three members one is reached
    by IPv6, one is killed and comes back, one hangs."""
    for host in lab.hosts:
        lab.lab("exec", host, "ip", "address", "add", f"fd00:99::{host[1:]}/64", "dev", "eth0", "nodad")
    etcds = {name: lab.etcd(name, client, peers=[*MEMBERS]) for name, client in MEMBERS.items()}
    # The daemon is killed when its host knows that it is the first node, and the store is not to keep that yet.
    points = lab.machine.path(f"{RUN}/points")
    points.mkdir()
    lab.configure("h1", f"{RUN}/points", store=f"{PLAIN}/one")
    (points / "arm").write_text("10")
    lab.refused("h1", "swarm", "init", "--advertise-addr", H1, "--dispatcher-heartbeat", "1s")
    assert (points / "reached").read_text().endswith("\nswarm: identity saved\n")
    wait_until(lambda: not lab.pid_of("h1", "netengined"), "the daemon of h1 is gone")
    lab.start_daemon("h1")
    wait_until(lambda: any(key.endswith("/shared/cluster") for key in lab.stored(kept=True)), "it is kept", 30)
    lab.docker("h2", "swarm", "join", "--token", lab.token("h1"), H1)
    lab.docker("h3", "swarm", "join", "--token", lab.token("h1", "manager"), H1)
    assert lab.managers("h3") == {"h1": "Reachable", "h3": "Reachable"}
    assert not any(lab.etcd_pid(host) for host in ("h1", "h3")), "no manager runs a store"
    warnings = json.loads(lab.docker("h2", "info", "--format", "{{json .Warnings}}"))
    assert "asks for no users" in warnings[0] and "in the clear" in warnings[1]

    lab.docker("h1", "network", "create", "-d", "overlay", "--attachable", "net")
    for host in ("h1", "h2", "h3"):
        lab.run_on(host, f"on-{host}", "net")
    lab.await_reach("h2", "on-h2", "on-h1")
    lab.await_reach("h3", "on-h3", "on-h2")

    # The store is brought back from a copy that is older than the containers: they are published again, with their addresses.
    gone = [key for key in lab.stored() if "/shared/endpoints/" in key]
    body = """
        async with Etcd([words[0]], namespace="/one") as etcd:
            for kind in ("blocks", "endpoints"):
                await etcd.delete(f"/netengine/v1/shared/{kind}/", prefix=True)
    """
    lab.ask(body, f"http://{MEMBERS['m3']}")
    wait_until(lambda: len(gone) == 3 and set(gone) <= set(lab.stored()), lambda: str((gone, lab.stored())), 30)
    lab.await_reach("h2", "on-h2", "on-h1")

    # One member goes, and is behind when it comes back; then another one stands still, which nobody's kernel can tell.
    etcds["m1"].stop(signal.SIGKILL)
    lab.stores.remove(etcds["m1"])
    lab.network("h1", "net2")
    lab.goes_on("h2", "net2")
    etcds["m1"] = lab.etcd("m1", MEMBERS["m1"], peers=[*MEMBERS])
    lab.ask(
        'async with Etcd([f"http://{words[0]}"], time_limit=60) as etcd:\n    await etcd.get("/until it has caught up")',
        MEMBERS["m1"],
    )
    paused(etcds["m2"], True)
    lab.network("h3", "net3")
    lab.goes_on("h2", "net3")
    paused(etcds["m2"], False)
    lab.docker("h1", "network", "rm", "net2", "net3")

    # No identifier is left for a second network: nothing of it is made.
    known = lab.stored('{"vnis": [4096, 4096], "subnet_size": 25}')
    assert {key.rpartition("/netengine/v1/")[0] for key in known} == {"/one"}
    wait_until(lambda: lab.info("h1")["Cluster"]["SubnetSize"] == 25, "h1 has heard of it")
    assert "all VXLAN network identifiers from 4096 to 4096 are in use: remove an overlay" in lab.refused(
        "h1", "network", "create", "-d", "overlay", "late"
    )
    assert lab.stored() == known and "late" not in lab.docker("h1", "network", "ls", "--format", "{{.Name}}").split()
    vni = ("-o", "com.docker.network.driver.overlay.vxlanid_list=4097")
    lab.docker("h1", "network", "create", "-d", "overlay", *vni, "late")
    lab.docker("h1", "network", "rm", "late")

    lab.docker("h1", "node", "promote", "h2")
    lab.await_nodes("h2", h2=MANAGES)
    lab.docker("h2", "node", "demote", "h1", "h3")
    lab.await_nodes("h2", h1=WORKS, h2=MANAGES, h3=WORKS)
    assert "attempting to demote the last manager" in lab.refused("h2", "node", "demote", "h2")
    lab.kill_daemon(
        "h2"
    )  # for good, as far as anybody knows; and no node is left that could make another one a manager
    lab.takes_over("h1")
    lab.start_daemon("h2")
    lab.await_nodes("h1", h1=MANAGES, h2=MANAGES, h3=WORKS)
    assert "no number of managers is needed" in lab.refused("h1", "swarm", "init", "--force-new-cluster")

    # The store is away, and two daemons start meanwhile.
    for etcd in etcds.values():
        paused(etcd, True)
    wider = f"{PLAIN},{H4}:2378"
    lab.configure("h1", store=f"{wider}/one")  # all others are to hear of another member
    lab.kill_daemon("h2")
    lab.start_daemon("h2")
    assert lab.reaches("h2", "on-h2", "on-h1") and lab.state("h1") == "active"
    for words in (("network", "create", "-d", "overlay", "x"), ("swarm", "join-token", "worker")):
        assert f"the cluster's store is {wider}/one, which its managers do not run" in lab.refused("h1", *words)
    assert PLAIN in lab.refused("h2", "run", "--network", "net", "host", "true")
    wait_until(lambda: PLAIN in lab.info("h1")["Error"], lambda: str(lab.info("h1")), 30)
    for etcd in etcds.values():
        paused(etcd, False)
    wait_until(lambda: not lab.info("h1")["Error"], lambda: str(lab.info("h1")), 30)
    lab.await_nodes("h1", h1=MANAGES, h2=MANAGES, h3=WORKS)
    known_by_h3 = lab.cluster_directory("h3") / "node.json"
    wait_until(
        lambda: len(json.loads(known_by_h3.read_text())["endpoints"]) == 4, "h3 has heard of the other member", 30
    )
    assert f"Store: {wider}/one" in lab.netengine("h3", "info")
    lab.goes_on("h2", "net")

    for host in ("h1", "h2", "h3"):
        lab.docker(host, "rm", "-f", f"on-{host}")
    lab.docker("h3", "swarm", "leave")
    lab.docker("h2", "swarm", "leave", "--force")
    lab.await_nodes("h1", h1=MANAGES, h2=("Down", ""), h3=("Down", ""))
    lab.docker("h1", "swarm", "leave", "--force")
    assert lab.stored() == [] and all(lab.is_alone(host) for host in lab.hosts[:3])


def test_with_tls_client_certificates_and_users(lab: Cluster) -> None:
    """The store judges hosts by their certificates, and gives nodes no more than their roles say."""
    directory = lab.machine.path(f"{RUN}/h4") / "tls"
    directory.mkdir()
    authority = Authority(directory, "store")
    server, host = authority.sign("etcd", SERVER, H4, also=[CLIENT]), authority.sign("host", CLIENT, has_name=False)
    named = authority.sign("named", CLIENT)

    def file(path: Path) -> str:
        return f"{RUN}/h4/tls/{path.name}"

    for path in (*directory.iterdir(), directory):
        path.chmod(0o755 if path == directory else 0o644)
    flags = ["--cert-file", file(server.certificate), "--key-file", file(server.key)]
    flags += ["--trusted-ca-file", file(authority.certificate), "--client-cert-auth"]
    lab.etcd("users", f"{H4}:2479", *flags, scheme="https")
    who = (file(authority.certificate), file(host.certificate), file(host.key))
    lab.ask(
        """
        async with Etcd([words[0]], context(*words[1:]), time_limit=60) as etcd:
            await etcd.add_role("root", [])
            await etcd.add_user("root", "secret")
            await etcd.give_role("root", "root")
            await etcd.demand_users()
        """,
        f"https://{H4}:2479",
        *who,
    )
    lab.machine.path(f"{RUN}/h1/password").write_text("secret\n")
    lab.machine.path(f"{RUN}/h1/password").chmod(0o600)
    store = f"etcd://{H4}:2479/tls"
    files = {"store_cacert": who[0], "store_cert": who[1], "store_key": who[2]}
    by_name = {"store_cert": file(named.certificate), "store_key": file(named.key)}
    lab.configure("h1", store=store, **files | by_name)
    refused = lab.refused("h1", "swarm", "init", "--advertise-addr", H1)
    assert "refuses the certificate that it is shown (--store-cert), since that has a CN" in refused
    lab.configure("h1", store=store, **files, store_user="root", store_password_file=f"{RUN}/h1/password")
    lab.docker("h1", "swarm", "init", "--advertise-addr", H1, "--dispatcher-heartbeat", "1s")
    assert json.loads(lab.docker("h1", "info", "--format", "{{json .Warnings}}")) == []

    refused = lab.refused("h3", "swarm", "join", "--token", lab.token("h1"), H1)
    assert f"https://{H4}:2479: it asks for a client certificate, and got none that it accepts (--store-cert" in refused
    assert lab.is_alone("h3") and set(lab.nodes("h1")) == {"h1"}, "nothing is left of it"
    lab.configure("h2", store=store, store_cert=who[1], store_key=who[2])
    lab.docker("h2", "swarm", "join", "--token", lab.token("h1"), H1)
    lab.docker("h1", "network", "create", "-d", "overlay", "--attachable", "net")
    for name in ("h1", "h2"):
        lab.run_on(name, f"on-{name}", "net")
    lab.await_reach("h2", "on-h2", "on-h1")
    identity = json.loads((lab.cluster_directory("h2") / "node.json").read_text())
    said = lab.ask(
        """
        async with Etcd([words[0]], context(*words[1:4]), *words[4:], namespace="/tls") as etcd:
            print(bool(await etcd.get("/netengine/v1/shared/cluster")))
            for key in ("/netengine/v1/secret/tokens", "/netengine/v1/secret/authority"):
                try:
                    print(await etcd.get(key))
                except Exception as e:
                    print(e.message)
        """,
        f"https://{H4}:2479",
        *who,
        identity["user"],
        identity["password"],
    )
    assert said.splitlines()[0] == "True" and said.count("permission denied") == 2

    # The only manager is gone for good: a host that was in no cluster, and may read all of the store, is the next one.
    lab.configure("h3", store=store, **files, store_user="root", store_password_file=f"{RUN}/h1/password")
    here = ("--advertise-addr", ADDRESS.format(3))
    assert f"manager h1 at {H1}:2377 is up" in lab.refused("h3", "swarm", "init", "--force-new-cluster", *here)
    lab.kill_daemon("h1")
    lab.takes_over("h3", *here)
    lab.await_nodes("h3", h1=("Down", "Unreachable"), h2=WORKS, h3=MANAGES)
    lab.docker("h3", "node", "demote", "h1")
    lab.docker("h3", "node", "rm", "--force", "h1")
    known_by_h2 = lab.cluster_directory("h2") / "node.json"
    wait_until(
        lambda: json.loads(known_by_h2.read_text())["managers"] == [f"{ADDRESS.format(3)}:2377"],
        "h2 has heard of it",
        30,
    )
    lab.start_daemon("h1")
    wait_until(
        lambda: "if this host was removed from its cluster" in lab.info("h1")["Error"], "h1 knows that it is none", 30
    )
    for name in ("h1", "h2"):
        lab.docker(name, "rm", "-f", f"on-{name}")
    for name in ("h1", "h2", "h3"):
        lab.docker(name, "swarm", "leave", "--force")
    said = lab.ask(
        """
        async with Etcd([words[0]], context(*words[1:4]), "root", "secret") as etcd:
            print((await etcd.read("/"))[0], (await etcd._call("/v3/auth/user/list", {}))["users"])
        """,
        f"https://{H4}:2479",
        *who,
    )
    assert said == "[] ['root']"
