"""`--link` on the default bridge: the line in /etc/hosts, and with icc off the way through, packet by packet."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.clients.lab import Lab, eventually
from tests.daemons import Client, Daemon, docker_cli
from tests.hosts import Host, Namespace

NOT_HERE = 0.3  # seconds after which a packet that was dropped is taken for lost
WAIT = ["sh", "-c", "exec sleep infinity"]


def _hosts(docker: Client, name: str) -> list[str]:
    return docker("exec", name, "cat", "/etc/hosts").splitlines()[3:]


# ---------------------------------------------------------------------- the file


def test_a_line_in_hosts_comes_and_goes_with_the_target(lab: Lab, docker: Client):
    docker("run", "-d", "--name", "db", "--hostname", "store", "--expose", "5432", "sandbox")
    lab.idle("web", "--link", "db:sql", "--link", "db")
    where = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db")
    assert f"{where}\tsql store db" in _hosts(docker, "web")
    assert f"{where}\tdb store" in _hosts(docker, "web")
    assert docker("exec", "web", "getent", "hosts", "sql").split()[0] == where
    assert json.loads(docker("inspect", "-f", "{{json .HostConfig.Links}}", "web")) == ["/db:/web/sql", "/db:/web/db"]
    assert set(docker("ps", "--no-trunc", "--filter", "name=db", "--format", "{{.Names}}").split(",")) == {
        "db", "web/sql", "web/db",
    }  # fmt: skip

    docker("stop", "-t", "0", "db")
    assert not any("sql" in line for line in _hosts(docker, "web"))
    docker("run", "-d", "--name", "squatter", "sandbox")  # takes the address that became free
    docker("start", "db")
    now = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db")
    assert now != where
    assert docker("exec", "web", "getent", "hosts", "sql").split()[0] == now

    docker("rename", "db", "shelf")
    assert docker("exec", "web", "getent", "hosts", "shelf").split()[0] == now
    lab.daemon.restart()
    docker("restart", "shelf")
    assert docker("exec", "web", "getent", "hosts", "sql").split()[0] == docker(
        "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "shelf"
    )


def test_what_cannot_be_linked(lab: Lab, docker: Client):
    docker("run", "-d", "--name", "far", "--network", "host", "host", *WAIT)
    docker("create", "--name", "still", "sandbox")
    for flags, words in (
        (["--link", "nobody:x"], "could not get container for nobody: No such container: nobody"),
        (["--link", "far:x"], "host type networking can't be used with links"),
        (["--link", "still:x"], "Cannot link to a non running container: /still AS /web/x"),
        (["--network", "host", "--link", "still:x"], "host type networking can't be used with links"),
        (["--link", "still:x y"], "bad format for links"),
    ):
        assert words in docker.refused("run", "-d", "--name", "web", *flags, "sandbox").text
        lab.api("DELETE", "/containers/web?force=1")


# ---------------------------------------------------------------------- icc off


@pytest.fixture(scope="module")
def _quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose default bridge keeps its containers apart."""
    host = Host("quiet", tmp_path_factory.mktemp("quiet"))
    daemon = Daemon(host, config={"icc": False}).start()
    yield daemon
    daemon.cleanup()
    host.close()


