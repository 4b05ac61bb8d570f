"""What a POST /containers/create of an older API version means today, as Docker reads it."""

from __future__ import annotations

from netengine.drivers.endpoint_options import SYSCTLS
from netengine.engine.requests import ContainerRequest, NetworkingConfig
from netengine.errors import Invalid
from netengine.model import EndpointSettings

_SEVERAL_ENDPOINTS, _GATEWAY_PRIORITY, _NO_INTERFACE_SYSCTLS = (1, 44), (1, 48), (1, 48)
"""The API versions that brought these."""


def honour(asked: ContainerRequest, version: tuple[int, int]) -> list[str]:
    """Read the request as a client of that version meant it; answer warnings. Raises Invalid."""
    endpoints = (asked.networking_config.endpoints_config or {}) if asked.networking_config else {}
    if version < _SEVERAL_ENDPOINTS and len(endpoints) > 1:
        raise Invalid("Container cannot be created with multiple network endpoints: " + ", ".join(sorted(endpoints)))
    if version < _GATEWAY_PRIORITY:
        for settings in endpoints.values():
            if settings is not None:
                settings.gw_priority = 0
    return _interface_sysctls(asked, version)


def _interface_sysctls(asked: ContainerRequest, version: tuple[int, int]) -> list[str]:
    """`--sysctl net.ipv4.conf.eth0.…` names an interface that is only known once the endpoint is. As Docker: clients of API
    1.47 and older get it moved to the main endpoint's options, newer ones are told to do that themselves."""
    host = asked.host_config
    if host is None or host.network_mode == "host" or host.network_mode.startswith("container:"):
        return []
    split = {name: name.split(".", 4) for name in host.sysctls or {}}
    found = {n: p for n, p in split.items() if len(p) == 5 and p[0] == "net" and p[3].startswith("eth")}
    if not found:
        return []
    name, parts = next(iter(found.items()))
    if version >= _NO_INTERFACE_SYSCTLS:
        raise Invalid(
            f"interface specific sysctl setting {name!r} must be supplied using driver option '{SYSCTLS}', with IFNAME "
            "for the interface's name"
        )
    for name, parts in found.items():
        if parts[3] != "eth0":
            raise Invalid(
                f"unable to determine network endpoint for sysctl {name}, use driver option '{SYSCTLS}' to set "
                "per-interface sysctls"
            )
    config = asked.networking_config = asked.networking_config or NetworkingConfig()
    endpoints = config.endpoints_config = config.endpoints_config or {}
    mode = host.network_mode or "default"
    if endpoints and mode not in endpoints:
        raise Invalid(
            f"unable to find a network for sysctl {name}: HostConfig.NetworkMode must match the identity of a network in "
            "NetworkSettings.Networks"
        )
    settings = endpoints[mode] = endpoints.get(mode) or EndpointSettings()
    options = settings.driver_opts = dict(settings.driver_opts or {})
    moved = [f"net.{p[1]}.{p[2]}.IFNAME.{p[4]}={(host.sysctls or {})[n]}" for n, p in found.items()]
    options[SYSCTLS] = ",".join([*filter(None, [options.get(SYSCTLS)]), *moved])
    host.sysctls = {n: value for n, value in (host.sysctls or {}).items() if n not in found}
    return [f"Migrated {', '.join(found)} to DriverOpts{{ {SYSCTLS!r}: {','.join(moved)!r} }}."]
