"""--publish and --expose, value by value."""

from __future__ import annotations

import pytest

from netengine.cli.ports import exposed, published
from netengine.errors import Invalid


def _all(spec):
    return [
        (port, binding["HostIp"], binding["HostPort"])
        for port, bindings in published([spec]).items()
        for binding in bindings
    ]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("80", [("80/tcp", "", "")]),
        ("8080:80", [("80/tcp", "", "8080")]),
        ("8080:80/udp", [("80/udp", "", "8080")]),
        ("8080:80/SCTP", [("80/sctp", "", "8080")]),
        ("127.0.0.1:8080:80", [("80/tcp", "127.0.0.1", "8080")]),
        ("127.0.0.1::80", [("80/tcp", "127.0.0.1", "")]),
        ("[::1]:80:80", [("80/tcp", "::1", "80")]),
        ("[::1]::80", [("80/tcp", "::1", "")]),
        ("::1:80:80", [("80/tcp", "::1", "80")]),
        ("8000-8001:80-81", [("80/tcp", "", "8000"), ("81/tcp", "", "8001")]),
        ("80-81", [("80/tcp", "", ""), ("81/tcp", "", "")]),
        ("8000-8010:80", [("80/tcp", "", "8000-8010")]),
        ("published=8080,target=80,protocol=udp", [("80/udp", "", "8080")]),
        ("target=80", [("80/tcp", "", "")]),
    ],
)
def test_publish(spec, expected):
    assert _all(spec) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("9090-9089:80", "invalid hostPort: 9090-9089"),
        ("9090-:80", "invalid hostPort: 9090-"),
        ("8000-8001:80-82", "invalid ranges specified for container and host Ports: 80-82 and 8000-8001"),
        ("8080:", "no port specified: 8080:<empty>"),
        ("8080:http", "invalid containerPort: http"),
        ("8080:0", "invalid containerPort: 0"),
        ("65536:80", "invalid hostPort: 65536"),
        ("99999999999999999999:80", "invalid hostPort"),
        ("80/icmp", "invalid proto: icmp"),
        ("host:8080:80", "invalid IP address: host"),
        ("[127.0.0.1]:80:80", "invalid IP address: [127.0.0.1]"),
        ("-1:80", "invalid hostPort: -1"),
        ("²:80", "invalid hostPort: ²"),
        ("published=80", "no port specified"),
        ("target=80,foo=1", "invalid field 'foo'"),
        ("target=80,protocol", "should be name=value but got 'protocol'"),
        ("", "no port specified"),
    ],
)
def test_publish_refuses(spec, message):
    with pytest.raises(Invalid) as caught:
        published([spec])
    assert message in caught.value.message


def test_one_port_published_twice_keeps_both():
    assert len(published(["80:80", "127.0.0.1:81:80"])["80/tcp"]) == 2


def test_expose():
    assert exposed(["80", "90-91/udp"]) == {"80/tcp": {}, "90/udp": {}, "91/udp": {}}
    with pytest.raises(Invalid, match="invalid range format for --expose: 9-8"):
        exposed(["9-8"])
    with pytest.raises(Invalid, match="invalid port format for --expose: 80:80"):
        exposed(["80:80"])
