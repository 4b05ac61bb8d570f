"""The daemon is killed; its containers are not. What another one then finds, and what it clears away."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from netengine.errors import KernelRefused
from netengine.runtime import Absent, ExecSpec, Exited, ImageStore, Running, Runtime, monitor

# A daemon in short: starts the containers that it is told on the command line, says so, and waits to be killed.
_OWNER = """
import asyncio, sys
from contextlib import suppress
from pathlib import Path
from netengine.runtime import ContainerSpec, ImageStore, Runtime

async def main(root, scripts):
    runtime = Runtime(root / "data", root / "exec", images=ImageStore(root / "data"))
    for number, script in enumerate(scripts):
        spec = ContainerSpec(id=f"c{number}", name=f"c{number}", image_id="host", args=("sh", "-c", script), open_stdin=True)
        await runtime.create(spec)
        if script != "never started":
            await runtime.start(spec.id)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
"""


async def killed_owner(root: Path, *scripts: str) -> None:
    """Let another process start containers, and kill it with SIGKILL, its process group too."""
    source = str(Path(__file__).parents[2])
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OWNER, str(root), *scripts,
        stdout=asyncio.subprocess.PIPE, start_new_session=True, env={**os.environ, "PYTHONPATH": source},
    )  # fmt: skip
    assert owner.stdout is not None
    assert await owner.stdout.readline() == b"ready\n"
    os.killpg(owner.pid, signal.SIGKILL)
    await owner.wait()


def test_containers_exit_codes_and_logs_survive_a_kill_of_the_daemon(run):
    async def test(box):
        await killed_owner(
            box.root, "read x; echo got $x; exit 7", "echo before; exit 3", "never started", "while :; do sleep 1; done"
        )
        runtime = Runtime(box.root / "data", box.root / "exec", images=ImageStore(box.root / "data"))
        assert (await runtime.wait("c1")).code == 3
        found = await runtime.recover(["c0", "c1", "c2", "c3", "c9"])
        assert isinstance(found["c0"], Running) and found["c0"].started
        assert isinstance(found["c1"], Exited) and found["c1"].status.code == 3
        assert isinstance(found["c2"], Running) and not found["c2"].started
        assert isinstance(found["c3"], Running)
        assert found["c9"] == Absent()

        stream = await runtime.attach("c0")
        waiting = [asyncio.ensure_future(runtime.wait("c0")) for _ in range(3)]
        await stream.write(b"word\n")
        assert await stream.read() == (1, b"got word\n")
        assert [(await waiter).code for waiter in waiting] == [7, 7, 7]
        await stream.close()
        assert [line.data async for line in runtime.logs("c1")] == [b"before\n"]

        session = await runtime.exec("c3", ExecSpec(args=("true",)))
        assert await session.wait() == 0
        await session.close()
        assert runtime.leftovers(["c0", "c1"]) == {"c2", "c3"}
        await runtime.cleanup(["c0", "c1"])
        assert runtime.state("c3") == Absent() and runtime.leftovers(["c0", "c1"]) == set()

    run(test)


def test_a_container_whose_monitor_was_killed_too_is_still_known_and_ends(run):
    async def test(box):
        container = await box.started("sleep", "1000")
        os.kill(int((box.root / "exec/bundles" / container / "monitor.pid").read_text()), signal.SIGKILL)
        waiting = asyncio.ensure_future(box.runtime.wait(container))
        assert isinstance(box.runtime.state(container), Running)
        await box.runtime.kill(container, signal.SIGKILL)
        assert (await waiting).code == 255

    run(test)


def test_after_a_reboot_only_what_was_written_down_is_known(run):
    async def test(box):
        ended = await box.started("sh", "-c", "exit 4")
        await box.runtime.wait(ended)
        await box.runtime.delete(ended)  # as if the exec root's tmpfs had gone
        assert box.runtime.state(ended).status.code == 4
        assert (await box.runtime.wait(ended)).code == 4

    run(test)


def test_a_pid_that_another_program_has_got_since_is_not_taken_for_ours(run):
    async def test(box):
        container = await box.started("sh", "-c", "exit 4")
        await box.runtime.wait(container)
        bundle = box.root / "exec/bundles" / container
        (bundle / "monitor.pid").write_text(str(os.getpid()))
        (bundle / "pid").write_text(str(os.getpid()))
        assert isinstance(box.runtime.state(container), Exited)
        (bundle / "monitor.pid").unlink()

    run(test)


def test_an_oci_runtime_that_hangs_is_given_up_and_leaves_nothing(run, tmp_path, monkeypatch):
    async def test(box):
        hang, note = tmp_path / "hang", tmp_path / "pids"
        hang.write_text(f"#!/bin/sh\necho $$ >> {note}\nexec sleep 1000\n")
        hang.chmod(0o755)
        monkeypatch.setattr(monitor, "CREATE_SECONDS", 0.5)
        stuck = Runtime(box.root / "data", box.root / "exec", images=box.images, oci_runtime=str(hang))
        with pytest.raises(KernelRefused, match="did not answer within"):
            await stuck.create(box.spec("true"))
        assert box.runtime.leftovers(()) == set()
        for pid in note.read_text().split() if note.exists() else ():  # else it did not even come to begin
            with suppress(OSError):  # of a process that is gone
                assert b"sleep" not in Path(f"/proc/{pid}/cmdline").read_bytes()

    run(test)


def test_a_create_that_is_cancelled_leaves_nothing(run):
    async def test(box):
        for delay in range(6):
            creating = asyncio.ensure_future(box.runtime.create(box.spec("true")))
            for _ in range(delay * 40):  # somewhere on its way
                await asyncio.sleep(0.0002)
            creating.cancel()
            await asyncio.gather(creating, return_exceptions=True)
            await box.runtime.cleanup(() if creating.cancelled() else box.runtime.leftovers(()))
            if creating.cancelled():
                assert box.runtime.leftovers(()) == set()

    run(test)


def test_fifty_containers_leave_no_descriptor(run):
    async def test(box):
        codes = await asyncio.gather(*(box.output("sh", "-c", f"exit {n}") for n in range(50)))
        assert [code for code, _ in codes] == list(range(50))

    run(test)
