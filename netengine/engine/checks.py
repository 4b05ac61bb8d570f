"""What a request must satisfy before the first effect, with Docker's texts, because scripts match on them.

Pure but for reading the state: nothing is changed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_interface

from netengine.drivers import DRIVERS, endpoint_options
from netengine.drivers.base import boolean
from netengine.drivers.parents import DHCP
from netengine.engine import configurations, ports
from netengine.engine.addresses import SERIAL
from netengine.engine.core import Core
from netengine.engine.requests import NetworkRequest
from netengine.engine.sandbox import joins
from netengine.engine.state import State
from netengine.errors import Forbidden, Invalid, NotFound, Unsupported
from netengine.ipam import parse_mac
from netengine.kernel import sysctl
from netengine.kernel.sysctl import path_of
from netengine.model import Attachment, Container, ContainerConfig, EndpointSettings, HostConfig, Network

PREDEFINED = ("bridge", "host", "none", "default")
_CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
NAME_LIMIT = 255
"""Bytes in a name: a container's is also a file name under /run/netns."""

UNDEFINED = "This would result in undefined behavior"

NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
ON_A_WORKER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on "
    "a manager node or promote the current node to a manager."
)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def network_name(name: str) -> None:
    """Docker allows nearly everything; a slash, white space around or a control character only ever is a mistake."""
    if not name.strip():
        raise Invalid("invalid name: name is empty")
    if len(name.encode()) > NAME_LIMIT:
        raise Invalid(
            f"invalid network name {_shown(name)}: it has {len(name)} characters, at most {NAME_LIMIT} bytes are allowed"
        )
    if name != name.strip() or "/" in name or not name.isprintable():
        raise Invalid(
            f"invalid network name {_shown(name)}: it must not contain '/', control characters, or white space at its ends"
        )


