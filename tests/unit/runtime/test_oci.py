"""The configuration of a container, as the OCI runtime will read it."""

from __future__ import annotations

import pytest

from netengine.errors import Invalid, KernelRefused
from netengine.runtime import Bind, ContainerSpec, ExecSpec, ImageConfig, capabilities, failures, oci, users

MACHINE = oci.Machine(
    capabilities=frozenset(capabilities.NAMES) - {"CAP_SYS_RESOURCE"}, cgroup_v2=True, masked=("/data",)
)


def config(*, user=users.User(0, 0), image=ImageConfig(), host_image=True, machine=MACHINE, **more):  # noqa: B008
    spec = ContainerSpec(**{"id": "c" * 64, "name": "web", "image_id": "host", "args": ("sh",), **more})
    return oci.configuration(spec, image, user, "/rootfs", machine, host_image=host_image)


def targets(made):
    return [mount["destination"] for mount in made["mounts"]]


def test_namespaces_are_own_unless_the_host_is_asked_for():
    kinds = [space["type"] for space in config(netns="/run/netns/web")["linux"]["namespaces"]]
    assert kinds == ["mount", "pid", "ipc", "uts", "cgroup", "network"]
    kinds = [
        space["type"] for space in config(pid_mode="host", uts_mode="host", privileged=True)["linux"]["namespaces"]
    ]
    assert kinds == ["mount", "ipc"]


def test_capabilities_are_dockers_and_never_more_than_the_machine_has():
    assert set(config()["process"]["capabilities"]["effective"]) == capabilities.DEFAULT
    privileged = config(privileged=True)
    assert "CAP_SYS_ADMIN" in privileged["process"]["capabilities"]["bounding"]
    assert "CAP_SYS_RESOURCE" not in privileged["process"]["capabilities"]["bounding"]
    assert "seccomp" not in privileged["linux"] and privileged["linux"]["readonlyPaths"] == []
    other = config(user=users.User(1000, 1000))["process"]["capabilities"]
    assert other["effective"] == other["permitted"] == [] and other["bounding"]
    for add, drop, expected in (
        (("net_admin",), ("ALL",), {"CAP_NET_ADMIN"}),
        (("ALL",), ("CAP_CHOWN",), set(MACHINE.capabilities) - {"CAP_CHOWN"}),
        ((), ("chown",), capabilities.DEFAULT - {"CAP_CHOWN"}),
    ):
        assert set(config(cap_add=add, cap_drop=drop)["process"]["capabilities"]["bounding"]) == expected


def test_the_environment_is_layered_and_a_bare_name_takes_away():
    made = config(hostname="web", tty=True, image=ImageConfig(env=("A=image", "B=image")), env=("B=user", "TERM"))
    assert made["process"]["env"] == [oci.PATH, "HOSTNAME=web", "A=image", "B=user"]


def test_mounts_of_the_user_replace_ours_and_parents_come_first():
    made = config(
        binds=(Bind("/s/2", "/tmp/a/b"), Bind("/s/1", "/tmp")), files={"/etc/hosts": "/h"}, tmpfs={"/run": ""}
    )
    assert targets(made).count("/tmp") == 1 and targets(made).count("/run") == 1
    assert targets(made).index("/tmp") < targets(made).index("/tmp/a/b")
    assert "/data" in made["linux"]["maskedPaths"]
    assert "/tmp" not in targets(config(host_image=False))


def test_a_raised_oom_score_is_handed_on_and_a_lowered_one_is_not():
    for own, expected in ((-500, 0), (0, 0), (300, 300)):
        machine = oci.Machine(capabilities=frozenset(), cgroup_v2=True, oom_score_adj=own)
        assert config(machine=machine)["process"]["oomScoreAdj"] == expected


