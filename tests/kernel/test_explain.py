"""What `explain` prints, pasted into a shell on a machine that has nothing, builds the same: packets flow, and reading the
kernel back shows what the driver rendered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from netengine.kernel.resources import HostPort, NamespaceAlias, Resource
from netengine.observe.explain import explain
from tests.kernel.machine import ALIAS_DIR, FORWARDING, RUN_DIR, Lan, Machine, box, installed, port
from tests.kernel.overlays import PEERS, TABLES, Overlay, Tunnels, site, tunnelled, underlays
from tests.kernel.packets import ping, tcp


@contextmanager
def pasted(machine: Machine, resources: frozenset[Resource]) -> Iterator[None]:
    """Run the commands as a person would, and let the kernel layer look where `ip netns add` keeps namespaces."""
    script = "set -e\n" + "\n".join(step.command for step in explain(resources))
    machine.run(installed("bash"), "-s", stdin=script)
    machine.on_kernel(RUN_DIR.rmdir)
    machine.path(RUN_DIR).symlink_to("../netns")
    yield
    machine.apply((), machine.observe(resources))
    machine.path(RUN_DIR).unlink()
    machine.on_kernel(RUN_DIR.mkdir)
    # `ip netns add` makes the directory a mount point of its own.
    machine.run("umount", "--lazy", str(ALIAS_DIR))


def test_pasted_commands_build_what_was_explained(machine: Machine, outside: Machine) -> None:
    lan = Lan(machine, options={"com.docker.network.driver.mtu": "1400"})
    plugs = lan.plug("web", 2, port(8080, 80)) | lan.plug("client", 3)
    site = FORWARDING | lan.resources | box("web") | box("client") | plugs
    with pasted(machine, site):
        # The held port is a socket of the daemon; everything else is in the kernel.
        assert machine.observe(site) == {r for r in site if not isinstance(r, HostPort)}
        web, client = machine.namespace("web"), machine.namespace("client")
        tcp(client, "10.1.0.2", 80, web)
        tcp(outside, "192.0.2.1", 8080, web, 80)
        tcp(machine, "127.0.0.1", 8080, web, 80)
        assert tcp(client, "192.0.2.2", 80, outside) == "192.0.2.1"


def test_an_isolated_port_and_an_alias(machine: Machine) -> None:
    lan = Lan(machine, options={"com.docker.network.bridge.enable_icc": "0"}, internal=True)
    site = FORWARDING | lan.resources | box("s0") | lan.plug("s0", 2) | {NamespaceAlias("web", "s0")}
    with pasted(machine, site):
        machine.run("ip", "netns", "exec", "web", "true")
        machine.path(ALIAS_DIR / "web").unlink()  # not a second namespace of this test's run directory
        assert machine.observe(site) == {r for r in site if not isinstance(r, NamespaceAlias)}


def test_an_overlay_network(make_machine: Callable[[str], Machine]) -> None:
    """Pasted on one host; the other has been built."""
    (alpha, beta), _ = site(make_machine, "alpha", "beta")
    net = Overlay([alpha, beta], underlays(2), subnets=("10.0.9.0/24", "fd00:9::/64"))
    net.join(1, "there", 11).close()
    over = TABLES | box("here") | net.endpoint(0, "here", 10) | net.resources(0)
    beta.build(net.driver.render_peer(net.network, net.peer(0, 10), net.underlays[1]))
    with pasted(alpha, over):
        assert alpha.observe(over) == over
        here = alpha.namespace("here")
        for version in (4, 6):
            assert ping(here, net.address(11, version)) == net.address(11, version)
        here.close()


def test_an_encrypted_overlay_network(
    make_machine: Callable[[str], Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{PEERS}")
    (alpha, beta), _ = site(make_machine, "alpha", "beta")
    tunnels = Tunnels([alpha, beta], tunnelled(2), tmp_path)
    beta.build(tunnels.resources(1))
    net = Overlay([alpha, beta], tunnels.underlays, options={"encrypted": ""})
    net.join(1, "there", 11).close()
    over = TABLES | tunnels.resources(0) | box("here") | net.endpoint(0, "here", 10) | net.resources(0)
    beta.build(net.driver.render_peer(net.network, net.peer(0, 10), net.underlays[1]))
    with pasted(alpha, over):
        assert alpha.observe(over) == over
        here = alpha.namespace("here")
        assert ping(here, net.address(11)) == net.address(11)
        here.close()