def container_name(name: str) -> None:
    if not _CONTAINER_NAME.fullmatch(name):
        raise Invalid(f"Invalid container name ({name[:60]}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    if len(name) > NAME_LIMIT:
        raise Invalid(
            f"Invalid container name ({name[:57]}...): it has {len(name)} characters, at most {NAME_LIMIT} are allowed"
        )


def network_request(request: NetworkRequest) -> None:
    """Everything about a network request that does not depend on what exists."""
    network_name(request.name)
    if request.name in PREDEFINED:
        raise Forbidden(f"operation is not permitted on predefined {request.name} network")
    driver = request.driver or "bridge"
    if driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if request.ingress:
        raise Unsupported("an ingress network is for services, which netengine does not have yet: leave --ingress out")
    if driver != "overlay" and request.scope == "swarm":
        raise Invalid(f"networks of driver {driver} are of one host: leave --scope out, or use --driver overlay")
    if driver not in DRIVERS:
        raise NotFound(f'plugin "{driver}" not found: netengine has the network drivers {", ".join(DRIVERS)}')
    scope = "swarm" if driver == "overlay" else "local"
    if request.scope not in ("", scope):
        raise Invalid(f"invalid scope {_shown(request.scope)}: it must be {scope}")
    configurations.check(request)
    if request.ipam is not None and request.ipam.driver not in ("", "default", DHCP):
        raise NotFound(f'plugin "{request.ipam.driver}" not found: netengine has the IPAM drivers default and {DHCP}')
    for key, value in (request.ipam.options or {}).items() if request.ipam else ():
        if key != SERIAL:
            raise Invalid(f"unknown IPAM option {key!r}; known is {SERIAL}")
        boolean(SERIAL, value, default=False)


def is_user_defined(network: Network) -> bool:
    return not network.predefined


def attachable(network: Network) -> None:
    """Raise Forbidden for a network that containers cannot be connected to by hand; with Docker's text."""
    configurations.check_attachable(network)
    if network.overlay is not None and not network.attachable:
        raise Forbidden(
            f"Could not attach to network {network.name}: rpc error: code = PermissionDenied desc = network {network.name} "
            "not manually attachable (make it with --attachable)"
        )


def can_connect(state: State, container: Container, network: Network) -> None:
    """Docker's rules on what excludes what, for `network connect`."""
    attachable(network)
    mode = container.host_config.network_mode
    if network.driver == "host":
        raise Invalid("cannot connect container to host network - container must be created in host network mode")
    if mode == "host" or joins(container):
        raise Invalid(
            "container sharing network namespace with another container or host cannot be connected to any other network"
        )
    others = [state.networks[n] for n in container.attachments if n != network.id]
    if others and (network.driver == "null" or any(o.driver == "null" for o in others)):
        raise Invalid(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )
    if container.state.status == "paused":
        raise Invalid(f"container {container.name} is paused; unpause it before changing its networks")


def attachment(core: Core, network: Network, settings: EndpointSettings) -> Attachment:
    """What is asked of an endpoint, checked."""
    wish = Attachment(network_id=network.id, gw_priority=settings.gw_priority)
    ipam = settings.ipam_config
    if ipam is not None:
        wish.link_local_ips = [_link_local(network, text) for text in ipam.link_local_ips or []]
        if (ipam.ipv4_address or ipam.ipv6_address) and not is_user_defined(network):
            raise Invalid("user-specified IP address is supported on user-defined networks only")
        if ipam.ipv4_address and network.ipam_driver == DHCP:
            raise Invalid(
                f"cannot use address {ipam.ipv4_address}: on network {network.name} a DHCP server says who has which; "
                "tie it to a MAC there, and give that with --mac-address"
            )
        if ipam.ipv4_address:
            wish.ip = core.addresses.check(network, ipam.ipv4_address, 4)
        if ipam.ipv6_address:
            wish.ip6 = core.addresses.check(network, ipam.ipv6_address, 6)
    if settings.links and not is_user_defined(network):
        raise Invalid(
            "a link on the default bridge is made when the container is created, with docker run --link; "
            "for an existing container use a network of your own"
        )
    if settings.aliases and not is_user_defined(network):
        raise Invalid("network-scoped aliases are only supported for user-defined networks")
    if settings.driver_opts:
        _driver_options(network, settings.driver_opts)
        wish.driver_opts = settings.driver_opts
    if settings.mac_address:
        wish.mac = parse_mac(settings.mac_address)
        if not DRIVERS[network.driver].has_own_mac(network):
            raise Invalid(
                f"cannot use MAC address {wish.mac}: endpoints of {_of(network)} have the MAC of its parent interface"
            )
    wish.aliases = list(settings.aliases or [])
    wish.links = [_link(link) for link in settings.links or []]
    return wish


def _link_local(network: Network, text: str) -> str:
    address = ip_interface(endpoint_options.link_local(text)).ip
    if address.version == 6 and not network.enable_ipv6:
        raise Invalid(f"cannot use link-local address {address}: network {network.name} has no IPv6")
    return str(address)


def _driver_options(network: Network, options: dict[str, str]) -> None:
    if not DRIVERS[network.driver].has_addresses:
        raise Invalid(
            f"network {network.name} has no interface that endpoint option {next(iter(options))!r} could be for"
        )
    asked = endpoint_options.parse(options)
    if asked.rate_in and network.bridge is None:
        raise Invalid(
            f"cannot limit the rate to a container on network {network.name}: its driver {network.driver} has no end of the "
            f"link on the host; limit what comes from it with {endpoint_options.RATE_OUT}"
        )
    for path in asked.sysctls:
        # Every link is born with the values of `default`: what is not there will not be in a sandbox either.
        model = path.replace("/IFNAME/", "/default/")
        if path.startswith(("net/ipv4/conf/", "net/ipv6/conf/")) and sysctl.read(model) is None:
            raise Invalid(f"invalid sysctl {path.replace('/', '.')}: this kernel has no such value of an interface")


def link_names(attachments: Iterable[Attachment], container: Container | None = None) -> None:
    """That no two endpoints of a container are to have one interface name. Raises Invalid; Forbidden when a live endpoint has
    got the name from netengine."""
    seen: set[str] = set()
    for wish in attachments:
        name = endpoint_options.parse(wish.driver_opts).link
        if name and name in seen:
            raise Invalid(f"interface name {name} is asked for by two endpoints of one container; give each its own")
        seen.add(name)
        for network_id, endpoint in container.endpoints.items() if container else ():
            if name and endpoint.link == name and network_id != wish.network_id:
                raise Forbidden(f"container {container.name if container else ''} has an interface {name} already")


def _of(network: Network) -> str:
    settings = network.parent
    mode = f" in mode {settings.mode}" if settings else ""
    return f"network {network.name} ({network.driver}{mode})"


def _link(text: str) -> str:
    target, _, alias = text.partition(":")
    if not target or (":" in alias) or re.search(r"\s", text):
        raise Invalid(f"bad format for links: {_shown(text)}: give name or name:alias")
    return text


def container_request(config: ContainerConfig, host: HostConfig) -> None:
    """Config and HostConfig, as far as they do not depend on what exists."""
    ports.wishes(host.port_bindings or {}, config.exposed_ports or {}, host.publish_all_ports)
    for spec in config.exposed_ports or {}:
        ports.parse_port(spec)
    for name, value in (host.sysctls or {}).items():
        if name.startswith("net."):
            path_of(name)
        if not isinstance(value, str) or "\n" in value or "\0" in value:
            raise Invalid(f"invalid value {_shown(str(value))} of sysctl {name}")
    for entry in host.extra_hosts or []:
        _extra_host(entry)
    name_servers(host.dns or [])
    for variable in config.env or []:
        if not variable.partition("=")[0] or "\0" in variable:
            raise Invalid(f"invalid environment variable: {_shown(variable)}")
    for label, text in (("hostname", config.hostname), ("domainname", config.domainname)):
        if text and not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,62})", text):
            raise Invalid(f"invalid {label} {_shown(text)}: it has 1 to 63 letters, digits, '-', '_' or '.'")
    policy = host.restart_policy
    if policy.name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise Invalid(
            f"invalid restart policy: unknown policy {_shown(policy.name)}; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if host.auto_remove and policy.name not in ("", "no"):
        raise Invalid("can't create 'AutoRemove' container with restart policy")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise Invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    _network_mode(config, host)


def name_servers(asked: list[str]) -> list[str]:
    """The addresses of `--dns` in canonical form."""
    out = []
    for server in asked:
        try:
            address = ip_address(server)
        except ValueError:
            raise Invalid(f"invalid DNS server {_shown(server)}: give an IPv4 or IPv6 address") from None
        if address.version == 6 and address.scope_id:
            raise Invalid(f"invalid DNS server {_shown(server)}: give an address without %{address.scope_id}")
        out.append(str(address))
    return out


def _extra_host(entry: str) -> None:
    name, separator, address = entry.partition("=" if "=" in entry else ":")
    if not separator or not name or re.search(r"\s", name):
        raise Invalid(f"bad format for add-host: {_shown(entry)}: give name:address")
    if address == "host-gateway":
        return
    if not _is_address(address.removeprefix("[").removesuffix("]")):
        raise Invalid(f"invalid IP address in add-host: {_shown(address)}")


_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,15}")


