"""Configuration networks: `--config-only` keeps a network's settings under a name, `--config-from` makes a network of them.

A configuration network is nothing in the kernel, has no address pool and no endpoints. The refusals are Docker's.
"""

from __future__ import annotations

from netengine.engine.requests import IpamPoolRequest, IpamRequest, NetworkRequest
from netengine.engine.state import State
from netengine.errors import Forbidden, NotFound
from netengine.ipam import check_ipam_config
from netengine.ipam.rules import IpamEntry
from netengine.model import Network, Subnet


def check(request: NetworkRequest) -> None:
    """What cannot be asked of either, whatever exists. Raises Forbidden."""
    origin = request.config_from.network if request.config_from else ""
    if request.config_only:
        if request.internal or request.attachable or request.ingress or request.scope:
            raise Forbidden(
                "configuration network can only contain network specific fields. Network operator fields like "
                "[ ingress | internal | attachable | scope ] are not supported."
            )
        if origin:
            raise Forbidden("a configuration network cannot depend on another configuration network")
    elif origin:
        ipam = request.ipam or IpamRequest()
        given = ipam.driver not in ("", "default") or ipam.options or any(_is_given(c) for c in ipam.config or [])
        if given or request.enable_ipv6 or request.enable_ipv4 is False or request.labels or request.options:
            raise Forbidden(
                "user specified configurations are not supported if the network depends on a configuration network"
            )


def _is_given(config: IpamPoolRequest) -> bool:
    return config != IpamPoolRequest()


def fill(network: Network, request: NetworkRequest) -> None:
    """Make a configuration network of what was asked for. Raises Invalid."""
    network.config_only = True
    network.driver = "null"
    network.enable_ipv4 = request.enable_ipv4 is not False
    network.enable_ipv6 = bool(request.enable_ipv6)
    network.ipam_driver = (request.ipam and request.ipam.driver) or "default"
    configs = (request.ipam.config or []) if request.ipam else []
    check_ipam_config([IpamEntry(c.subnet, c.ip_range, c.gateway, c.auxiliary_addresses or {}) for c in configs])
    network.template = [
        Subnet(subnet=c.subnet, ip_range=c.ip_range, gateway=c.gateway, aux=c.auxiliary_addresses or {})
        for c in configs
        if _is_given(c)
    ]


def resolve(state: State, request: NetworkRequest) -> NetworkRequest:
    """The request with the settings of the configuration network that it names, if it does. Raises NotFound."""
    if request.config_from is None or not request.config_from.network:
        return request
    name = request.config_from.network
    origin = state.network_named(name)
    if origin is None or not origin.config_only:
        raise NotFound(
            f"configuration network {name!r} does not exist; make it with network create --config-only {name}"
        )
    pools = [
        IpamPoolRequest(
            subnet=s.subnet, ip_range=s.ip_range, gateway=s.gateway, auxiliary_addresses=dict(s.aux) or None
        )
        for s in origin.template
    ]
    return NetworkRequest(
        name=request.name,
        driver=request.driver,
        scope=request.scope,
        internal=request.internal,
        attachable=request.attachable,
        ingress=request.ingress,
        config_from=request.config_from,
        enable_ipv4=origin.enable_ipv4,
        enable_ipv6=origin.enable_ipv6,
        labels=dict(origin.labels),
        options=dict(origin.options),
        ipam=IpamRequest(driver=origin.ipam_driver, options=dict(origin.ipam_options), config=pools),
    )


def check_unused(state: State, network: Network) -> None:
    """Raise Forbidden when a network was made from this one."""
    if network.config_only:
        users = [n.name for n in state.networks.values() if n.config_from == network.name]
        if users:
            raise Forbidden(
                f'configuration network "{network.name}" is in use by {", ".join(users)}; remove that first'
            )


def check_attachable(network: Network) -> None:
    """Raise Forbidden for a configuration network: there is nothing that a container could be connected to."""
    if network.config_only:
        raise Forbidden(
            f"cannot create endpoint on configuration-only network {network.name}; make a network with "
            f"--config-from {network.name} and use that"
        )
