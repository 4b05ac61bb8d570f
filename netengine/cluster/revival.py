"""A manager whose certificate has run out while it could not be renewed: it gives itself another one.

The root's key is in the store, and nobody gets to the store without a valid certificate: a cluster whose managers were all off
for longer than their certificates last could never be started again. So each manager keeps a copy of the root with its key
beside its own key. That gives nobody anything new: whoever reads a manager's disk finds the key in etcd's files, too.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from netengine.cluster.identity import Files

if TYPE_CHECKING:
    from netengine.cluster.certificates import Authority

log = logging.getLogger(__name__)


def keep(files: Files, authority: Authority) -> None:
    """On a manager, whenever it has read the root from the store. Writes only what differs."""
    content = msgspec.json.encode(authority)
    if content != files.kept_root():
        files.keep_root(content)


def kept_trust(files: Files) -> str:
    """The roots that the copy trusts, PEM: it is old if they are not the cluster's. "" without a copy that can be read."""
    authority = _kept(files)
    return authority.trust if authority else ""


def revive(files: Files, now: datetime | None = None) -> bool:
    """Whether a new certificate was made: on a manager whose own has expired, or was made by a clock that was ahead.

    Raises Conflict when the node's files are damaged. Where the root has been rotated meanwhile nothing is done: the others
    would not accept it, and are there to be joined again.
    """
    from netengine.cluster import certificates

    identity, now = files.load(), now or datetime.now(UTC)
    _, chain = files.key_and_certificate()
    said = certificates.read(chain)
    if not identity.is_manager or said.not_before <= now <= said.not_after:
        return False
    authority = _kept(files)
    if authority is None or authority.certificate not in certificates.split(files.roots()):
        return False
    key, life = certificates.make_key(), said.not_after - said.not_before - certificates.BACKDATED
    request, addresses = certificates.make_request(key), [identity.advertise_address]
    made = certificates.issue(authority, request, said.node, said.role, said.cluster, addresses, now, life)
    files.replace_certificate(key, made)
    log.warning(
        "the certificate of this manager was valid from %s to %s and could not be renewed: it has given itself a new one",
        f"{said.not_before:%Y-%m-%d %H:%M}",
        f"{said.not_after:%Y-%m-%d %H:%M} UTC",
    )
    return True


def _kept(files: Files) -> Authority | None:
    from netengine.cluster.certificates import Authority

    content = files.kept_root()
    if not content:
        return None
    try:
        return msgspec.json.decode(content, type=Authority)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("%s is damaged and is left out: %s", files.root, error)
        return None
