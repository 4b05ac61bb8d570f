"""The subnets of a new network: which families get one, which was asked for, and which is free.

Pure: what is taken and which way the host's routes lead is handed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from typing import Literal

from netengine.config import Config
from netengine.drivers import DRIVERS
from netengine.drivers.addresses import ENABLE_IPV4, ENABLE_IPV6
from netengine.drivers.base import boolean
from netengine.engine.requests import NetworkRequest
from netengine.errors import Forbidden, Invalid
from netengine.ipam import DEFAULT_POOLS, any_subnet, check_overlap, choose_subnet, ula_pool
from netengine.ipam.pools import Network as Prefix
from netengine.ipam.pools import PoolLike
from netengine.ipam.rules import IpamConfig
from netengine.model import Network, Subnet

_FAMILIES: tuple[tuple[Literal[4, 6], str], ...] = ((4, "--ipv4"), (6, "--ipv6"))


def pools_of(config: Config, identity: str) -> list[PoolLike]:
    """Where subnets are taken from that nobody asked for: default-address-pools, and for a family that these leave out
    Docker's, which for IPv6 is a prefix of unique local addresses made from the daemon's id (RFC 4193)."""
    pools: list[PoolLike] = list(config.default_address_pools)
    if not any(pool.base.version == 4 for pool in pools):
        pools += DEFAULT_POOLS
    if not any(pool.base.version == 6 for pool in pools):
        pools.append(ula_pool(identity))
    return pools


def choose(
    network: Network,
    configs: Iterable[IpamConfig],
    *,
    pools: Sequence[PoolLike],
    others: Iterable[Network],
    routes: Sequence[Prefix],
    adopted: bool = False,
) -> tuple[list[Subnet], list[str]]:
    """A subnet for each family that the network has, IPv4 first, and what the user should be told.

    `adopted`: the host's route to the subnet is the network's own. Raises Forbidden when a subnet is taken, Invalid when none
    is left.
    """
    asked = list(configs)
    shares = DRIVERS[network.driver].shares_subnets
    taken = [(n, ip_network(s.subnet)) for n in others for s in n.subnets]
    in_use = [prefix for _, prefix in taken]
    exclusive = [(n.name, prefix) for n, prefix in taken if not (shares and DRIVERS[n.driver].shares_subnets)]
    subnets: list[Subnet] = []
    warnings: list[str] = []
    for version, flag in _FAMILIES:
        mine = [c for c in asked if c.subnet.version == version]
        if not (network.enable_ipv4 if version == 4 else network.enable_ipv6):
            warnings += [f"subnet {c.subnet} is not used: the network has no IPv{version} ({flag})" for c in mine]
            continue
        if len(mine) > 1 and not shares and network.overlay is None:
            raise Forbidden(f"{network.driver} driver doesn't support multiple subnets")
        for config in mine:
            prefix = config.subnet
            if config.wildcard:
                prefix = any_subnet(prefix.prefixlen, pools=pools, in_use=in_use, routes=routes, version=version)
            else:
                check_overlap(prefix, exclusive)
                crossed = [str(r) for r in routes if r.version == version and r.overlaps(prefix)]
                if crossed and not adopted and not shares:
                    warnings.append(
                        f"subnet {prefix} overlaps the host's route to {', '.join(crossed)}, which it may hide"
                    )
            in_use.append(prefix)
            subnets.append(_subnet(config, prefix))
        if not mine:
            chosen = choose_subnet(pools, in_use=in_use, routes=routes, version=version)
            subnets.append(Subnet(subnet=str(chosen), chosen=True))
    return subnets, warnings


def _subnet(config: IpamConfig, prefix: Prefix) -> Subnet:
    return Subnet(
        subnet=str(prefix),
        ip_range=str(config.ip_range) if config.ip_range else "",
        gateway=str(config.gateway) if config.gateway else "",
        aux={name: str(address) for name, address in config.aux.items()},
        chosen=config.wildcard,
    )


def default_options(config: Config, request: NetworkRequest) -> dict[str, str]:
    """The options of a new network: those asked for over those of default-network-opts. As Docker, a network that is made from
    a configuration network takes its options from there alone."""
    given = request.options or {}
    if request.config_only or (request.config_from and request.config_from.network):
        return given
    return {**config.default_network_opts.get(request.driver or "bridge", {}), **given}


def families(network: Network, ipv4: bool | None, ipv6: bool | None) -> None:
    """Decide which families a new network has: as its flags say, else the options of that name, else IPv4 alone.

    An option that a flag overrules is taken out, so that nobody is shown what is not so.
    """
    network.enable_ipv4 = _family(network.options, ENABLE_IPV4, ipv4, default=True)
    network.enable_ipv6 = _family(network.options, ENABLE_IPV6, ipv6, default=False)
    if DRIVERS[network.driver].has_addresses and not (network.enable_ipv4 or network.enable_ipv6):
        raise Invalid("IPv4 or IPv6 must be enabled: leave --ipv4=false out, or give --ipv6")


def _family(options: dict[str, str], option: str, flag: bool | None, *, default: bool) -> bool:
    if flag is not None:
        options.pop(option, None)
        return flag
    return boolean(option, options.get(option), default=default)
