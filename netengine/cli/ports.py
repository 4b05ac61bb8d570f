"""`--publish` and `--expose` read as Docker reads them, into the API's ExposedPorts and PortBindings. Pure.

    80   8080:80   127.0.0.1:8080:80   127.0.0.1::80   [::1]:80:80   8000-8010:80-90   8000-8010:80   .../udp   .../sctp
    published=8080,target=80,protocol=tcp

A range of host ports before one container port means "any free one of these", which the API takes as "8000-8010".
"""

from __future__ import annotations

import ipaddress

from netengine.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    Bindings: TypeAlias = dict[str, list[dict[str, str]]]
    """"80/tcp" -> [{"HostIp": ..., "HostPort": ...}], as in HostConfig.PortBindings."""

PROTOCOLS = ("tcp", "udp", "sctp")
LAST = 65535


def published(specs: Iterable[str]) -> Bindings:
    """All `--publish` values together."""
    bindings: Bindings = {}
    for spec in specs:
        for port, binding in _publish(_short_form(spec) if "=" in spec else spec):
            bindings.setdefault(port, []).append(binding)
    return bindings


def exposed(specs: Iterable[str]) -> dict[str, dict[str, str]]:
    """All `--expose` values together: {"80/tcp": {}, ...}."""
    ports: dict[str, dict[str, str]] = {}
    for spec in specs:
        if ":" in spec:
            raise Invalid(f"invalid port format for --expose: {spec}: give a port or a range, such as 80 or 80-90/udp")
        text, protocol = _protocol(spec)
        try:
            first, last = span(text)
        except ValueError as error:
            raise Invalid(f"invalid range format for --expose: {spec}, error: {error}") from None
        for port in range(first, last + 1):
            ports[f"{port}/{protocol}"] = {}
    return ports


def span(text: str) -> tuple[int, int]:
    """First and last port of "80" or "80-90". Raises ValueError with what is wrong."""
    first, dash, last = text.partition("-")
    low = _port(first)
    high = _port(last) if dash else low
    if high < low:
        raise ValueError(f"{text} ends before it begins")
    return low, high


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a port number")
    port = int(text[:6])
    if port > LAST:
        raise ValueError(f"port {text} is above {LAST}")
    return port


def _publish(spec: str) -> Iterable[tuple[str, dict[str, str]]]:
    """One `--publish` value, taken apart from the right: the container port, then the host's, then its address."""
    text, protocol = _protocol(spec)
    rest, _, inner = text.rpartition(":")
    address, colon, outer = rest.rpartition(":")
    if not inner:
        raise Invalid(f"no port specified: {spec}<empty>")
    if colon:
        address = _address(address, spec)
    try:
        first, last = span(inner)
    except ValueError as error:
        raise Invalid(f"invalid containerPort: {inner} in {spec}: {error}") from None
    if first == 0:
        raise Invalid(f"invalid containerPort: {inner} in {spec}: ports begin at 1")
    low = high = 0
    if outer:
        try:
            low, high = span(outer)
        except ValueError as error:
            raise Invalid(f"invalid hostPort: {outer} in {spec}: {error}") from None
        if first != last and high - low != last - first:
            raise Invalid(
                f"invalid ranges specified for container and host Ports: {inner} and {outer}: "
                f"{last - first + 1} and {high - low + 1} ports; make them equally long"
            )
    for offset in range(last - first + 1):
        if not outer:
            host = ""
        elif first == last and low != high:
            host = f"{low}-{high}"
        else:
            host = str(low + offset)
        yield f"{first + offset}/{protocol}", {"HostIp": address, "HostPort": host}


def _address(text: str, spec: str) -> str:
    """The host address of a spec, without brackets. Brackets are for IPv6 alone; empty means all addresses."""
    if not text:
        return ""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        address = None
    if address is None or (bare != text and address.version == 4):
        raise Invalid(f"invalid IP address: {text} in {spec}: give an address of this host, IPv6 in brackets")
    return bare


def _protocol(spec: str) -> tuple[str, str]:
    """Cut the protocol off: ("8080:80", "tcp")."""
    text, slash, protocol = spec.rpartition("/")
    if not slash:
        return spec, "tcp"
    if protocol.lower() not in PROTOCOLS:
        raise Invalid(f"invalid proto: {protocol} in {spec}: it is one of {', '.join(PROTOCOLS)}")
    return text, protocol.lower()


def _short_form(spec: str) -> str:
    """The long form, key=value separated by commas, as [published:]target/protocol."""
    values = {"protocol": "tcp"}
    for part in spec.split(","):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise Invalid(f"invalid publish opts format (should be name=value but got '{part}')")
        key = key.strip().lower()
        if key not in ("published", "target", "protocol", "mode"):
            raise Invalid(f"invalid field {key!r} in {spec}: the fields are published, target, protocol")
        values[key] = value.strip()
    if "target" not in values:
        raise Invalid(f"no port specified: {spec} has no target=PORT")
    host = f"{values['published']}:" if "published" in values else ""
    return f"{host}{values['target']}/{values['protocol']}"
