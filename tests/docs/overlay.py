"""What docs/overlay.md shows of an overlay network on one host: made by the driver, as commands; and its MTUs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from netengine.drivers import OverlayDriver
from netengine.drivers.overlay import mac_for, mtu_of, settings_of
from netengine.drivers.underlay import Peer, Underlay
from netengine.drivers.wireguard import Key, TunnelPeer, render_wireguard, tunnel_address, tunnel_of
from netengine.kernel.resources import Element, Resource, Sysctl, Table
from netengine.model import Network, Subnet
from netengine.observe.explain import explain

_DRIVER = OverlayDriver()
_CLUSTER, _NODES = "mlh3z2k9x0qv7t5b1c8d4w6ya", ("node-alpha", "node-beta")
_KEYS = ("lmyhJN3H8WBs1bcNCT0oDhrPZ3PpnPVzfcq4T7SBq0k=", "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8=")


def _network(encrypted: bool) -> Network:
    network = Network(id="4c1e5f0a9b7d" * 6, name="app", driver="overlay", created="", enable_ipv6=True)
    network.options = {"encrypted": ""} if encrypted else {}
    _DRIVER.settle(network, [], 1500)
    settings_of(network).vni = 4097 if encrypted else 4096
    network.subnets = [
        Subnet(subnet="10.0.1.0/24", gateway="10.0.1.1"),
        Subnet(subnet="fd00:1::/64", gateway="fd00:1::1"),
    ]
    return network


def _host(vtep: str = "192.0.2.1", mtu: int = 1500) -> Underlay:
    return Underlay(vtep, mtu, tunnel=tunnel_of(_CLUSTER, _NODES[0], vtep, mtu))


def _shown(resources: Iterable[Resource]) -> str:
    lines: list[str] = []
    for step in explain(resources):
        lines += ["", *textwrap.wrap(f"# {step.why}", 118, subsequent_indent="# "), step.command]
    return "```sh\n" + "\n".join(lines).strip() + "\n```\n"


def plain() -> str:
    """The host with a container of its own, and one on another host."""
    network, peer = _network(False), Peer(mac_for("10.0.1.3"), ("10.0.1.3", "fd00:1::3"), "192.0.2.2")
    return _shown(_DRIVER.render_network(network, _host()) | _DRIVER.render_peer(network, peer, _host()))


def encrypted() -> str:
    """What is different in an encrypted one."""
    host, network = _host(), _network(True)
    assert host.tunnel is not None
    key = Key(_KEYS[0], "/var/lib/netengine/cluster/wireguard.key")
    other = TunnelPeer(_NODES[1], _KEYS[1], "192.0.2.2")
    peer = Peer(mac_for("10.0.1.3"), ("10.0.1.3",), tunnel_address(_CLUSTER, _NODES[1]))
    out = render_wireguard(_CLUSTER, host.tunnel, key, [other])
    out |= _DRIVER.render_network(network, host) | _DRIVER.render_peer(network, peer, host)
    return _shown(
        r for r in out if not isinstance(r, Element | Sysctl | Table) and r.key[0] not in ("bridge", "neighbour")
    )


def mtus() -> list[tuple[str, ...]]:
    """Underlay, its MTU, that of a network on it, and that of an encrypted one."""
    rows = []
    for mtu in (1500, 9000):
        for name, vtep in (("IPv4", "192.0.2.1"), ("IPv6", "2001:db8::1")):
            host = _host(vtep, mtu)
            inside = (mtu_of(_network(encrypted), host) for encrypted in (False, True))
            rows.append((name, str(mtu), *map(str, inside)))
    return rows
