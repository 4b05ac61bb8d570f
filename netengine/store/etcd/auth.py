"""Users and roles of an etcd cluster: the part of the client (client.py) that says who may do what. No connection lives here.

Source: etcd v3.4 rpc.proto, service Auth; role-based access control, https://etcd.io/docs/v3.4/op-guide/authentication/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from netengine.errors import Forbidden, NetengineError
from netengine.store.etcd.records import JsonDict, key_range


class Auth:
    """What `Etcd` can do besides keys."""

    namespace: str

    async def _call(self, path: str, body: JsonDict) -> JsonDict:
        raise NotImplementedError

    async def demands_users(self) -> bool:
        """Whether calls need a user. To be asked as nobody."""
        try:
            await self._call("/v3/auth/authenticate", {"name": "root", "password": ""})
        except NetengineError as e:
            if "authentication is not enabled" in e.message:
                return False
            if "authentication failed" not in e.message:
                raise
        return True

    async def may_make_users(self) -> bool:
        """Whether the client's user has the role root, which making users takes."""
        try:
            await self._call("/v3/auth/user/list", {})
        except Forbidden as e:
            if "permission denied" not in e.message:
                raise
            return False
        return True

    async def add_user(self, name: str, password: str) -> None:
        """A user; one that exists gets the password."""
        try:
            await self._call("/v3/auth/user/add", {"name": name, "password": password})
        except NetengineError as e:
            if "already exists" not in e.message:
                raise
            await self._call("/v3/auth/user/changepw", {"name": name, "password": password})

    async def remove_user(self, name: str) -> None:
        await self._ignoring("not found", "/v3/auth/user/delete", {"name": name})

    async def add_role(
        self, name: str, permissions: Sequence[tuple[Literal["READ", "WRITE", "READWRITE"], str]]
    ) -> None:
        """A role that may do this to the keys with these prefixes."""
        await self._ignoring("already exists", "/v3/auth/role/add", {"name": name})
        for kind, prefix in permissions:
            wanted = {"permType": kind, **key_range(self.namespace + prefix, True)}
            await self._call("/v3/auth/role/grant", {"name": name, "perm": wanted})

    async def remove_role(self, name: str) -> None:
        await self._ignoring("not found", "/v3/auth/role/delete", {"role": name})

    async def give_role(self, user: str, role: str) -> None:
        await self._call("/v3/auth/user/grant", {"user": user, "role": role})

    async def take_role(self, user: str, role: str) -> None:
        await self._ignoring("not granted", "/v3/auth/user/revoke", {"name": user, "role": role})

    async def demand_users(self) -> None:
        """From now on every call needs a user. There must be a user root with the role root."""
        await self._call("/v3/auth/enable", {})

    async def _ignoring(self, words: str, path: str, body: JsonDict) -> None:
        try:
            await self._call(path, body)
        except NetengineError as e:
            if words not in e.message:
                raise
