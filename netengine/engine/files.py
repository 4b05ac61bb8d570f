"""The three files that tell a container who and where it is: /etc/hostname, /etc/hosts, /etc/resolv.conf.

They live in the container's directory under the data root and are bind-mounted into it. A file that the container's owner has
edited is recognised by its content and left alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from netengine.config import Config
from netengine.kernel.nameservice import ADDRESS
from netengine.model import Container

HOST_RESOLV_CONF = Path("/etc/resolv.conf")
RESOLVED_RESOLV_CONF = Path("/run/systemd/resolve/resolv.conf")
"""systemd-resolved's list of real servers, for when /etc/resolv.conf names only its stub on 127.0.0.53."""

_FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")
_FALLBACK_SERVERS_V6 = ("2001:4860:4860::8888", "2001:4860:4860::8844")
_MOST_LINKS = 40
"""Links after which the kernel, too, gives up a path."""

_MADE_BY = "# made by netengine; edit it and netengine leaves it alone, sum "


def hostname_of(container: Container) -> str:
    return container.config.hostname or container.id[:12]


def hosts(
    container: Container, host_gateways: Iterable[str], linked: Iterable[tuple[str, str]] = (), *, ipv6: bool = True
) -> str:
    """/etc/hosts: the container's own names on each of its addresses, what --add-host asked for, and `linked` containers
    (address, names). `host_gateways` is what the word host-gateway stands for; `ipv6`: its `lo` has an IPv6 address."""
    lines = ["127.0.0.1\tlocalhost"] + ["::1\tlocalhost ip6-localhost ip6-loopback"] * ipv6
    name = hostname_of(container)
    domain = container.config.domainname
    own = f"{name}.{domain} {name}" if domain else name
    lines += [f"{address}\t{own}" for e in container.endpoints.values() for address in (e.ip, e.ip6) if address]
    for entry in container.host_config.extra_hosts or []:
        host, _, address = entry.partition("=" if "=" in entry else ":")
        addresses = host_gateways if address == "host-gateway" else [address.strip("[]")]
        lines += [f"{each}\t{host}" for each in addresses]
    lines += [f"{address}\t{names}" for address, names in linked]
    return "".join(f"{line}\n" for line in lines)


def resolv_conf(container: Container, config: Config, host_text: str, embedded: bool) -> str:
    """The host's resolv.conf without its loopback servers, each part replaced by what the container or daemon.json says.

    With the `embedded` name server, that is the only one named; it knows the others.
    """
    asked = container.host_config
    servers, search, options = _parse(host_text)
    has_ipv6 = any(e.address6 for e in container.endpoints.values())
    fallback = [*_FALLBACK_SERVERS, *(_FALLBACK_SERVERS_V6 if has_ipv6 else ())]
    servers = list(asked.dns or config.dns) or [s for s in servers if not _is_loopback(s)] or fallback
    search = list(asked.dns_search or config.dns_search) or search
    options = list(asked.dns_options or config.dns_opts) or options
    if embedded:
        servers = [ADDRESS]
        if not any(o.startswith("ndots:") for o in options):
            options.append("ndots:0")
    lines = [f"nameserver {server}" for server in servers]
    if search and search != ["."]:
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "".join(f"{line}\n" for line in lines)


def host_resolv_conf() -> str:
    """The text of the resolv.conf that names the host's real servers."""
    try:
        text = HOST_RESOLV_CONF.read_text(errors="replace")
        if _parse(text)[0] == ["127.0.0.53"] and RESOLVED_RESOLV_CONF.exists():
            return RESOLVED_RESOLV_CONF.read_text(errors="replace")
        return text
    except OSError:
        return ""


def resolvers() -> list[str]:
    """The servers that the host itself asks. A word that is no address is none, as to the C library (resolv.conf(5))."""
    try:
        return [s for s in _parse(HOST_RESOLV_CONF.read_text(errors="replace"))[0] if _is_address(s)]
    except OSError:
        return []


def resolv_conf_directories() -> set[Path]:
    """Where a change of the host's resolv.conf shows: its directory, and those of the links that it may be.

    systemd-resolved, NetworkManager and resolvconf keep the file under /run and let /etc/resolv.conf point there.
    """
    out, path = set(), HOST_RESOLV_CONF
    for _ in range(_MOST_LINKS):
        parent = path.parent
        out.add(next(p for p in (parent, *parent.parents) if p.is_dir()))
        if not path.is_symlink():
            break
        path = parent / path.readlink()
    return out


def _parse(text: str) -> tuple[list[str], list[str], list[str]]:
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        match line.split("#")[0].split(";")[0].split():
            case ["nameserver", server, *_]:
                servers.append(server)
            case ["search", *domains]:
                search = domains
            case ["options", *words]:
                options += words
    return servers, search, options


def _is_address(server: str) -> bool:
    try:
        ip_address(server)
    except ValueError:
        return False
    return True


def _is_loopback(server: str) -> bool:
    try:
        return ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return True


def write(path: Path, text: str, marked: bool = False) -> None:
    """Write a file in place: a bind mount shows the file it was made from, so it must not be replaced by another.

    A `marked` file carries a checksum of what was written, and is not written again once it has another content.
    """
    if marked:
        if path.exists() and not _is_unedited(path.read_text(errors="replace")):
            return
        text = f"{_MADE_BY}{_sum(text)}\n{text}"
    path.parent.mkdir(mode=0o710, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(fd, "w") as f:
        f.write(text)
        os.fchmod(f.fileno(), 0o644)


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_unedited(text: str) -> bool:
    first, _, rest = text.partition("\n")
    return not text or first == f"{_MADE_BY}{_sum(rest)}"


class EtcFiles:
    """The files of all containers under one directory."""

    def __init__(self, directory: Path, config: Config) -> None:
        self._directory = directory
        self._config = config

    def paths(self, container: Container) -> dict[str, str]:
        """Where each file is on the host, by its path in the container."""
        base = self._directory / container.id
        return {f"/etc/{name}": str(base / name) for name in ("hostname", "hosts", "resolv.conf")}

    def refresh(
        self,
        container: Container,
        host_gateways: Iterable[str],
        linked: Iterable[tuple[str, str]] = (),
        *,
        embedded: bool,
        ipv6: bool,
    ) -> None:
        """Write what has changed: at start, and when an endpoint, or a linked container's, comes or goes. `embedded`: the
        sandbox has a name server; `ipv6`: its `lo` has an IPv6 address."""
        base = self._directory / container.id
        write(base / "hostname", f"{hostname_of(container)}\n")
        write(base / "hosts", hosts(container, host_gateways, linked, ipv6=ipv6), marked=True)
        write(base / "resolv.conf", resolv_conf(container, self._config, host_resolv_conf(), embedded), marked=True)

    def remove(self, container: Container) -> None:
        """Remove the files of a container that is removed."""
        base = self._directory / container.id
        for name in ("hostname", "hosts", "resolv.conf"):
            (base / name).unlink(missing_ok=True)
        if base.is_dir() and not any(base.iterdir()):
            base.rmdir()

    def leftovers(self, known: Iterable[str]) -> list[Path]:
        """Directories of containers that are not known."""
        if not self._directory.is_dir():
            return []
        names = set(known)
        return [path for path in self._directory.iterdir() if path.name not in names]
