"""The host's end of WireGuard, which encrypted networks go through: its key, made when it is first needed, and changed in time.

The public half is told to the other hosts in this host's status; what they say of themselves is taken in by following.py. The
private half is in a file of the cluster's directory, and goes with it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import msgspec

from netengine.cluster.session import Session
from netengine.drivers.wireguard import PORT, Key, TunnelPeer, tunnel_of
from netengine.engine.core import Core
from netengine.engine.overlay import fabric
from netengine.errors import Invalid, NetengineError, Unavailable
from netengine.kernel import wgkeys

log = logging.getLogger(__name__)

LIFE = 12 * 3600.0
"""Seconds after which a host makes itself a new key pair, as often as Docker changes its keys."""
_LOOK = 600.0
_KEY_SIZE = 32  # bytes


class Encryption:
    """That of one session."""

    def __init__(self, core: Core, session: Session) -> None:
        self._core = core
        self._session = session
        self._file: Path = core.config.data_root / "cluster" / "wireguard.key"
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Take up the key of an earlier daemon, if there is one: what goes through its link must not be interrupted."""
        if self._file.exists() and self._session.mirror.cluster is not None:
            try:
                self._take(wgkeys.public_of(await self._core.on_kernel(wgkeys.read, self._file)))
            except NetengineError as e:
                log.error("encrypted networks have no way to other hosts: %s", e.message)

    async def ensure(self) -> None:
        """See to it that this host can have encrypted networks. Raises Unavailable, and what the kernel says."""
        async with self._changing:
            underlay = self._core.state.fabric.underlay
            if underlay is not None and underlay.tunnel is not None:
                return
            if self._session.mirror.cluster is None:
                raise Unavailable("the cluster's state is not known yet: try again in a moment")
            if not self._file.exists():
                await self._core.on_kernel(wgkeys.make, self._file)
            public = wgkeys.public_of(await self._core.on_kernel(wgkeys.read, self._file))
            async with self._core.lock:
                self._take(public)
            await self._session.describe(self._session.status)

    def _take(self, public: str) -> None:
        state, place, cluster = self._core.state, self._session.place, self._session.mirror.cluster
        underlay = state.fabric.underlay
        if underlay is None or cluster is None:
            return
        tunnel = tunnel_of(cluster.record.id, place.node_id, underlay.vtep, underlay.mtu)
        state.fabric.cluster, state.fabric.key = cluster.record.id, Key(public, str(self._file))
        state.fabric.underlay = replace(underlay, tunnel=tunnel)
        self._session.status = msgspec.structs.replace(self._session.status, wireguard_key=public, wireguard_port=PORT)

    async def run(self) -> None:
        """Change the key in time. Lasts until cancelled."""
        while True:
            await asyncio.sleep(_LOOK)
            await self.rotate_when_due()

    async def rotate_when_due(self) -> None:
        """Raises nothing."""
        try:
            if self._core.state.fabric.key is not None and time.time() - self._file.stat().st_mtime > LIFE:
                await self.rotate()
        except (NetengineError, OSError) as e:
            log.warning("the WireGuard key of this host is changed later: %s", e)

    async def rotate(self) -> None:
        """A new key pair: here first, then the others are told. Who hears of it speaks first, so that packets wait for as long
        as the store takes. Raises Unavailable before anything is done, and what the kernel says when it stays as it is."""
        async with self._changing:
            self._session.check()
            core = self._core
            state = core.state
            async with core.lock:
                before, old = fabric.common(state.fabric, state.networks, state.containers), state.fabric.key
                made = self._file.with_name(f"{self._file.name}.next")
                public = await core.on_kernel(wgkeys.make, made)
                state.fabric.key = Key(public, str(made))
                try:
                    after = fabric.common(state.fabric, state.networks, state.containers)
                    await core.on_kernel(core.kernel.apply, after, before)
                except BaseException:
                    state.fabric.key = old
                    raise
                made.replace(self._file)
                self._take(public)
            await self._session.describe(self._session.status)
            log.info("this host has a new WireGuard key")


def host_of(node: str, key: str, address: str, port: int, others: Mapping[str, TunnelPeer]) -> TunnelPeer:
    """Another host as a peer, from what it says of itself. Raises Invalid, and ValueError for what is no address."""
    try:
        size = len(base64.b64decode(key, validate=True))
    except binascii.Error:
        size = 0
    if size != _KEY_SIZE or not 0 < port < 65536:
        raise Invalid(f"its WireGuard key or port is none: {key[:60]!r}, {port}")
    for other in others.values():
        if other.public_key == key:
            raise Invalid(f"it says that it has the WireGuard key of node {other.node}")
    return TunnelPeer(node, key, str(ip_address(address)), port)
