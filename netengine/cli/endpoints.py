"""The network flags of `run` and `create` as the API's NetworkMode and EndpointsConfig. Pure."""

from __future__ import annotations

from netengine.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netengine.cli.engine import Json
    from netengine.cli.flags import Options

_FIELDS = ("name", "alias", "ip", "ip6", "mac-address", "link-local-ip", "driver-opt", "gw-priority")


def attachments(options: Options) -> tuple[str, dict[str, Json]]:
    """NetworkMode and one EndpointSettings per --network, in order. The single flags (--ip, ...) belong to the first."""
    wanted = [_network(value) for value in options.many("network")] or [("default", {})]
    mode, first = wanted[0]
    single: Json = {
        "IPv4Address": options.text("ip"),
        "IPv6Address": options.text("ip6"),
        "LinkLocalIPs": options.many("link-local-ip"),
    }
    for key, value in single.items():
        if value:
            _merge(first.setdefault("IPAMConfig", {}), key, value, mode)
    for key, value in (
        ("Aliases", options.many("network-alias")),
        ("Links", options.many("link") if _user_defined(mode) else []),
        ("MacAddress", options.text("mac-address")),
    ):
        if value:
            _merge(first, key, value, mode)
    endpoints: dict[str, Json] = {}
    for name, endpoint in wanted:
        if name in endpoints:
            raise Invalid(f"network {name!r} is specified multiple times: give it once")
        endpoints[name] = endpoint
    if len(wanted) == 1 and not first and not _user_defined(mode):
        endpoints = {}  # NetworkMode alone says it, and says it for "host" and "container:x" too, which have no endpoint
    return mode, endpoints


def _merge(into: Json, key: str, value: object, network: str) -> None:
    if key in into:
        raise Invalid(f"conflicting options: {key} of network {network!r} is given in --network and by its own flag")
    into[key] = value


def _user_defined(mode: str) -> bool:
    return mode not in ("default", "bridge", "host", "none") and not mode.startswith("container:")


def _network(text: str) -> tuple[str, Json]:
    """One --network value: a plain name, or name=app,alias=web,ip=10.9.0.7,..."""
    if "=" not in text:
        if not text:
            raise Invalid("invalid network '': give the name of a network, host, none, or container:NAME")
        return text, {}
    name = ""
    endpoint: dict[str, Json] = {}
    addresses: dict[str, Json] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key, value = key.strip().lower(), value.strip()
        if not equals or key not in _FIELDS:
            raise Invalid(f"invalid field {part!r} in --network {text}: the fields are {', '.join(_FIELDS)}")
        if key == "name":
            name = value
        elif key == "alias":
            endpoint.setdefault("Aliases", []).append(value)
        elif key == "ip":
            addresses["IPv4Address"] = value
        elif key == "ip6":
            addresses["IPv6Address"] = value
        elif key == "link-local-ip":
            addresses.setdefault("LinkLocalIPs", []).append(value)
        elif key == "mac-address":
            endpoint["MacAddress"] = value
        elif key == "driver-opt":
            option, separator, setting = value.partition("=")
            if not separator:
                raise Invalid(f"invalid driver-opt {value!r} in --network {text}: write driver-opt=KEY=VALUE")
            endpoint.setdefault("DriverOpts", {})[option] = setting
        else:
            try:
                endpoint["GwPriority"] = int(value)
            except ValueError:
                raise Invalid(f"invalid gw-priority {value!r} in --network {text}: it is a whole number") from None
    if not name:
        raise Invalid(f"--network {text} names no network: add name=NETWORK")
    if addresses:
        endpoint["IPAMConfig"] = addresses
    return name, endpoint
