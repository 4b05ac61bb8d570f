"""The engine: everything the API can ask for, behind one object."""

from __future__ import annotations

import asyncio
import logging
import shutil
import uuid
from contextlib import suppress
from functools import partial
from pathlib import Path

from netengine.config import Config
from netengine.drivers import DRIVERS
from netengine.engine import checkup, forwarding, loading, reconcile
from netengine.engine.audit import Audit
from netengine.engine.checkup import Diagnosis
from netengine.engine.containers import Containers
from netengine.engine.core import Core
from netengine.engine.dhcp import Dhcp
from netengine.engine.events import Events
from netengine.engine.execs import Execs
from netengine.engine.files import EtcFiles
from netengine.engine.healing import Healing
from netengine.engine.names import Names
from netengine.engine.networks import Networks
from netengine.engine.overlay.overlay import Overlay
from netengine.engine.policies import Policies
from netengine.engine.publishing import Publishing
from netengine.engine.recovery import Recovery
from netengine.engine.state import State
from netengine.engine.swarm.swarm import Swarm
from netengine.kernel.host import Kernel
from netengine.kernel.observe import observe
from netengine.kernel.resources import Resource
from netengine.model import Container, Network
from netengine.runtime import ImageStore, Runtime
from netengine.store import Store

log = logging.getLogger(__name__)


class Engine:
    """One host's networks, containers and images. Used from the event loop that `start` was called on."""

    def __init__(self, config: Config) -> None:
        self.config = config
        images = ImageStore(config.data_root)
        self._core = Core(
            config=config,
            store=Store(config.data_root / "state.db", config.exec_root / "records"),
            kernel=Kernel(config.exec_root / "netns"),
            runtime=Runtime(config.data_root, config.exec_root, images=images),
            images=images,
        )
        self._core.put_back = partial(reconcile.put_back, self._core)
        self.audit = Audit(config.data_root)
        self._core.state.name_servers = tuple(map(str, config.dns))
        files = EtcFiles(config.data_root / "etc", config)
        self.images = images
        self.names = Names(self._core, config.exec_root, config.data_root / "netengine-dns.log")
        self._dhcp = Dhcp(self._core, self._readdressed)
        self.overlay = Overlay(
            self._core,
            self.names,
            make_gateway=lambda request: self.networks.create(request),
            changed=lambda container: self.containers.lifecycle.refresh_files(container),
        )
        self.containers = Containers(self._core, files, self.names, self._dhcp, self.overlay)
        refresh = self.containers.lifecycle.refresh_files
        self.networks = Networks(self._core, self.names, self._dhcp, self.overlay, refresh)
        self.policies = Policies(self._core)
        self.publishing = Publishing(self._core)
        self.execs = Execs(self._core, self.containers)
        self.swarm = Swarm(self._core, self.overlay)
        self._recovery = Recovery(self._core, self.networks, self.containers, files, self.overlay)
        self._healing = Healing(self._core, self._mended)
        self._files = files

    @property
    def state(self) -> State:
        return self._core.state

    @property
    def events(self) -> Events:
        return self._core.events

    @property
    def identity(self) -> str:
        """The id of this daemon: the same for as long as its data root is."""
        return self._core.store.setting("identity") or ""

    async def start(self) -> None:
        """Take over what is there and bring up what is missing."""
        if self._core.store.setting("identity") is None:
            with self._core.store.transaction() as t:
                t.set("identity", str(uuid.uuid4()))
        self._core.store.later = asyncio.get_running_loop().call_soon
        self._healing.listen()
        await self.swarm.prepare()
        await self._recovery.run()
        self._healing.start()
        await self.names.start()
        await self._dhcp.resume()
        await self.overlay.resume()
        self.swarm.start()

    async def close(self) -> None:
        """Stop; networks and containers run on."""
        self._core.events.close()
        self.audit.close()
        self._healing.close()
        await self.swarm.close()
        await self._dhcp.close()
        await self.overlay.close()
        await self.names.close()
        await self._core.close()

    async def _mended(self, container: Container) -> None:
        """Healing has put something right in a container's sandbox."""
        await self.names.opened(container)
        await self._dhcp.mended(container)

    async def _readdressed(self, container: Container) -> None:
        """A DHCP server has given a container an address."""
        await self.names.opened(container)
        self.containers.lifecycle.refresh_files(container)

    def pool_figures(self, network: Network) -> list[tuple[str, int, int]]:
        """(subnet, addresses in use, addresses left) of each subnet."""
        shared = self.overlay.figures(network) if network.overlay is not None else None
        return list(self._core.addresses.figures(network.id)) if shared is None else shared

    def sandbox_path(self, container: Container) -> str:
        """The file of the container's network namespace, or ""."""
        return str(self._core.kernel.ns_path(container.sandbox_id)) if container.sandbox_id else ""

    def files_of(self, container: Container) -> dict[str, str]:
        """Where the container's /etc files are on the host."""
        return self._files.paths(container)

    async def doctor(self, *, fix: bool) -> Diagnosis:
        """Compare kernel, model and store; with `fix`, make them agree."""
        return await checkup.check(self._core, fix=fix)

    def resources_of(self, reference: str) -> tuple[str, Network | Container, frozenset[Resource]]:
        """The kernel resources of a network or container: (kind, object, resources). Raises NotFound."""
        return self._recovery.resources_of(reference)


async def cleanup(config: Config) -> list[str]:
    """Remove every trace of netengine: containers, networks, links, rules, files. Answers what was removed, a line each.

    Only while no daemon runs on these directories.
    """
    roots = [path for path in (config.data_root, config.exec_root) if path.is_dir()]
    engine = Engine(config)
    core = engine._core
    done: list[str] = []
    try:
        await core.on_kernel(core.kernel.open)
        done += await engine.swarm.cleanup()
        loading.networks(core)
        await engine.names.stop()
        known = core.runtime.leftovers(())
        await core.runtime.cleanup(())
        done += [f"container {identity[:12]}" for identity in sorted(known)]
        want = {r for n in core.state.networks.values() for r in DRIVERS[n.driver].render_network(n)}
        have = await core.on_kernel(observe, core.kernel, want)
        steps = await core.on_kernel(core.kernel.apply, (), have)
        done += [" ".join(r.key) for r in steps.delete]
        done += await forwarding.turn_off(core)
    finally:
        await engine.close()
    for path in (config.data_root, config.exec_root):
        _remove_tree(path)
    return done + [f"directory {path}" for path in roots]


def _remove_tree(path: Path) -> None:
    """Remove a directory; one that is a mount point keeps its place and loses its content."""
    for entry in path.iterdir() if path.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    with suppress(OSError):
        path.rmdir()
