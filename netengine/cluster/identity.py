"""What a node knows of itself and its cluster, on disk under the data root: DATA-ROOT/cluster, for root alone.

    node.json   Identity: written last when a node joins, removed first when it leaves, so that a node is in a cluster or is not
    node.pem    the node's key and its certificate in one file, so that no crash can leave one without the other
    ca.pem      the roots that it trusts, one or (while the root is rotated) two

Every file is written whole or not at all, and is on the disk when the call returns. Nothing here looks into certificates.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import msgspec

from netengine import failpoints
from netengine.cluster.records import CONTROL_PORT, DATA_PATH_PORT, MANAGER, WORKER
from netengine.errors import Conflict, Invalid, NotFound, Unavailable

VERSION = 1
NODE, PEM, TRUST, ROOT = "node.json", "node.pem", "ca.pem", "root.json"


class Identity(msgspec.Struct, kw_only=True, frozen=True):
    """Addresses are IP addresses of either family; `managers` are ADDRESS:PORT of control services, IPv6 in brackets."""

    version: int = VERSION
    node: str
    cluster: str
    role: str
    name: str = ""
    """The host name under which it joined."""
    advertise_address: str
    """Where other nodes reach this one's control plane."""
    listen_address: str = "0.0.0.0"
    control_port: int = CONTROL_PORT
    data_path_address: str = ""
    """The end of its tunnels; "" for the advertise address."""
    data_path_port: int = DATA_PATH_PORT
    managers: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    """URLs of etcd's members."""
    external_store: bool = False
    """Whether `endpoints` are an etcd that the cluster does not run itself."""
    store_prefix: str = ""
    """What the cluster's keys begin with there."""
    store_roots: str = ""
    """By which its certificates are judged, PEM; "" for those that this host trusts anyway."""
    user: str = ""
    password: str = ""
    """At etcd; none where that asks for no users."""

    @property
    def is_manager(self) -> bool:
        return self.role == MANAGER

    @property
    def data_path(self) -> str:
        return self.data_path_address or self.advertise_address

    def __repr__(self) -> str:
        return f"<Identity {self.role} {self.node} of {self.cluster}>"


class Files:
    """The directory. What is kept there is secret: it is closed to all but root whenever it is written to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.node = directory / NODE
        self.pem = directory / PEM
        self.trust = directory / TRUST
        self.root = directory / ROOT

    def exists(self) -> bool:
        """Whether this host is in a cluster."""
        return self.node.exists()

    def load(self) -> Identity:
        """Raises NotFound when this host is in no cluster; Conflict when what it knows is damaged."""
        try:
            raw = self.node.read_bytes()
        except FileNotFoundError:
            raise NotFound("this host is in no cluster") from None
        except OSError as error:
            raise Conflict(f"{self.node} cannot be read: {error.strerror}") from error
        try:
            identity = msgspec.json.decode(raw, type=Identity)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._damaged(self.node, str(error)) from None
        if identity.version > VERSION:
            raise Conflict(f"{self.node} is of version {identity.version}, written by a later netengine: use that one")
        if identity.role not in (MANAGER, WORKER) or not (identity.node and identity.cluster):
            raise self._damaged(self.node, f"{identity.role!r} is no role, or an id is missing")
        for path in (self.pem, self.trust):
            text = self._text(path)
            if "-----BEGIN CERTIFICATE-----" not in text or (path == self.pem and "PRIVATE KEY-----" not in text):
                raise self._damaged(path, "it does not hold what it should")
        return identity

    def key_and_certificate(self) -> tuple[str, str]:
        """The node's private key and its certificate chain (PEM)."""
        text = self._text(self.pem)
        key, found, chain = text.partition("-----BEGIN CERTIFICATE-----")
        if not found or "PRIVATE KEY-----" not in key:
            raise self._damaged(self.pem, "it does not hold a key and then a certificate")
        return key, found + chain

    def roots(self) -> str:
        return self._text(self.trust)

    def save(self, identity: Identity, key: str, certificate: str, trust: str) -> None:
        """This host is in a cluster when this returns, and in none if it is cut short."""
        self.replace_trust(trust)
        self.replace_certificate(key, certificate)
        self.update(identity)

    def update(self, identity: Identity) -> None:
        self._write(self.node, msgspec.json.format(msgspec.json.encode(identity)))

    def replace_certificate(self, key: str, certificate: str) -> None:
        """After a renewal. While the root is rotated, new roots must be trusted first: see replace_trust."""
        self._write(self.pem, f"{key.rstrip()}\n{certificate}".encode())

    def replace_trust(self, trust: str) -> None:
        self._write(self.trust, trust.encode())

    def kept_root(self) -> bytes:
        """What keep_root was given last; nothing when there is none."""
        try:
            return self.root.read_bytes()
        except OSError:
            return b""

    def keep_root(self, content: bytes) -> None:
        """On managers alone: with nothing, the copy is removed."""
        if content:
            self._write(self.root, content)
        else:
            self.root.unlink(missing_ok=True)

    def forget(self) -> None:
        """This host is in no cluster from now on. What else is in the directory goes too; done again, it does nothing."""
        with contextlib.suppress(FileNotFoundError):
            self.node.unlink()
            _sync_directory(self.directory)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.directory)

    def _text(self, path: Path) -> str:
        try:
            return path.read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror or str(error) if isinstance(error, OSError) else "it is not text"
            raise self._damaged(path, why) from None

    def _damaged(self, path: Path, why: str) -> Conflict:
        return Conflict(
            f"{path} is damaged ({why}), so this host cannot prove which node of its cluster it is: put the file back from a "
            "backup, or leave with `docker swarm leave --force` and join again"
        )

    def _write(self, path: Path, content: bytes) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(path, content)
        except OSError as error:
            raise Unavailable(f"{path} cannot be written: {error.strerror}") from error


def write_whole(path: Path, content: bytes, owner: tuple[int, int] | None = None) -> None:
    """Replace a file by one with mode 0600, on the disk when this returns. Raises OSError."""
    failpoints.reach(f"cluster: before {path.name}")
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)  # of a write that was cut short
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)
    failpoints.reach(f"cluster: wrote {path.name}")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hosts_port(address: str) -> tuple[str, int]:
    """ADDRESS[:PORT] of a manager, as `docker swarm join` takes it; the port is 2377 by default. Raises Invalid."""
    text = address.removeprefix("tcp://")
    host, port = text, str(CONTROL_PORT)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else (rest or port)
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if (
        not host
        or not port.isascii()
        or not port.isdigit()
        or not 0 < int(port) < 65536
        or set(host) & set("/ @?#\\\"'")
    ):
        raise Invalid(
            f"{address[:80]!a} is no address of a manager: write ADDRESS or ADDRESS:PORT, IPv6 as [ADDRESS]:PORT"
        )
    return host, int(port)
