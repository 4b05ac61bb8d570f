"""From a container's specification to the OCI runtime's config.json. Pure: all facts about the machine come in.

Defaults are Docker's: capabilities, masked and read-only paths, devices, /dev, /proc and /sys.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from netengine.errors import Invalid
from netengine.runtime import capabilities, seccomp
from netengine.runtime.model import Bind, ContainerSpec, ExecSpec, ImageConfig
from netengine.runtime.users import User

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
)  # fmt: skip
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_PROPAGATIONS = frozenset(f"{recursive}{kind}" for recursive in ("", "r") for kind in ("private", "shared", "slave"))
_CPU_PERIOD = 100_000  # microseconds

# (type, major, minor) that a container may use beside those that the runtime makes: any it creates, /dev/console, ptys.
_DEVICES: tuple[tuple[str, int | None, int | None, str], ...] = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 5, 0, "rwm"),
    ("c", 5, 1, "rwm"),
    ("c", 5, 2, "rwm"),
    ("c", 136, None, "rwm"),
)

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Machine:
    """What the configuration needs to know of the machine and the daemon."""

    capabilities: frozenset[str]
    cgroup_v2: bool
    oom_score_adj: int = 0
    seccomp: bool = True
    devices: tuple[Json, ...] = ()  # of a privileged container
    masked: tuple[str, ...] = field(default=())  # our own directories: image "host" would show them


def configuration(
    spec: ContainerSpec, image: ImageConfig, user: User, rootfs: str, machine: Machine, *, host_image: bool
) -> Json:
    """config.json. Invalid when the specification cannot work."""
    process = _process(spec, image, user, machine)
    caps = capabilities.granted(spec.cap_add, spec.cap_drop, privileged=spec.privileged, available=machine.capabilities)
    linux: Json = {
        "cgroupsPath": f"/netengine/{spec.id}",
        "namespaces": _namespaces(spec, machine),
        "resources": _resources(spec),
        "sysctl": _sysctls(spec),
        "rootfsPropagation": "rslave" if any("s" in bind.propagation for bind in spec.binds) else "rprivate",
        "maskedPaths": [*(() if spec.privileged else _MASKED), *(machine.masked if host_image else ())],
        "readonlyPaths": [] if spec.privileged else list(_READ_ONLY),
    }
    if spec.privileged:
        linux["devices"] = list(machine.devices)
    elif machine.seccomp:
        linux["seccomp"] = seccomp.profile(caps)
    config: Json = {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": rootfs, "readonly": spec.read_only},
        "mounts": _mounts(spec, host_image=host_image),
        "linux": linux,
        "annotations": {"netengine.name": spec.name},
    }
    if spec.hostname and spec.uts_mode != "host":
        config["hostname"] = spec.hostname
    return config


def exec_process(container: Mapping[str, object], spec: ExecSpec, user: User | None, machine: Machine) -> Json:
    """process.json of one more process, from the container's own `process`. `user` None: the container's."""
    _checked_texts(spec.args, "command")
    process = dict(container)
    process["args"] = list(spec.args)
    env = [str(item) for item in _list(container["env"])]
    process["env"] = merge_env(env, ["TERM=xterm"] if spec.tty and not _has(env, "TERM") else [], spec.env)
    process["terminal"] = spec.tty
    process.pop("consoleSize", None)
    if spec.cwd:
        process["cwd"] = _absolute(spec.cwd, "working directory")
    if user is not None:
        process["user"] = _user(user)
    base = process["capabilities"]
    assert isinstance(base, dict)
    caps = tuple(name for name in capabilities.NAMES if name in base["bounding"])
    if spec.privileged:
        caps = tuple(name for name in capabilities.NAMES if name in machine.capabilities)
    uid = process["user"]
    assert isinstance(uid, dict)
    process["capabilities"] = _capability_sets(caps, root=uid["uid"] == 0)
    return process


def merge_env(*layers: Iterable[str]) -> list[str]:
    """NAME=VALUE lists, later ones over earlier ones; NAME alone takes it away."""
    merged: dict[str, str] = {}
    for item in (item for layer in layers for item in layer):
        name, equals, _ = item.partition("=")
        if not name or "\0" in item:
            raise Invalid(f"invalid environment variable: {item!r}")
        if equals:
            merged[name] = item
        else:
            merged.pop(name, None)
    return list(merged.values())


def _process(spec: ContainerSpec, image: ImageConfig, user: User, machine: Machine) -> Json:
    if not spec.args:
        raise Invalid("no command specified")
    _checked_texts(spec.args, "command")
    defaults = [PATH, f"HOSTNAME={spec.hostname}"] if spec.hostname else [PATH]
    if spec.tty:
        defaults.append("TERM=xterm")
    caps = capabilities.granted(spec.cap_add, spec.cap_drop, privileged=spec.privileged, available=machine.capabilities)
    return {
        "terminal": spec.tty,
        "user": _user(user),
        "args": list(spec.args),
        "env": merge_env(defaults, image.env, spec.env),
        "cwd": _absolute(spec.cwd or image.working_dir or "/", "working directory"),
        "capabilities": _capability_sets(caps, root=user.uid == 0),
        "noNewPrivileges": spec.no_new_privileges,
        # Lowering it needs CAP_SYS_RESOURCE: a daemon that runs with a raised value hands that on.
        "oomScoreAdj": max(0, machine.oom_score_adj),
    }


def _user(user: User) -> Json:
    return {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}


def _capability_sets(caps: Sequence[str], *, root: bool) -> Json:
    """Root holds them; another user may only gain them by executing a file that grants them."""
    held = list(caps) if root else []
    return {"bounding": list(caps), "effective": held, "permitted": held}


def _namespaces(spec: ContainerSpec, machine: Machine) -> list[Json]:
    for name, mode in (("pid", spec.pid_mode), ("ipc", spec.ipc_mode), ("uts", spec.uts_mode)):
        if mode not in ("", "host"):
            raise Invalid(f"invalid {name} mode {mode!r}: netengine knows '' and 'host'")
    kinds: list[Json] = [{"type": "mount"}]
    kinds += [
        {"type": kind}
        for kind, mode in (("pid", spec.pid_mode), ("ipc", spec.ipc_mode), ("uts", spec.uts_mode))
        if mode != "host"
    ]
    if machine.cgroup_v2 and not spec.privileged:
        kinds.append({"type": "cgroup"})
    if spec.netns is not None:
        kinds.append({"type": "network", "path": _absolute(spec.netns, "network namespace")})
    return kinds


def _resources(spec: ContainerSpec) -> Json:
    resources: Json = {"devices": [{"allow": True, "access": "rwm"}]} if spec.privileged else {"devices": _rules()}
    if spec.memory_bytes:
        if spec.memory_bytes < 6 * 1024 * 1024:
            raise Invalid("Minimum memory limit allowed is 6MB")
        resources["memory"] = {"limit": spec.memory_bytes}
    if spec.nano_cpus:
        quota = spec.nano_cpus * _CPU_PERIOD // 1_000_000_000
        if quota < 1000:
            raise Invalid(f"invalid NanoCPUs {spec.nano_cpus}: at least 10000000 (0.01 CPUs)")
        resources["cpu"] = {"quota": quota, "period": _CPU_PERIOD}
    if spec.pids_limit > 0:
        resources["pids"] = {"limit": spec.pids_limit}
    return resources


def _rules() -> list[Json]:
    rules: list[Json] = [{"allow": False, "access": "rwm"}]
    for kind, major, minor, access in _DEVICES:
        rule: Json = {"allow": True, "type": kind, "access": access}
        if major is not None:
            rule["major"] = major
        if minor is not None:
            rule["minor"] = minor
        rules.append(rule)
    return rules


def _sysctls(spec: ContainerSpec) -> dict[str, str]:
    for name, value in spec.sysctls.items():
        if name.startswith("net.") and spec.netns is None:
            raise Invalid(f"sysctl '{name}={value}' not allowed in host network namespace")
        if not name.startswith(("net.", "fs.mqueue.")) and name not in _IPC_SYSCTLS:
            raise Invalid(
                f"sysctl '{name}={value}' is not allowed: only net.*, fs.mqueue.* and System V IPC have namespaces"
            )
        if "/" in name or ".." in name:
            raise Invalid(f"invalid sysctl {name!r}: write it with dots, as in net.ipv4.ip_forward")
    domain = {"kernel.domainname": spec.domainname} if spec.domainname and spec.uts_mode != "host" else {}
    return {**domain, **spec.sysctls}


_IPC_SYSCTLS = frozenset(
    f"kernel.{name}" for name in ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"]
)


def _mounts(spec: ContainerSpec, *, host_image: bool) -> list[Json]:
    access = "rw" if spec.privileged else "ro"
    mounts: list[Json] = [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
        ),
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", access),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", access),
    ]
    if spec.ipc_mode == "host":
        mounts += [_bind("/dev/mqueue", "/dev/mqueue"), _bind("/dev/shm", "/dev/shm")]
    else:
        size = f"size={spec.shm_bytes}"
        mounts += [
            _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
            _mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", size),
        ]
    if host_image:
        mounts += [
            _mount("/run", "tmpfs", "tmpfs", "nosuid", "nodev", "mode=755"),
            _mount("/tmp", "tmpfs", "tmpfs", "nosuid", "nodev", "mode=1777"),
        ]
    own = [
        *(_mount(_target(path), "tmpfs", "tmpfs", *_tmpfs(options)) for path, options in spec.tmpfs.items()),
        *(_bind(source, _target(path)) for path, source in spec.files.items()),
        *(_user_bind(bind) for bind in spec.binds),
    ]
    # A later one of the same target wins, as the user's is meant to; a parent comes before its children.
    chosen = {str(mount["destination"]): mount for mount in own}
    kept = [mount for mount in mounts if mount["destination"] not in chosen]
    return kept + sorted(chosen.values(), key=lambda mount: str(mount["destination"]).count("/"))


def _mount(target: str, kind: str, source: str, *options: str) -> Json:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def _bind(source: str, target: str, *options: str) -> Json:
    return _mount(target, "bind", _absolute(source, "bind source"), "rbind", *(options or ("rprivate", "rw")))


def _user_bind(bind: Bind) -> Json:
    if bind.propagation not in _PROPAGATIONS:
        raise Invalid(f"invalid propagation {bind.propagation!r} of bind mount {bind.target}")
    return _bind(bind.source, _target(bind.target), bind.propagation, "ro" if bind.read_only else "rw")


def _tmpfs(options: str) -> list[str]:
    given = [option for option in options.split(",") if option]
    for option in given:
        name = option.partition("=")[0]
        if name not in _TMPFS_OPTIONS:
            raise Invalid(f"invalid tmpfs option {option!r}")
    return ["nosuid", "nodev", "noexec", *given]


_TMPFS_OPTIONS = frozenset(
    (
        "rw",
        "ro",
        "exec",
        "noexec",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "size",
        "mode",
        "uid",
        "gid",
        "nr_inodes",
        "nr_blocks",
    )
)


def _target(path: str) -> str:
    clean = posixpath.normpath(_absolute(path, "mount path"))
    if clean in ("/", "//"):
        raise Invalid("invalid mount path '/': the root of the container cannot be replaced")
    return clean


def _absolute(path: str, what: str) -> str:
    if not path.startswith("/") or "\0" in path or len(path) > 4095:
        raise Invalid(f"invalid {what} {path[:80]!r}: it must be an absolute path")
    return path


def _checked_texts(texts: Iterable[str], what: str) -> None:
    values = list(texts)
    if not values or not values[0]:
        raise Invalid(f"invalid {what}: it is empty")
    if any("\0" in value for value in values):
        raise Invalid(f"invalid {what}: it contains a NUL byte")


def _has(env: Iterable[str], name: str) -> bool:
    return any(item.startswith(f"{name}=") for item in env)


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value