def _is_address(text: str) -> bool:
    zone = text.partition("%")
    if zone[1] and not _ZONE.fullmatch(zone[2]):  # else a line of a file could be made of it
        return False
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _network_mode(config: ContainerConfig, host: HostConfig) -> None:
    mode = host.network_mode
    if mode == "container" or mode == "container:":
        raise Invalid("invalid container format container:<name|id>")
    if mode == "host" and host.links:
        raise Invalid(f"conflicting options: host type networking can't be used with links. {UNDEFINED}")
    if not mode.startswith("container:"):
        return
    for given, what in (
        (config.hostname, "hostname and the network mode"),
        (host.dns or host.dns_search or host.dns_options, "dns and the network mode"),
        (host.links, f"container type network can't be used with links. {UNDEFINED}"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (host.port_bindings or host.publish_all_ports, "port publishing and the container type network mode"),
        (config.exposed_ports, "port exposing and the container type network mode"),
        (config.mac_address, "mac-address and the network mode"),
    ):
        if given:
            raise Invalid(f"conflicting options: {what}")


def endpoint_counts(networks: list[Network]) -> None:
    """Which networks a container may be created with together, or at all."""
    for network in networks:
        attachable(network)
    if len(networks) < 2:
        return
    if any(n.driver == "host" for n in networks):
        raise Invalid("cannot connect container to host network - container must be created in host network mode")
    if any(n.driver == "null" for n in networks):
        raise Invalid(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )
