"""The model: networks, endpoints, containers. Plain data, as it is stored; no behaviour beyond reading itself.

What a client sends and is shown again (`ContainerConfig`, `HostConfig`, `EndpointSettings`) keeps the field names of the
Docker Engine API (v1.51) on the wire. The engine is the only one that changes these objects.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import field

JsonDict = dict[str, Any]


class Subnet(msgspec.Struct, kw_only=True):
    """One address pool of a network, of either family, every value decided: `subnet` and `ip_range` in CIDR, `gateway` ""
    for none."""

    subnet: str
    ip_range: str = ""
    gateway: str = ""
    aux: dict[str, str] = field(default_factory=dict)
    chosen: bool = False
    """Whether netengine chose the subnet from the default pools."""

    @property
    def version(self) -> Literal[4, 6]:
        return 6 if ":" in self.subnet else 4

    @property
    def family(self) -> Literal["ip", "ip6"]:
        """As nftables calls it."""
        return "ip6" if ":" in self.subnet else "ip"


class BridgeSettings(msgspec.Struct, kw_only=True):
    """What the bridge driver decided when the network was created."""

    link: str
    mac: str
    mtu: int
    adopted: bool = False
    """The bridge was there before: it is used, and neither changed nor deleted."""
    has_address: bool = False
    """An adopted bridge that has the IPv4 gateway's address already."""
    has_address6: bool = False
    """The same for IPv6."""
    icc: bool = True
    masquerade: bool = True
    gateway_modes: dict[str, str] = field(default_factory=dict)
    """nat, nat-unprotected, routed or isolated, by family ("ip", "ip6"); nat where none is named."""
    trusted: list[str] = field(default_factory=list)
    """Interfaces of the host by which published ports are reached directly."""
    inhibit_ipv4: bool = False
    """The bridge gets no IPv4 address."""
    sources: dict[str, str] = field(default_factory=dict)
    """By family: the address under which packets leave the host, in place of masquerading."""
    anti_spoof: bool = False
    """Containers may only speak for themselves: with their own MAC and IP addresses."""
    direct: bool = False
    """The daemon's allow-direct-routing: published ports are reached directly too."""
    container_gateway: str = ""
    """The IPv4 default gateway of containers where it is not the bridge itself."""
    container_gateway6: str = ""
    """The same for IPv6."""
    steady_macs: bool = False
    """So far every endpoint got the MAC that goes with its address. Ends when a user gives one, and then for good."""
    host_binding: str = ""
    """Where ports are published that name no address; "" for the daemon's default."""


class ParentSettings(msgspec.Struct, kw_only=True):
    """What the macvlan and ipvlan drivers decided when the network was created."""

    link: str
    """The parent: the link of the host on whose wire the endpoints are."""
    mode: str
    flag: str = ""
    """ipvlan only."""
    mtu: int = 0
    """Bytes; 0 for the parent's."""
    trunk: str = ""
    """The parent is an 802.1Q sub-interface of ours: of this link, with the tag `vid`."""
    vid: int = 0
    own: bool = False
    """No parent was given: the parent is a wire of ours that leads nowhere."""
    host_link: str = ""
    """The host's own link on the network, by which it and its containers reach each other; "" for none."""


class OverlaySettings(msgspec.Struct, kw_only=True):
    """What the overlay driver decided when the network was created: the same on all hosts. What differs from host to host is
    in drivers.overlay.Underlay."""

    link: str
    """The bridge on each host that has a container there."""
    vxlan: str
    """The VXLAN link, a port of that bridge."""
    mac: str
    """The bridge's."""
    vni: int = 0
    """The VXLAN network identifier, 1 to 2^24-1; 0 until the cluster has given it one."""
    mtu: int = 0
    """Bytes, inside; 0 for what each host's underlay leaves."""
    encrypted: bool = False
    """VXLAN goes between hosts inside WireGuard."""


class Network(msgspec.Struct, kw_only=True):
    """A network. `driver` is one of those in netengine.drivers."""

    id: str
    name: str
    driver: str
    created: str
    scope: str = "local"
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: str = ""
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    ipam_driver: str = "default"
    ipam_options: dict[str, str] = field(default_factory=dict)
    subnets: list[Subnet] = field(default_factory=list)
    template: list[Subnet] = field(default_factory=list)
    """Of a configuration network: what networks made from it get, as it was given and with nothing decided."""
    bridge: BridgeSettings | None = None
    parent: ParentSettings | None = None
    overlay: OverlaySettings | None = None
    predefined: bool = False


class PublishedPort(msgspec.Struct, kw_only=True, frozen=True):
    """A port of the host that leads to a port of the container. `host_port` is the one that was really taken; 0 where the
    network is routed, and the container is reached by its own address."""

    host_ip: str
    host_port: int
    container_port: int
    protocol: str


class DhcpLease(msgspec.Struct, kw_only=True, frozen=True):
    """What a DHCP server granted an endpoint. `address` is in CIDR, `gateway` "" for none, `servers` are name servers;
    `server` and `server_mac` say who it was; `seconds` is the lease's time from `obtained` (seconds since the machine's
    start) on, -1 for ever."""

    address: str
    gateway: str = ""
    servers: tuple[str, ...] = ()
    server: str = ""
    server_mac: str = ""
    seconds: int = 0
    obtained: float = 0.0


