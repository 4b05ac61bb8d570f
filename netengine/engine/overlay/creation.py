"""What a new overlay network is made of. Pure: what there is already is handed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_network

from netengine.cluster.records import ClusterRecord
from netengine.drivers import OverlayDriver, endpoint_options
from netengine.engine import subnets
from netengine.engine.addresses import Addresses
from netengine.engine.core import new_id, now
from netengine.engine.requests import NetworkRequest
from netengine.errors import Invalid
from netengine.ipam import AddressPool, check_ipam_config, ula_pool
from netengine.ipam.pools import Network as Prefix
from netengine.ipam.pools import PoolLike
from netengine.ipam.rules import IpamEntry
from netengine.model import Network

_DRIVER = OverlayDriver()


def drafter(
    request: NetworkRequest, cluster: ClusterRecord, avoid: Sequence[Prefix]
) -> tuple[Callable[[list[Network]], Network], list[str]]:
    """A function from all overlay networks that there are to a new one, complete but for its VNI; and warnings, which it fills.

    `avoid` are subnets that are not chosen, because this host uses them otherwise; the user may still name one. The function
    raises Invalid and Forbidden.
    """
    entries = (request.ipam.config or []) if request.ipam else []
    configs = check_ipam_config(
        [IpamEntry(c.subnet, c.ip_range, c.gateway, c.auxiliary_addresses or {}) for c in entries]
    )
    if request.ipam is not None and request.ipam.driver not in ("", "default"):
        raise Invalid(f"the IPAM driver {request.ipam.driver} is for networks of one host: leave --ipam-driver out")
    pools: list[PoolLike] = [AddressPool(ip_network(pool), cluster.subnet_size) for pool in cluster.pools]
    pools.append(ula_pool(cluster.id))
    warnings: list[str] = []

    def draft(others: list[Network]) -> Network:
        network = Network(
            id=new_id(),
            name=request.name,
            driver=_DRIVER.name,
            created=now(),
            scope="swarm",
            internal=request.internal,
            attachable=request.attachable,
            config_from=request.config_from.network if request.config_from else "",
            labels=request.labels or {},
            options=dict(request.options or {}),
            ipam_options=(request.ipam.options or {}) if request.ipam else {},
        )
        subnets.families(network, request.enable_ipv4, request.enable_ipv6)
        endpoint_options.check_network(network.options)
        _DRIVER.settle(network, others, 0)
        network.subnets, warnings[:] = subnets.choose(
            network, configs, pools=pools, others=others, routes=avoid, adopted=True
        )
        Addresses().add(network)  # which decides the gateways
        return network

    return draft, warnings
