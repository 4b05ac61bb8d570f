"""From a container's configuration to what the runtime needs to start its process. Pure; nothing starts here."""

from __future__ import annotations

import socket
from pathlib import PurePosixPath

from netengine.engine.files import hostname_of
from netengine.errors import Invalid
from netengine.model import Container, ContainerConfig, HostConfig, JsonDict
from netengine.runtime import Bind, ContainerSpec, Image

SANDBOX_IMAGE = "sandbox"
"""The built-in image without a process: its containers are network namespaces only."""

DEFAULT_SHM = 64 << 20
"""Bytes of /dev/shm, as Docker's."""
NO_NEW_PRIVILEGES = "no-new-privileges"

_BIND_FLAGS = {"rw", "ro", "z", "Z", "nocopy"}
_PROPAGATIONS = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}


def words(value: list[str] | str | None) -> list[str] | None:
    """A command as docker sends it: a list, or (docker-py's shorthand, resolved by the client) one word."""
    return [value] if isinstance(value, str) else value


def command(config: ContainerConfig, image: Image) -> list[str]:
    """Entrypoint and arguments, the image's where the container has none. Raises Invalid when there is nothing to run."""
    entrypoint = words(config.entrypoint)
    arguments = words(config.cmd)
    if entrypoint is None:
        entrypoint = list(image.config.entrypoint or ())
        if not arguments:
            arguments = list(image.config.cmd or ())
    elif entrypoint == [""]:
        entrypoint = []
    args = entrypoint + (arguments or [])
    if not args:
        raise Invalid("no command specified")
    return args


def binds(host: HostConfig) -> tuple[Bind, ...]:
    """`-v` and `--mount type=bind`. Raises Invalid: named volumes are not supported."""
    out = [_bind(text) for text in host.binds or []]
    for mount in host.mounts or []:
        if mount.get("Type") == "bind":
            out.append(_mount(mount))
        elif mount.get("Type") != "tmpfs":
            raise Invalid(f"invalid mount type {mount.get('Type')!r}: netengine has bind and tmpfs mounts")
    targets = [b.target for b in out]
    for target in targets:
        if targets.count(target) > 1:
            raise Invalid(f"Duplicate mount point: {target}")
    return tuple(out)


def _bind(text: str) -> Bind:
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source.startswith("/"):
        raise Invalid(
            f"invalid volume specification {text!r}: named volumes are not supported; give an absolute path of the host"
        )
    flags = mode.split(",") if mode else []
    for flag in flags:
        if flag not in _BIND_FLAGS | _PROPAGATIONS:
            raise Invalid(
                f"invalid mode {mode!r} in volume specification {text!r}: "
                f"known are {', '.join(sorted(_BIND_FLAGS | _PROPAGATIONS))}"
            )
    propagation = next((f for f in flags if f in _PROPAGATIONS), "rprivate")
    return Bind(source, _target(target, text), "ro" in flags, propagation)


def _mount(mount: JsonDict) -> Bind:
    source, target = mount.get("Source", ""), mount.get("Target", "")
    if not isinstance(source, str) or not source.startswith("/"):
        raise Invalid(f"invalid mount source {source!r}: give an absolute path of the host")
    options = mount.get("BindOptions") or {}
    return Bind(
        source, _target(target, str(mount)), bool(mount.get("ReadOnly")), options.get("Propagation") or "rprivate"
    )


def _target(target: object, text: str) -> str:
    if not isinstance(target, str) or not target.startswith("/") or PurePosixPath(target) == PurePosixPath("/"):
        raise Invalid(f"invalid mount target in {text!r}: it must be an absolute path other than /")
    return target


def tmpfs(host: HostConfig) -> dict[str, str]:
    out = dict(host.tmpfs or {})
    for mount in host.mounts or []:
        if mount.get("Type") == "tmpfs":
            out[_target(mount.get("Target", ""), str(mount))] = ""
    return out


def _security(host: HostConfig) -> list[str]:
    return [o.removesuffix(":true").removesuffix("=true") for o in host.security_opt or []]


def check_modes(host: HostConfig) -> None:
    """Namespaces that are shared with other containers are refused: only the network's can be."""
    for option in _security(host):
        if option != NO_NEW_PRIVILEGES:
            raise Invalid(f"--security-opt {option!r} is not supported by netengine: it has {NO_NEW_PRIVILEGES} only")
    for given, allowed, flag in (
        (host.pid_mode, ("", "host", "private"), "--pid"),
        (host.ipc_mode, ("", "host", "private", "shareable"), "--ipc"),
        (host.uts_mode, ("", "host"), "--uts"),
    ):
        if given not in allowed:
            raise Invalid(f"invalid value {given!r} for {flag}: netengine has {', '.join(a for a in allowed if a)}")


def build(container: Container, image: Image, netns: str | None, files: dict[str, str]) -> ContainerSpec:
    """The specification of the container's first process in the network namespace at `netns` (None: the host's)."""
    config, host = container.config, container.host_config
    hostname = hostname_of(container)
    if netns is None and not config.hostname:
        hostname = socket.gethostname()
    return ContainerSpec(
        id=container.id,
        name=container.name,
        image_id=container.image_id,
        args=tuple(command(config, image)),
        env=tuple(config.env or ()),
        cwd=config.working_dir or image.config.working_dir,
        user=config.user,
        tty=config.tty,
        open_stdin=config.open_stdin,
        stdin_once=config.stdin_once,
        hostname=hostname,
        domainname=config.domainname,
        netns=netns,
        sysctls={k: v for k, v in (host.sysctls or {}).items() if not k.startswith("net.")},
        privileged=host.privileged,
        cap_add=tuple(host.cap_add or ()),
        cap_drop=tuple(host.cap_drop or ()),
        read_only=host.readonly_rootfs,
        binds=binds(host),
        files=files,
        tmpfs=tmpfs(host),
        pid_mode="host" if host.pid_mode == "host" else "",
        ipc_mode="host" if host.ipc_mode == "host" else "",
        uts_mode=host.uts_mode,
        memory_bytes=host.memory,
        nano_cpus=host.nano_cpus,
        pids_limit=max(host.pids_limit or 0, 0),
        stop_signal=config.stop_signal,
        groups=tuple(host.group_add or ()),
        no_new_privileges=NO_NEW_PRIVILEGES in _security(host),
        shm_bytes=host.shm_size or DEFAULT_SHM,
    )