class Endpoint(msgspec.Struct, kw_only=True):
    """A live connection of a sandbox to a network. `address` (IPv4) and `address6` are in CIDR, the gateways are plain
    addresses, each "" for none; `link` is the interface in the sandbox."""

    id: str
    network_id: str
    container_id: str
    sandbox_id: str
    address: str = ""
    gateway: str = ""
    address6: str = ""
    gateway6: str = ""
    mac: str = ""
    link: str = ""
    host_link: str = ""
    dhcp: DhcpLease | None = None
    """Where the address comes from, on a network that leaves that to a DHCP server."""
    link_local: list[str] = field(default_factory=list)
    """Further addresses from the link-local ranges, in CIDR."""
    steady_mac: bool = False
    """The MAC goes with the IPv4 address, and whoever had that before had the same MAC: there is nothing to announce."""
    sysctls: dict[str, str] = field(default_factory=dict)
    """Values that were asked for, by path, with IFNAME in place of the link's name."""
    rate_in: int = 0
    """Bits per second to the container; 0 for no limit. `rate_out`: from it."""
    rate_out: int = 0

    @property
    def ip(self) -> str:
        """The IPv4 address without its prefix length."""
        return self.address.partition("/")[0]

    @property
    def ip6(self) -> str:
        """The IPv6 address without its prefix length."""
        return self.address6.partition("/")[0]


class IpamWish(msgspec.Struct, kw_only=True):
    """EndpointIPAMConfig: the addresses that a user asked for."""

    ipv4_address: str = field(default="", name="IPv4Address")
    ipv6_address: str = field(default="", name="IPv6Address")
    link_local_ips: list[str] | None = field(default=None, name="LinkLocalIPs")


class EndpointSettings(msgspec.Struct, kw_only=True, rename="pascal"):
    """What a user asked for of one endpoint (EndpointSettings of the API, its configuration half)."""

    ipam_config: IpamWish | None = field(default=None, name="IPAMConfig")
    links: list[str] | None = None
    aliases: list[str] | None = None
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    mac_address: str = ""
    # Sent back by clients that copy an inspected container; the operational half is never taken from a request.
    network_id: str = field(default="", name="NetworkID")
    endpoint_id: str = field(default="", name="EndpointID")
    gateway: str = ""
    ip_address: str = field(default="", name="IPAddress")
    ip_prefix_len: int = field(default=0, name="IPPrefixLen")
    ipv6_gateway: str = field(default="", name="IPv6Gateway")
    global_ipv6_address: str = field(default="", name="GlobalIPv6Address")
    global_ipv6_prefix_len: int = field(default=0, name="GlobalIPv6PrefixLen")
    dns_names: list[str] | None = field(default=None, name="DNSNames")


class Attachment(msgspec.Struct, kw_only=True):
    """A container's wish to be on a network, kept whether it runs or not."""

    network_id: str
    aliases: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    driver_opts: dict[str, str] = field(default_factory=dict)
    gw_priority: int = 0
    ip: str = ""
    ip6: str = ""
    link_local_ips: list[str] = field(default_factory=list)
    """More addresses, of either family's link-local range, without a prefix length."""
    mac: str = ""


class PortBinding(msgspec.Struct, kw_only=True, rename="pascal"):
    """One way to reach a container's port from the host. `host_port` may be "", "0", "8080" or "8080-8090"."""

    host_ip: str = ""
    host_port: str = ""


class RestartPolicy(msgspec.Struct, kw_only=True, rename="pascal"):
    name: str = ""
    maximum_retry_count: int = 0


class ContainerConfig(msgspec.Struct, kw_only=True, rename="pascal"):
    """Config of the API: what runs in the container."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, JsonDict] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    image: str = ""
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool = False
    mac_address: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None


class HostConfig(msgspec.Struct, kw_only=True, rename="pascal"):
    """HostConfig of the API: how the container meets the host. Fields that netengine does not have are refused or named
    in Warnings by api/ before they come here."""

    binds: list[str] | None = None
    network_mode: str = "default"
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    publish_all_ports: bool = False
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    auto_remove: bool = False
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    links: list[str] | None = None
    privileged: bool = False
    readonly_rootfs: bool = False
    sysctls: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    mounts: list[JsonDict] | None = None
    pid_mode: str = ""
    ipc_mode: str = ""
    uts_mode: str = field(default="", name="UTSMode")
    memory: int = 0
    nano_cpus: int = 0
    pids_limit: int | None = None
    console_size: list[int] | None = None
    shm_size: int = 0
    group_add: list[str] | None = None
    security_opt: list[str] | None = None


class PolicyEnd(msgspec.Struct, kw_only=True, frozen=True):
    """One end of a policy, by name: `kind` is container, network, or any (then without a name)."""

    kind: str
    name: str = ""


class Policy(msgspec.Struct, kw_only=True):
    """Who may (`action` allow) or may not (deny) open connections to whom."""

    id: str
    created: str
    action: str
    source: PolicyEnd
    target: PolicyEnd
    protocol: str = ""
    """tcp, udp, sctp, icmp; "" for all."""
    low: int = 0
    high: int = 65535
    """The ports of the target, first and last; 0 to 65535 for all of the protocol."""


class ContainerState(msgspec.Struct, kw_only=True):
    """Where a container is in its life. Times are RFC 3339 in UTC; "" is never."""

    status: str = "created"
    """created, running, paused, exited"""
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = ""
    finished_at: str = ""
    restart_count: int = 0
    stopped_by_user: bool = False


class Container(msgspec.Struct, kw_only=True):
    """A container: a sandbox and, unless its image is `sandbox`, a process in it."""

    id: str
    name: str
    created: str
    image: str
    image_id: str
    config: ContainerConfig
    host_config: HostConfig
    attachments: dict[str, Attachment] = field(default_factory=dict)
    """By network id."""
    state: ContainerState = field(default_factory=ContainerState)
    sandbox_id: str = ""
    """The namespace in the run directory; another container's with network mode container:X; "" with host, or when stopped."""
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    """By network id; only while the sandbox exists."""
    ports: list[PublishedPort] = field(default_factory=list)

    @property
    def running(self) -> bool:
        return self.state.status in ("running", "paused")
