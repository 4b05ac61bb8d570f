"""From create to remove: what a process sees, how it ends, what stays."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from netengine.errors import Conflict, Invalid
from netengine.runtime import Absent, Bind, Exited, Running, process


def test_a_process_runs_and_its_exit_code_and_output_are_kept(run):
    async def test(box):
        assert await box.output("sh", "-c", "echo out; exit 7") == (7, "out\n")

    run(test)


def test_nothing_runs_before_start(run):
    async def test(box):
        spec = box.spec("touch", "/seen", binds=())
        pid = await box.runtime.create(spec)
        assert box.runtime.state(spec.id) == Running(pid, started=False)
        assert not (box.root / "data/containers" / spec.id / "upper/seen").exists()
        await box.runtime.start(spec.id)
        assert (await box.runtime.wait(spec.id)).code == 0
        assert (box.root / "data/containers" / spec.id / "upper/seen").exists()

    run(test)


def test_image_host_has_its_own_proc_sys_dev_tmp_and_run(run):
    async def test(box):
        own = "proc|sys|dev|tmp|run|dev/shm|dev/mqueue|dev/pts|sys/fs/cgroup"
        script = f"echo $$ $HOSTNAME $(hostname); ls /tmp /run; mount | grep -E ' /({own}) ' | wc -l"
        code, text = await box.output("sh", "-c", script, hostname="web")
        lines = text.splitlines()
        assert (code, lines[0]) == (0, "1 web web")
        assert lines[1:3] == ["/run:", ""] or "/tmp:" in lines, lines
        assert int(lines[-1]) == 9
        code, text = await box.output("sh", "-c", "echo 1 > /sys/kernel/uevent_seqnum")
        assert code != 0 and "Read-only" in text

    run(test)


def test_a_missing_command_says_what_docker_says_and_leaves_nothing(run):
    async def test(box):
        spec = box.spec("foo")
        with pytest.raises(
            Invalid, match=r'OCI runtime create failed: .*exec: "foo": executable file not found in \$PATH'
        ):
            await box.runtime.create(spec)
        assert box.runtime.leftovers(()) == set()
        assert box.runtime.state(spec.id) == Absent()

    run(test)


def test_a_command_that_may_not_be_executed_is_permission_denied(run):
    async def test(box):
        with pytest.raises(Invalid, match="permission denied"):
            await box.runtime.create(box.spec("/etc/passwd"))

    run(test)


def test_unknown_users_missing_bind_sources_and_unknown_capabilities_are_refused(run):
    async def test(box):
        for more, text in (
            ({"user": "nobody-here"}, "unable to find user nobody-here: no matching entries in passwd file"),
            ({"binds": (Bind("/not/there", "/x"),)}, "bind source path does not exist: /not/there"),
            ({"binds": (Bind("relative", "/x"),)}, "must be absolute"),
            ({"cap_add": ("NET_EVERYTHING",)}, 'invalid CapAdd: unknown capability: "CAP_NET_EVERYTHING"'),
            ({"sysctls": {"net.ipv4.ip_forward": "1"}}, "not allowed in host network namespace"),
            ({"image_id": "sandbox"}, "no file system"),
            ({"id": "../../etc"}, "invalid container id"),
        ):
            with pytest.raises(Invalid, match=text):
                await box.runtime.create(box.spec("true", **more))
        assert box.runtime.leftovers(()) == set()

    run(test)


def test_signals_reach_the_first_process_and_the_code_is_128_and_the_signal(run):
    async def test(box):
        container = await box.started("sleep", "1000")
        await box.runtime.kill(container, signal.SIGKILL)
        assert (await box.runtime.wait(container)).code == 137
        with pytest.raises(Conflict):
            await box.runtime.kill(container, signal.SIGTERM)
        await box.runtime.delete(container)
        assert isinstance(box.runtime.state(container), Exited)  # the code outlives the bundle

    run(test)


def test_the_writable_layer_stays_from_run_to_run(run):
    async def test(box):
        spec = box.spec("sh", "-c", "test -e /mark && exit 3; touch /mark")
        codes = []
        for _ in range(2):
            await box.runtime.create(spec)
            await box.runtime.start(spec.id)
            codes.append((await box.runtime.wait(spec.id)).code)
            await box.runtime.delete(spec.id)
        assert codes == [0, 3]

    run(test)


def test_capabilities_user_environment_and_working_directory(run):
    async def test(box):
        show = ("sh", "-c", "grep CapEff /proc/self/status; id -u; pwd; env | sort")
        _, text = await box.output(*show, env=("A=1", "B=2"), cwd="/usr", hostname="web")
        lines = text.splitlines()
        assert lines[:3] == ["CapEff:\t00000000a80425fb", "0", "/usr"]
        assert {"A=1", "B=2", "HOSTNAME=web"} <= set(lines)
        _, text = await box.output(*show, user="nobody")
        assert text.splitlines()[:2] == ["CapEff:\t0000000000000000", "65534"]
        _, text = await box.output(*show, cap_drop=("ALL",), cap_add=("net_admin",))
        assert text.splitlines()[0] == "CapEff:\t0000000000001000"
        code, text = await box.output(
            "sh",
            "-c",
            "mkdir /x && mount -t tmpfs none /x && echo 1 > /proc/sys/vm/drop_caches; ls -l /dev/kmsg",
            privileged=True,
        )
        assert code == 0, text

    run(test)


def test_binds_files_tmpfs_and_a_read_only_root(run, tmp_path):
    async def test(box):
        (tmp_path / "d").mkdir()
        (tmp_path / "d/f").write_text("shared\n")
        (tmp_path / "hosts").write_text("127.0.0.1 me\n")
        more = {
            "binds": (Bind(str(tmp_path / "d"), "/tmp/rw"), Bind(str(tmp_path / "d"), "/tmp/ro", read_only=True)),
            "files": {"/etc/hosts": str(tmp_path / "hosts")},
            "tmpfs": {"/cache": "size=1m"},
            "read_only": True,
        }
        script = (
            "cat /tmp/ro/f /etc/hosts; echo x > /tmp/rw/g; echo ok > /cache/x; cat /cache/x; touch /tmp/ro/h /etc/y"
        )
        code, text = await box.output("sh", "-c", script, **more)
        assert code == 1
        assert text.startswith("shared\n127.0.0.1 me\nok\n") and text.count("Read-only file system") == 2
        assert (tmp_path / "d/g").read_text() == "x\n"

    run(test)


def test_a_container_joins_a_network_namespace_by_path(run, tmp_path):
    async def test(box):
        # a process in a namespace of its own holds it for the container
        holder = await process.spawn(["unshare", "-n", "sleep", "1000"])
        try:
            mine = os.readlink("/proc/thread-self/ns/net")
            path = f"/proc/{holder.pid}/ns/net"
            while os.readlink(path) == mine or b"sleep" not in Path(f"/proc/{holder.pid}/cmdline").read_bytes():
                await asyncio.sleep(0.001)
            code, text = await box.output(
                "sh",
                "-c",
                "readlink /proc/self/ns/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /sys/class/net",
                netns=path,
                sysctls={"net.ipv4.ip_unprivileged_port_start": "7"},
                domainname="example.org",
            )
            assert (code, text.split()) == (0, [os.readlink(path), "7", "lo"])
        finally:
            process.kill_session(holder)
            await holder.wait()

    run(test)


def test_limits_are_set_and_an_oom_kill_is_told(run):
    async def test(box):
        hog = "x = bytearray(200 * 1024 * 1024)"
        container = await box.started(
            "python3", "-c", hog, memory_bytes=64 * 1024 * 1024, nano_cpus=500_000_000, pids_limit=50
        )
        status = await box.runtime.wait(container)
        assert status.code == 137 and status.oom_killed

    run(test)


def test_pause_and_top(run):
    async def test(box):
        container = await box.started("sh", "-c", "sleep 1000 & sleep 1001; true")
        titles, rows = await box.runtime.top(container)
        while len(rows) != 3:  # what has just started it may still be there
            titles, rows = await box.runtime.top(container)
        assert titles[1] == "PID"
        await box.runtime.pause(container)
        await box.runtime.unpause(container)
        with pytest.raises(Invalid):
            await box.runtime.top(container, "; reboot")

    run(test)


def test_a_container_of_an_imported_root_file_system(run):
    async def test(box):
        listed = await process.run(["ldd", "/bin/sh"])
        libraries = [word for word in listed.stdout.decode().split() if word.startswith("/lib")]
        names = [path.lstrip("/") for path in ("/bin/sh", *libraries)]
        packed = await process.run(["tar", "-C", "/", "-ch", *names])
        assert packed.code == 0, packed.stderr

        async def stream():
            yield packed.stdout

        await box.images.import_tar(stream(), repository="small", changes=["WORKDIR /srv", "ENV WHO=me"])
        shown = await box.output("/bin/sh", "-c", "pwd; echo $WHO", image_id="small", cwd="")
        assert shown == (0, "/srv\nme\n")

    run(test)
