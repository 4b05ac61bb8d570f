"""What the engine is asked for: requests as the API decodes them, with the wire names of the Docker Engine API (v1.51)."""

from __future__ import annotations

import msgspec
from msgspec import field

from netengine.model import ContainerConfig, EndpointSettings, HostConfig, PortBinding


class IpamPoolRequest(msgspec.Struct, kw_only=True, rename="pascal"):
    subnet: str = ""
    ip_range: str = field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class IpamRequest(msgspec.Struct, kw_only=True, rename="pascal"):
    driver: str = ""
    options: dict[str, str] | None = None
    config: list[IpamPoolRequest] | None = None


class ConfigReference(msgspec.Struct, kw_only=True, rename="pascal"):
    network: str = ""


class NetworkRequest(msgspec.Struct, kw_only=True, rename="pascal"):
    """POST /networks/create."""

    name: str = ""
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool | None = field(default=None, name="EnableIPv4")
    enable_ipv6: bool | None = field(default=None, name="EnableIPv6")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    ipam: IpamRequest | None = field(default=None, name="IPAM")
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class ConnectRequest(msgspec.Struct, kw_only=True, rename="pascal"):
    """POST /networks/{id}/connect."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


class DisconnectRequest(msgspec.Struct, kw_only=True, rename="pascal"):
    """POST /networks/{id}/disconnect."""

    container: str = ""
    force: bool = False


class PublishRequest(msgspec.Struct, kw_only=True, rename="pascal"):
    """POST /netengine/containers/{id}/publish and unpublish."""

    port_bindings: dict[str, list[PortBinding] | None]


class PolicyRequest(msgspec.Struct, kw_only=True, rename="pascal"):
    """POST /netengine/policies. `source` and `target` are names, with container: or network: before them where that is in
    doubt, or any; `ports` is 5432, 5432/tcp or 8000-8010/udp."""

    action: str = ""
    source: str = field(default="", name="From")
    target: str = field(default="", name="To")
    protocol: str = ""
    ports: str = ""


class NetworkingConfig(msgspec.Struct, kw_only=True, rename="pascal"):
    endpoints_config: dict[str, EndpointSettings | None] | None = None


class ContainerRequest(ContainerConfig, kw_only=True, rename="pascal"):
    """POST /containers/create: Config with HostConfig and NetworkingConfig beside its fields."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None


class ExecRequest(msgspec.Struct, kw_only=True, rename="pascal"):
    """POST /containers/{id}/exec."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""
    console_size: list[int] | None = None


class ExecStart(msgspec.Struct, kw_only=True, rename="pascal"):
    """POST /exec/{id}/start."""

    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None
