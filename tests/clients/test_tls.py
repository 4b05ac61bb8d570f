"""The API over TCP: who shows a certificate of the daemon's authority is let in, and nobody else is."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.certificates import CLIENT, SERVER, Authority, Signed
from tests.clients.lab import HERE
from tests.daemons import Client, Daemon, docker_cli, netengine_cli
from tests.hosts import Host, wait_until, wire

PORT = 2376


@dataclass
class Secured:
    """A daemon that listens on TCP, a machine outside, and the authority that the daemon trusts."""

    daemon: Daemon
    outside: Host
    directory: Path
    authority: Authority
    alice: Signed

    def docker(self, who: Signed | None, *words: str) -> Client:
        """The real docker CLI on the machine outside."""
        client = docker_cli(self.daemon)
        flags = ["--tlsverify", f"--tlscacert={self.authority.certificate}"]
        if who is not None:
            flags += [f"--tlscert={who.certificate}", f"--tlskey={who.key}"]
        env = {"DOCKER_CONFIG": client._env["DOCKER_CONFIG"], "DOCKER_HOST": ""}
        made = Client(self.daemon, [*client._argv, *flags, "-H", f"tcp://{HERE}:{PORT}", *words], env)
        made.host = self.outside
        return made

    def flags(self, who: Signed) -> list[str]:
        return [f"--tlscacert={self.authority.certificate}", f"--tlscert={who.certificate}", f"--tlskey={who.key}"]

    def netengine(self, *flags: str, host: str = f"tcp://{HERE}:{PORT}") -> Client:
        """netengine's own command on the machine outside."""
        made = Client(self.daemon, [*netengine_cli(self.daemon)._argv, *flags], {"NETENGINE_HOST": host})
        made.host = self.outside
        return made

    def cert_path(self, who: Signed) -> Path:
        """A directory of certificates by Docker's names for them."""
        directory = self.directory / "named"
        directory.mkdir()
        for name, path in (("ca", self.authority.certificate), ("cert", who.certificate), ("key", who.key)):
            (directory / f"{name}.pem").write_bytes(Path(path).read_bytes())
        return directory

    def context(self, who: Signed | None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(self.authority.certificate))
        if who is not None:
            made.load_cert_chain(who.certificate, who.key)
        return made

    def handshake(self, who: Signed | None, *, only: ssl.TLSVersion | None = None) -> bytes:
        """Connect from outside, ask for /_ping, and answer what comes back. Raises ssl.SSLError."""
        context = self.context(who)
        if only is not None:
            context.minimum_version = context.maximum_version = only
            context.set_ciphers("ALL:@SECLEVEL=0")
        raw = self.outside.connect(HERE, PORT, timeout=10)
        with context.wrap_socket(raw, server_hostname=HERE) as connection:
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return connection.recv(4096)


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    directory = Path(tempfile.mkdtemp(prefix="netengine-tls-"))
    here, outside = Host("here", directory), Host("outside", directory)
    wire(here, outside)
    authority = Authority(directory, "ours")
    own = authority.sign("daemon", SERVER, HERE)
    config = {
        "hosts": ["unix:///run/netengine/netengine.sock", f"tcp://{HERE}:{PORT}"],
        "tlsverify": True,
        "tlscacert": str(authority.certificate),
        "tlscert": str(own.certificate),
        "tlskey": str(own.key),
    }
    daemon = Daemon(here, config=config)
    daemon.hosts = ()  # those of the file
    daemon.start()
    try:
        yield Secured(daemon, outside, directory, authority, authority.sign("alice", CLIENT))
        daemon.cleanup()
    finally:
        outside.close()
        here.close()
        shutil.rmtree(directory, ignore_errors=True)


def test_the_docker_cli_works_from_another_machine(secured: Secured) -> None:
    docker = secured.docker(secured.alice)
    assert docker("version", "--format", "{{.Server.Version}}")
    docker("network", "create", "far")
    assert docker("run", "--rm", "--network", "far", "host", "echo", "over the wire") == "over the wire"
    assert docker("run", "--rm", "-i", "host", "sort", stdin="b\na\n") == "a\nb"
    assert docker("run", "--rm", "host", "head", "-c", "3000000", "/dev/zero") == "\0" * 3_000_000
    docker("network", "rm", "far")


def test_netengine_s_own_command_works_from_another_machine(secured: Secured) -> None:
    """With Docker's flags, and with what the environment names."""
    netengine = secured.netengine("--tlsverify", *secured.flags(secured.alice))
    assert netengine("version", "--format", "{{.Server.Version}}")
    netengine("network", "create", "far")
    assert "far" in netengine("network", "ls")
    assert netengine("run", "--rm", "--network", "far", "host", "echo", "over the wire") == "over the wire"
    # Its input ends while its output still comes, and both are many records long.
    count = ["sh", "-c", "wc -c; head -c 3000000 /dev/zero"]
    many = netengine.run("run", "--rm", "-i", "host", *count, stdin="x" * 2_000_000)
    assert (many.returncode, many.stdout) == (0, "2000000\n" + "\0" * 3_000_000)
    both = netengine("run", "--rm", "-i", "host", "cat", stdin="to and fro\n" * 200_000)
    assert both.count("to and fro") == 200_000
    netengine("network", "rm", "far")
    named = secured.netengine()
    named._env["NETENGINE_CERT_PATH"] = str(secured.cert_path(secured.alice))
    assert "bridge" in named("network", "ls")


