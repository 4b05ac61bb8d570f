"""Hosts of the form tcp://HOST:PORT. That they are spoken to is shown in tests/clients/test_tls.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from netengine.cli.remote import Certificates, Remote
from netengine.errors import Invalid

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
