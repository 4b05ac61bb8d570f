"""Hosts of the form tcp://HOST:PORT. That they are spoken to is shown in tests/clients/test_tls.py."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from netengine.cli.remote import Certificates, Remote, Secured
from netengine.errors import Invalid
from tests.clients.certificates import CLIENT, SERVER, Authority

NONE = Certificates("", "", "")


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        ("tcp://192.0.2.1:2376", "192.0.2.1", 2376),
        ("tcp://192.0.2.1", "192.0.2.1", 2376),
        ("tcp://box.example:99/", "box.example", 99),
        ("tcp://[2001:db8::1]:2377", "2001:db8::1", 2377),
        ("tcp://[2001:db8::1]", "2001:db8::1", 2376),
    ],
)
def test_a_host_is_an_address_and_a_port(host: str, address: str, port: int) -> None:
    remote = Remote(host, NONE)
    assert (remote.address, remote.port) == (address, port)


@pytest.mark.parametrize("host", ["tcp://", "tcp://:2376", "tcp://x:0", "tcp://x:65536", "tcp://x:http", "tcp://[]:1"])
def test_others_are_refused(host: str) -> None:
    with pytest.raises(Invalid, match="write it as tcp://HOST:PORT"):
        Remote(host, NONE)


def test_each_certificate_is_the_flag_s_or_the_directory_s() -> None:
    found = Certificates.given("", "mine.pem", "", {"NETENGINE_CERT_PATH": "/certs"})
    assert (found.ca, found.cert, found.key) == ("/certs/ca.pem", "mine.pem", "/certs/key.pem")
    assert Certificates.given("", "", "", {}).ca.endswith("/.netengine/ca.pem")


def test_a_unix_socket_costs_no_import_of_tls() -> None:
    code = (
        "import sys; from netengine.cli import main; main.main(['-H', 'unix:///nonexistent', 'ps']); "
        "print('ssl' in sys.modules, 'netengine.cli.remote' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, cwd=Path(__file__).parents[3]
    )
    assert done.stdout == "False False\n"


def test_the_end_of_input_loses_no_output_that_is_under_way(tmp_path: Path) -> None:
    """Records of output that have arrived and are not read yet when the input ends."""
    authority = Authority(tmp_path, "authority")
    daemon, client = (
        authority.sign(name, usage, "192.0.2.1") for name, usage in (("daemon", SERVER), ("alice", CLIENT))
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(daemon.certificate, daemon.key)
    output = bytes(range(256)) * 180  # several records, fewer bytes than are read at once
    sent = threading.Event()

    def serve(plain: socket.socket) -> None:
        with tls.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False) as channel:
            channel.sendall(output)
            sent.set()
            heard = b""
            while block := channel.recv(1 << 16):
                heard += block
            channel.sendall(b"; heard " + heard)
            channel.unwrap()

    here, there = socket.socketpair()
    with here, there, ThreadPoolExecutor(1) as pool:
        serving = pool.submit(serve, there)
        context = Certificates(str(authority.certificate), str(client.certificate), str(client.key)).context()
        secured = Secured(here, context, "192.0.2.1", "alice")
        secured.sendall(b"input")
        assert sent.wait(20)
        seen = secured.recv(1)
        secured.shutdown(socket.SHUT_WR)
        while block := secured.recv(100):
            seen += block
        serving.result(20)
    assert seen == output + b"; heard input"
