"""From create to remove: what a process sees, how it ends, what stays."""

from __future__ import annotations

from netengine.runtime import Running


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
        script = "echo $$ $HOSTNAME $(hostname); ls /tmp /run; mount | grep -E ' /(proc|sys|dev|tmp|run|dev/shm|dev/mqueue|dev/pts|sys/fs/cgroup) ' | wc -l"
        code, text = await box.output("sh", "-c", script, hostname="web")
        lines = text.splitlines()
        assert (code, lines[0]) == (0, "1 web web")
        assert lines[1:3] == ["/run:", ""] or "/tmp:" in lines, lines
        assert int(lines[-1]) == 9
        code, text = await box.output("sh", "-c", "echo 1 > /sys/kernel/uevent_seqnum")
        assert code != 0 and "Read-only" in text

    run(test)
