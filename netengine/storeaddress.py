"""The value of `store`: where an etcd is that a cluster uses and does not run itself.

    etcd://HOST[:PORT][,HOST[:PORT]...][/PREFIX]        over TLS
    etcd+http://...                                     in the clear, because somebody has said so

A leaf: what is done with the address is said in cluster/access.py.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address

import msgspec

from netengine.errors import Invalid
from netengine.values import quote, string

PORT = 2379
"""Of etcd's clients, registered with IANA."""

_SCHEMES = {"etcd": "https", "etcd+http": "http"}
_MOST = 16  # members that may be named
_HOST = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)
_PREFIX = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._-]{0,62}){1,8}")
_WANTED = "etcd://HOST:PORT[,HOST:PORT...][/PREFIX], such as etcd://192.0.2.10:2379/production"


class StoreAddress(msgspec.Struct, frozen=True):
    """The members' URLs, all http or all https; and what all keys of a cluster begin with: "" or "/NAME", no slash after it."""

    urls: tuple[str, ...]
    prefix: str = ""

    def __str__(self) -> str:
        scheme = "etcd" if self.is_encrypted else "etcd+http"
        return f"{scheme}://{','.join(url.partition('://')[2] for url in self.urls)}{self.prefix}"

    @property
    def is_encrypted(self) -> bool:
        return self.urls[0].startswith("https:")


def parse(value: object) -> StoreAddress:
    """Raises Invalid. A password that was written into the address is not repeated in the message."""
    text = string(value, _WANTED)
    scheme, separator, rest = text.partition("://")
    if "@" in rest:
        raise Invalid("the address holds a user or password; give them with store-user and store-password-file")
    if not separator or scheme not in _SCHEMES:
        raise Invalid(f"{quote(text)} is not {_WANTED}; etcd+http:// is for an etcd without TLS")
    hosts, slash, prefix = rest.partition("/")
    prefix = f"/{prefix}".rstrip("/") if slash else ""
    if prefix and not _PREFIX.fullmatch(prefix):
        raise Invalid(
            f"{quote(prefix)} is not a prefix: letters, digits, '.', '_' and '-', in parts of at most 63 after slashes"
        )
    if "/netengine/v1/" in f"{prefix}/":
        raise Invalid(
            f"{quote(prefix)} is not a prefix for a cluster: /netengine/v1 is where another one keeps its keys"
        )
    members = tuple(dict.fromkeys(_member(member) for member in hosts.split(",")))
    if len(members) > _MOST:
        raise Invalid(f"{len(members)} members are named; {_MOST} at most are of use")
    return StoreAddress(tuple(f"{_SCHEMES[scheme]}://{member}" for member in members), prefix)


def _member(text: str) -> str:
    """HOST:PORT whole, IPv6 in brackets."""
    host, port = text, str(PORT)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else port if not rest else ""
        host = f"[{_ipv6(host, text)}]" if bracket else ""
    elif ":" in text:
        host, _, port = text.partition(":")
    number = int(port) if re.fullmatch("[0-9]{1,5}", port) else 0
    if not 0 < number < 65536 or not (host.startswith("[") or _HOST.fullmatch(host)):
        raise Invalid(f"{quote(text)} is no member of etcd: write HOST or HOST:PORT, IPv6 as [ADDRESS]:PORT")
    return f"{host}:{number}"


def _ipv6(host: str, text: str) -> str:
    try:
        return str(IPv6Address(host))
    except ValueError:
        raise Invalid(f"{quote(text)} is no member of etcd: {quote(host)} is not an IPv6 address") from None