class Site:
    """`web` is linked to `db`, which exposes TCP 80 and UDP 53; `other` is linked to nobody. Docker's CLI in `docker`."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon, self.docker = daemon, docker_cli(daemon)
        self.open: list[Namespace] = []
        self.docker("run", "-d", "--name", "db", "--expose", "80", "--expose", "53/udp", "sandbox")
        self.docker("run", "-d", "--name", "web", "--link", "db:sql", "host", *WAIT)
        self.docker("run", "-d", "--name", "other", "sandbox")

    def inside(self, name: str) -> Namespace:
        key = self.docker("inspect", "-f", "{{.NetworkSettings.SandboxKey}}", name)
        self.open.append(Namespace(self.daemon.host.path(key), name))
        return self.open[-1]

    def address(self, name: str) -> str:
        return self.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", name)

    def passes(self, here: str, there: str, protocol: str, port: int, source: int = 0) -> bool:
        """Whether the first packet of a conversation arrives: a datagram, or a SYN that is answered."""
        client, server = self.inside(here), self.inside(there)
        try:
            if protocol == "tcp":
                return self._connects(client, server, self.address(there), port, source)
            return self._arrives(client, server, self.address(there), port, source)
        finally:
            client.close()
            server.close()

    @staticmethod
    def _connects(client: Namespace, server: Namespace, address: str, port: int, source: int) -> bool:
        with server.listen(port), client.socket(timeout=NOT_HERE) as sock:
            sock.bind(("0.0.0.0", source))
            try:
                sock.connect((address, port))
            except TimeoutError:
                return False
            return True

    @staticmethod
    def _arrives(client: Namespace, server: Namespace, address: str, port: int, source: int) -> bool:
        with server.socket(socket.SOCK_DGRAM, timeout=NOT_HERE) as ear, client.socket(socket.SOCK_DGRAM) as mouth:
            ear.bind(("0.0.0.0", port))
            mouth.bind(("0.0.0.0", source))
            mouth.sendto(b"knock", (address, port))
            try:
                words, sender = ear.recvfrom(16)
            except TimeoutError:
                return False
            assert words == b"knock"
            # The answer finds its way back, and comes from the target's own address.
            ear.sendto(b"who's there", sender)
            mouth.settimeout(10)
            assert mouth.recvfrom(16)[1] == (address, port)
            return True


@pytest.fixture(scope="module")
def site(_quiet: Daemon) -> Iterator[Site]:
    made = Site(_quiet)
    yield made
    for namespace in made.open:
        namespace.close()
    made.docker("rm", "-f", "web", "db", "other")


@pytest.mark.parametrize(
    ("here", "there", "protocol", "port", "source", "arrives"),
    [
        ("web", "db", "tcp", 80, 0, True),
        ("web", "db", "udp", 53, 0, True),
        ("web", "db", "tcp", 81, 0, False),
        ("web", "db", "tcp", 53, 0, False),
        ("web", "db", "udp", 80, 0, False),
        ("db", "web", "tcp", 80, 0, False),
        ("db", "web", "udp", 53, 0, False),
        ("db", "web", "udp", 9999, 53, True),  # from an exposed port, as with Docker: an answer, however late
        ("db", "web", "udp", 9999, 54, False),
        ("other", "db", "tcp", 80, 0, False),
        ("other", "db", "udp", 53, 0, False),
        ("other", "web", "udp", 9999, 53, False),
        ("web", "other", "tcp", 80, 0, False),
        ("db", "other", "udp", 9999, 53, False),
    ],
)
def test_with_icc_off_exactly_the_exposed_ports_are_open(
    site: Site, here: str, there: str, protocol: str, port: int, source: int, arrives: bool
):
    assert site.passes(here, there, protocol, port, source) is arrives


def test_with_icc_off_the_way_follows_restarts(site: Site):
    before = site.address("db")
    site.docker("stop", "-t", "0", "db")
    assert "elements" not in site.daemon.host.run(["nft", "list", "set", "ip", "netengine", "links"]).stdout
    site.docker("run", "-d", "--name", "squatter", "--expose", "80", "sandbox")
    try:
        assert site.address("squatter") == before
        site.docker("start", "db")
        assert site.address("db") != before
        assert site.passes("web", "db", "tcp", 80)
        assert not site.passes("web", "squatter", "tcp", 80), "who has the old address now is not linked"
        site.daemon.restart()
        assert site.passes("web", "db", "udp", 53)
        site.docker("restart", "-t", "0", "web")
        assert site.passes("web", "db", "tcp", 80)
    finally:
        site.docker("rm", "-f", "squatter")


def test_with_icc_off_a_link_that_is_taken_away_is_put_back(site: Site):
    site.daemon.host.run(["nft", "flush", "set", "ip", "netengine", "links"], check=True)
    eventually(lambda: site.passes("web", "db", "tcp", 80), "the link healed")


def test_with_icc_off_the_host_and_its_way_out_are_reached_all_the_same(site: Site):
    gateway = site.docker("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}")
    other = site.inside("other")
    with site.daemon.host.listen(8080), other.connect(gateway, 8080):
        pass