def test_limits_become_control_group_settings():
    resources = config(memory_bytes=64 << 20, nano_cpus=1_500_000_000, pids_limit=9)["linux"]["resources"]
    assert resources["memory"] == {"limit": 64 << 20} and resources["pids"] == {"limit": 9}
    assert resources["cpu"] == {"quota": 150_000, "period": 100_000}


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"args": ()}, "no command specified"),
        ({"args": ("a\0b",)}, "NUL"),
        ({"env": ("=x",)}, "invalid environment variable"),
        ({"cwd": "relative"}, "working directory 'relative'"),
        ({"binds": (Bind("/a", "/"),)}, "cannot be replaced"),
        ({"binds": (Bind("/a", "b"),)}, "must be an absolute path"),
        ({"binds": (Bind("/a", "/b", propagation="evil,dev"),)}, "invalid propagation"),
        ({"tmpfs": {"/x": "size=1m,lowerdir=/"}}, "invalid tmpfs option 'lowerdir=/'"),
        ({"sysctls": {"kernel.panic": "1"}, "netns": "/n"}, "is not allowed"),
        ({"sysctls": {"net.ipv4.ip_forward": "1"}}, "not allowed in host network namespace"),
        ({"sysctls": {"net./../kernel/panic": "1"}, "netns": "/n"}, "invalid sysctl"),
        ({"memory_bytes": 1000}, "Minimum memory limit allowed is 6MB"),
        ({"ipc_mode": "container:x"}, "invalid ipc mode"),
        ({"cap_drop": ("FLY",)}, 'invalid CapDrop: unknown capability: "CAP_FLY"'),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_made(more, text):
    with pytest.raises(Invalid, match=text):
        config(**more)


def test_exec_takes_what_it_does_not_say_from_the_container():
    container = config(env=("A=1",), cwd="/srv")["process"]
    plain = oci.exec_process(container, ExecSpec(args=("id",)), None, MACHINE)
    assert plain["cwd"] == "/srv" and "A=1" in plain["env"] and plain["terminal"] is False
    more = ExecSpec(args=("id",), tty=True, privileged=True, cwd="/", env=("A=2",))
    made = oci.exec_process(container, more, users.User(5, 6), MACHINE)
    assert "TERM=xterm" in made["env"] and "A=2" in made["env"] and made["user"]["uid"] == 5
    assert "CAP_SYS_ADMIN" in made["capabilities"]["bounding"] and made["capabilities"]["effective"] == []


def test_users_come_from_the_containers_own_files(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0:::\n#c\napp:x:7:8::/home:/bin/sh\nbroken\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nweb:x:9:app,other\nstaff:x:10:app\n")
    for text, expected in (
        ("", users.User(0, 0)), ("app", users.User(7, 8, (9, 10))), ("7", users.User(7, 8, (9, 10))),
        ("app:web", users.User(7, 9)), ("1234", users.User(1234, 0)), ("12:34", users.User(12, 34)),
    ):  # fmt: skip
        assert users.resolve(tmp_path, text) == expected
    for text in ("nobody", "app:nothing", "app:", "99999999999", "-1", ":", "2147483648"):
        with pytest.raises(Invalid):
            users.resolve(tmp_path, text)


def test_a_passwd_file_that_is_a_link_to_the_machines_is_not_followed(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").symlink_to("/../../../../../../etc/passwd")
    with pytest.raises(Invalid, match="unable to find user daemon"):
        users.resolve(tmp_path, "daemon")


def test_failures_carry_the_runtimes_words_and_tell_whose_fault_it_was(tmp_path):
    log = tmp_path / "log"
    log.write_text(
        '{"level":"warning","msg":"w"}\n{"level":"error","msg":"exec: \\"foo\\": executable file not found in $PATH"}\n'
    )
    assert isinstance(failures.create_failure(log, ""), Invalid)
    log.write_text('{"level":"error","msg":"unable to apply cgroup configuration"}\nnot json\n')
    error = failures.create_failure(log, "")
    assert (
        isinstance(error, KernelRefused)
        and error.message == "OCI runtime create failed: unable to apply cgroup configuration"
    )
    assert failures.last_error(tmp_path / "none", "a\nb\n\n") == "b"
