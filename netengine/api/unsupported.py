"""Fields of the Docker Engine API that netengine does not have: refused when leaving them out would be unsafe or change what
the user gets in a way he must know at once, named in `Warnings` when the container works without.
"""

from __future__ import annotations

from typing import Any

from netengine.errors import Invalid

_REFUSED_HOST = {
    "Devices": "devices of the host are only there with --privileged",
    "DeviceRequests": "there are no device drivers",
    "DeviceCgroupRules": "devices of the host are only there with --privileged",
    "UsernsMode": "there are no user namespaces",
    "VolumesFrom": "there are no volumes; use -v with a path of the host",
    "VolumeDriver": "there are no volumes; use -v with a path of the host",
    "CgroupParent": "containers are in netengine's own control group",
    "Isolation": "there is one kind of isolation",
}
_WARNED_HOST = (
    "CpuShares", "CpuPeriod", "CpuQuota", "CpuRealtimePeriod", "CpuRealtimeRuntime", "CpusetCpus", "CpusetMems", "CpuCount",
    "CpuPercent", "BlkioWeight", "BlkioWeightDevice", "BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps", "MemorySwap", "MemoryReservation", "MemorySwappiness", "KernelMemory", "KernelMemoryTCP",
    "OomKillDisable", "OomScoreAdj", "Ulimits", "StorageOpt", "Init", "Annotations",
    "IOMaximumIOps", "IOMaximumBandwidth", "Cgroup",
)  # fmt: skip
_WARNED_CONFIG = ("Healthcheck", "OnBuild", "Shell", "Volumes")
_NOT_GIVEN: tuple[Any, ...] = (None, "", 0, -1, False, [], {})


def check(body: dict[str, Any]) -> list[str]:
    """The warnings for a POST /containers/create body; raises Invalid for what is refused."""
    host = body.get("HostConfig") or {}
    if not isinstance(host, dict):
        raise Invalid("invalid JSON: Expected `object`, got something else - at `$.HostConfig`")
    for name, why in _REFUSED_HOST.items():
        if host.get(name) not in _NOT_GIVEN and not (name == "UsernsMode" and host[name] == "host"):
            raise Invalid(f"HostConfig.{name} is not supported by netengine: {why}")
    warnings = [f"HostConfig.{name}" for name in _WARNED_HOST if host.get(name) not in _NOT_GIVEN]
    if (host.get("Runtime") or "runc") != "runc":
        raise Invalid(f"HostConfig.Runtime {host['Runtime']!r} is not supported by netengine: it has runc")
    if (host.get("CgroupnsMode") or "private") not in ("private", "host"):
        raise Invalid(f"invalid HostConfig.CgroupnsMode {host['CgroupnsMode']!r}: it must be private or host")
    if host.get("CgroupnsMode") == "host":
        warnings.append("HostConfig.CgroupnsMode host")
    logging = host.get("LogConfig") or {}
    if isinstance(logging, dict) and (
        logging.get("Type") not in (None, "", "json-file", "local") or logging.get("Config")
    ):
        warnings.append("HostConfig.LogConfig")
    warnings += [f"Config.{name}" for name in _WARNED_CONFIG if body.get(name) not in _NOT_GIVEN]
    return [f"{name} is not supported by netengine and was ignored" for name in warnings]
