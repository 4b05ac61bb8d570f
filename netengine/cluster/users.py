"""Who may do what in the cluster's store: etcd's users and roles, one user for each node.

A node's own role lets it read what is shared and write what is its own. A manager has etcd's role `root` besides, since nothing
less lets it add members and users. The user `root`, without whom etcd knows no users, has a password that nobody keeps.
"""

from __future__ import annotations

import secrets
from typing import Literal

from netengine import failpoints
from netengine.cluster import keys
from netengine.store.etcd import Etcd

_ROOT = "root"
_PASSWORD_BYTES = 24

Permission = tuple[Literal["READ", "WRITE", "READWRITE"], str]


def user_of(node: str) -> str:
    """The name of the node's user, and of its role."""
    return f"node-{node}"


def make_password() -> str:
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def permissions(node: str) -> list[Permission]:
    """What a worker may do: the prefixes of keys.py that are its own, and to read what is shared."""
    own = (keys.status(node), keys.alive(node), keys.endpoints(node))
    return [("READ", keys.SHARED), *(("WRITE", key) for key in own)]


async def begin(etcd: Etcd, node: str, password: str) -> None:
    """Of a new cluster, whose etcd lets everybody do everything: from now on nobody may do anything but its first manager.

    `etcd` is a client without a user. Raises what the calls raise.
    """
    await etcd.add_role(_ROOT, [])
    await etcd.add_user(_ROOT, make_password())
    await etcd.give_role(_ROOT, _ROOT)
    await admit(etcd, node, password, manager=True)
    failpoints.reach("cluster: before users are demanded")
    await etcd.demand_users()


async def admit(etcd: Etcd, node: str, password: str, *, manager: bool) -> None:
    """A user for a node, or another password for the one that it has. Done again, it does no harm."""
    name = user_of(node)
    await etcd.add_role(name, permissions(node))
    await etcd.add_user(name, password)
    await etcd.give_role(name, name)
    await set_manager(etcd, node, manager)


async def set_manager(etcd: Etcd, node: str, manager: bool) -> None:
    """Promote or demote. What the node may do changes with its next call."""
    if manager:
        await etcd.give_role(user_of(node), _ROOT)
    else:
        await etcd.take_role(user_of(node), _ROOT)


async def dismiss(etcd: Etcd, node: str) -> None:
    """The node has no access any more, at once. Done again, it does nothing."""
    await etcd.remove_user(user_of(node))
    await etcd.remove_role(user_of(node))
