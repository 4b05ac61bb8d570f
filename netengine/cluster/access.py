"""How a node reaches its cluster's store: the etcd that the managers run, or one of the user's own, outside of the cluster.

Of an outside one a host's configuration says where it is, and which certificate to show to it; what a host was not told it
hears from the manager that lets it in. Everything that differs between the two kinds of store in a connection is said here.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from netengine.cluster import tls
from netengine.cluster.identity import Files, Identity
from netengine.errors import Invalid
from netengine.store.etcd import Etcd

_FILE_LIMIT = 32 << 10  # bytes; roots go to joiners in their admission (protocol.STRANGER_LIMIT)
_BEGIN = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Outside:
    """What this host's configuration says of an etcd of the user's own; nothing of it need be said."""

    urls: tuple[str, ...] = ()
    """http or https, all of one kind."""
    prefix: str = ""
    cacert: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: str = ""
    password_file: Path | None = None

    def __str__(self) -> str:
        return shown(self.urls, self.prefix)

    def roots(self) -> str:
        """PEM; "" when the host's own are to do. Raises Invalid."""
        if self.cacert is None:
            return ""
        text = _text(self.cacert, "store-cacert")
        if _BEGIN not in text:
            raise Invalid(f"store-cacert: {self.cacert} holds no certificate (PEM)")
        return text

    def password(self) -> str:
        """Of `user`. Raises Invalid."""
        if self.password_file is None:
            return ""
        if self.password_file.exists() and self.password_file.stat().st_mode & 0o007:
            raise Invalid(
                f"store-password-file: {self.password_file} can be read by everybody: chmod 600 {self.password_file}"
            )
        found = _text(self.password_file, "store-password-file").partition("\n")[0].strip()
        if not found:
            raise Invalid(f"store-password-file: {self.password_file} has no password in its first line")
        return found


def shown(urls: Sequence[str], prefix: str = "") -> str:
    """As one says it to `--store`."""
    scheme = "etcd+http" if urls and urls[0].startswith("http:") else "etcd"
    return f"{scheme}://{','.join(url.partition('://')[2] for url in urls)}{prefix}"


def context(files: Files, identity: Identity, outside: Outside) -> ssl.SSLContext:
    """By which etcd is judged, and what it is shown. Raises Invalid, Conflict, Unavailable."""
    return outside_context(identity.store_roots, outside) if identity.external_store else tls.client_context(files)


def outside_context(roots: str, outside: Outside) -> ssl.SSLContext:
    """Raises Invalid when the files of the configuration are not what they should be."""
    try:
        made = ssl.create_default_context(cadata=roots) if roots else ssl.create_default_context()
    except ssl.SSLError as error:
        raise Invalid(f"store-cacert: its certificates cannot be read: {error.reason or error}") from error
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if outside.cert is not None and outside.key is not None:
        try:
            made.load_cert_chain(outside.cert, outside.key, password="")
        except ssl.SSLError as error:
            raise Invalid(
                f"store-cert, store-key: {outside.cert} and {outside.key} are not a certificate and its key: "
                f"{error.reason or error}"
            ) from error
        except OSError as error:
            raise Invalid(f"store-cert, store-key: {error.filename or outside.cert}: {error.strerror}") from error
    return made


def client(files: Files, identity: Identity, urls: Sequence[str], outside: Outside) -> Etcd:
    """Of the node that the identity says."""
    made = context(files, identity, outside)
    if not identity.external_store:
        return Etcd(urls, made, identity.user, identity.password, server_name=tls.MANAGER_NAME)
    return Etcd(
        urls,
        made,
        identity.user,
        identity.password,
        namespace=identity.store_prefix,
        remedy=remedy(urls, identity.store_prefix),
        foreign=True,
    )


def remedy(urls: Sequence[str], prefix: str = "") -> str:
    """What must be so for an outside store to answer."""
    return (
        f"the cluster's store is {shown(urls, prefix)}, which its managers do not run: a majority of its members must be up "
        "and reachable from this host"
    )


def stamps(outside: Outside) -> tuple[float, ...]:
    """When the files of certificate and key were changed: who renews them expects that they are used."""
    found = []
    for path in (outside.cert, outside.key):
        try:
            found.append(os.stat(path).st_mtime if path else 0.0)
        except OSError:
            found.append(0.0)
    return tuple(found)


def _text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_LIMIT + 1)
        text = content.decode("ascii")
    except OSError as error:
        raise Invalid(f"{name}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise Invalid(f"{name}: {path} is not text") from None
    if len(content) > _FILE_LIMIT:
        raise Invalid(f"{name}: {path} is larger than {_FILE_LIMIT} bytes")
    return text