def test_netengine_s_own_command_says_what_is_wrong(secured: Secured) -> None:
    strangers = Authority(secured.directory, "elsewhere")
    mallory = strangers.sign("mallory2", CLIENT)
    said = lambda *flags: secured.netengine(*flags).run("ps").stderr  # noqa: E731
    assert "the daemon refuses" in said(*secured.flags(mallory)) and "unknown ca" in said(*secured.flags(mallory))
    wrong = [f"--tlscacert={strangers.certificate}", *secured.flags(secured.alice)[1:]]
    assert re.search(r"tcp://192.0.2.1:2376 is not to be trusted: .*certificate", said(*wrong))
    assert "cannot read" in said() and "--tlscacert" in said()
    assert "are no certificates with a key" in said(
        "--tlscacert=/etc/hostname", "--tlscert=/etc/hostname", "--tlskey=/etc/hostname"
    )
    closed = secured.netengine(*secured.flags(secured.alice), host=f"tcp://{HERE}:1").run("ps")
    assert "Connection refused" in closed.stderr and closed.returncode == 1
    assert "write it as tcp://HOST:PORT" in secured.netengine(host="tcp://x:99999").run("ps").stderr


def test_who_it_was_is_in_the_audit_trail(secured: Secured) -> None:
    secured.docker(secured.alice)("network", "create", "traced")
    lines = secured.daemon.request("GET", f"/netengine/audit?until={time.time():.6f}").body
    trail = [json.loads(line) for line in lines.splitlines()]
    (found,) = [one for one in trail if "traced" in one["Actor"]["Attributes"].get("asked", "")]
    who = found["Actor"]["Attributes"]
    assert who["subject"] == "CN=alice, O=example" and who["from"].startswith("192.0.2.2 port ")
    assert who["status"] == "201"
    secured.docker(secured.alice)("network", "rm", "traced")


@pytest.mark.parametrize("only", [None, ssl.TLSVersion.TLSv1_2])
def test_a_certificate_of_the_authority_is_let_in(secured: Secured, only: ssl.TLSVersion | None) -> None:
    assert secured.handshake(secured.alice, only=only).startswith(b"HTTP/1.0 200 OK")


def test_others_are_not(secured: Secured) -> None:
    strangers = Authority(secured.directory, "others")
    tries = {
        "no certificate": None,
        "another authority's": strangers.sign("mallory", CLIENT),
        "expired": secured.authority.sign("late", CLIENT, days=-1),
        "a server's": secured.authority.sign("elsewhere", SERVER),
    }
    for what, who in tries.items():
        with pytest.raises((ssl.SSLError, ConnectionError)):
            answer = secured.handshake(who)
            pytest.fail(f"{what}: {answer!r}")
    with pytest.raises((ssl.SSLError, ConnectionError)), pytest.warns(DeprecationWarning):
        secured.handshake(secured.alice, only=ssl.TLSVersion.TLSv1_1)
    refused = secured.docker(None).run("ps")
    assert refused.returncode != 0 and "certificate" in refused.stderr
    tail = secured.daemon.tail()
    assert "192.0.2.2 port" in tail and "was refused: certificate: certificate has expired" in tail


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_stream_ends_when_its_client_is_gone(secured: Secured, how: str) -> None:
    def descriptors() -> int:
        return int(secured.daemon.request("GET", "/info").json["NFd"])

    before = descriptors()
    context = secured.context(secured.alice)
    with context.wrap_socket(secured.outside.connect(HERE, PORT, timeout=10), server_hostname=HERE) as connection:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 OK")
        assert descriptors() > before
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: descriptors() <= before, "the daemon has let go of it", 20)


def test_plain_http_is_not_answered(secured: Secured) -> None:
    with secured.outside.connect(HERE, PORT) as connection:
        connection.sendall(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        try:
            while piece := connection.recv(4096):
                answer += piece
        except ConnectionError:
            pass
    assert b"HTTP/" not in answer


def test_strangers_who_say_nothing_are_cut_off_and_hold_up_nobody_on_the_socket(secured: Secured) -> None:
    """More than the daemon shakes hands with at once; a client with a certificate waits for at most the time-out."""
    quiet = [secured.outside.connect(HERE, PORT) for _ in range(70)]
    try:
        assert secured.daemon.request("GET", "/_ping", timeout=5).status == 200
        wait_until(lambda: _closed(quiet[0]), "the first stranger is cut off", 30)
        assert secured.handshake(secured.alice).startswith(b"HTTP/1.0 200 OK")
    finally:
        for one in quiet:
            one.close()


def _closed(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tlsverify": False}, "is of no use without tlsverify"),
        ({"tlskey": "/nonexistent/key.pem"}, "no certificate with its key"),
        ({"tlscacert": "/etc/hostname"}, "holds no certificates that can be read"),
    ],
)
def test_a_daemon_without_what_it_needs_does_not_start(
    host: Host, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    authority = Authority(tmp_path, "ours")
    own = authority.sign("daemon", SERVER, "127.0.0.1")
    config: dict[str, object] = {
        "hosts": ["tcp://127.0.0.1:2376"],
        "tlsverify": True,
        "tlscacert": str(authority.certificate),
    }
    config |= {"tlscert": str(own.certificate), "tlskey": str(own.key), **change}
    daemon = Daemon(host, config=config)
    daemon.hosts = ()
    done = host.run(daemon.argv, env={"PYTHONPATH": "."})
    assert done.returncode == 1 and words in done.stderr
