"""Attach, exec and logs: bytes go in and come out, in order, none lost, with ends and sizes."""

from __future__ import annotations

import asyncio

import pytest

from netengine.errors import Conflict, Invalid
from netengine.runtime import ExecSpec


async def everything(stream):
    """All output of a stream, by descriptor."""
    text = {1: b"", 2: b""}
    while (chunk := await stream.read()) is not None:
        text[chunk[0]] += chunk[1]
    return text


async def until(stream, mark):
    """Output up to and with `mark`."""
    text = b""
    while mark not in text:
        chunk = await stream.read()
        assert chunk is not None, text
        text += chunk[1]
    return text


def test_attached_before_the_start_nothing_is_lost(run):
    async def test(box):
        for _ in range(5):
            spec = box.spec("sh", "-c", "echo out; echo err >&2; seq 100000")
            await box.runtime.create(spec)
            stream = await box.runtime.attach(spec.id)
            await box.runtime.start(spec.id)
            text = await everything(stream)
            await stream.close()
            assert text[2] == b"err\n"
            assert text[1] == b"out\n" + b"".join(b"%d\n" % n for n in range(1, 100001))

    run(test)


def test_end_of_input_reaches_the_process_while_its_output_goes_on(run):
    async def test(box):
        spec = box.spec("sh", "-c", "wc -c; echo done", open_stdin=True, stdin_once=True)
        await box.runtime.create(spec)
        stream = await box.runtime.attach(spec.id)
        await box.runtime.start(spec.id)
        for _ in range(10):
            await stream.write(b"x" * 100_000)
        await stream.close_stdin()
        assert (await everything(stream))[1] == b"1000000\ndone\n"
        await stream.close()

    run(test)


def test_two_clients_see_the_same_and_one_may_leave(run):
    async def test(box):
        spec = box.spec("cat", open_stdin=True)
        await box.runtime.create(spec)
        await box.runtime.start(spec.id)
        first, second = await box.runtime.attach(spec.id), await box.runtime.attach(spec.id)
        await first.write(b"hello\n")
        assert await until(first, b"hello\n") == await until(second, b"hello\n")
        await first.close()
        await second.write(b"again\n")
        assert await until(second, b"again\n") == b"again\n"
        assert await first.read() is None
        await second.close()

    run(test)


def test_a_client_that_reads_nothing_holds_up_the_process_but_not_its_end(run):
    async def test(box):
        spec = box.spec("sh", "-c", "seq 500000; echo never")
        await box.runtime.create(spec)
        lazy = await box.runtime.attach(spec.id)
        await box.runtime.start(spec.id)
        assert await lazy.read() is not None
        held = 0
        while True:  # until the pipe is full: the log grows no more
            await asyncio.sleep(0.05)
            size = (box.root / "data/containers" / spec.id / "log").stat().st_size
            if size == held:
                break
            held = size
        await box.runtime.kill(spec.id, 9)
        assert (await box.runtime.wait(spec.id)).code == 137
        text = (await everything(lazy))[1]
        assert len(text) < 2_000_000 and b"never" not in text
        await lazy.close()

    run(test)


def test_a_slow_client_gets_everything(run):
    async def test(box):
        spec = box.spec("sh", "-c", "seq 300000; echo end")
        await box.runtime.create(spec)
        slow = await box.runtime.attach(spec.id)
        await box.runtime.start(spec.id)
        assert (await everything(slow))[1] == b"".join(b"%d\n" % n for n in range(1, 300001)) + b"end\n"
        assert (await box.runtime.wait(spec.id)).code == 0
        await slow.close()

    run(test)


def test_a_terminal_has_the_size_that_it_was_given(run):
    async def test(box):
        spec = box.spec("sh", open_stdin=True, tty=True)
        await box.runtime.create(spec)
        stream = await box.runtime.attach(spec.id)
        await box.runtime.start(spec.id)
        await box.runtime.resize(spec.id, 33, 99)
        await stream.write(b"until stty size | grep '33 99'; do :; done; test -t 0 && echo $TERM; exit 4\n")
        assert b"xterm\r\n" in (await everything(stream))[1]
        assert (await box.runtime.wait(spec.id)).code == 4
        await stream.close()
        with pytest.raises(Conflict):
            await box.runtime.attach(spec.id)

    run(test)


def test_exec_keeps_its_streams_apart_and_tells_its_code(run):
    async def test(box):
        container = await box.started("sleep", "1000", env=("FROM=container",), hostname="web")
        script = "cat; echo $FROM $MORE $HOSTNAME >&2; exit 5"
        session = await box.runtime.exec(
            container, ExecSpec(args=("sh", "-c", script), env=("MORE=exec",), open_stdin=True)
        )
        await session.write(b"input")
        await session.close_stdin()
        assert await everything(session) == {1: b"input", 2: b"container exec web\n"}
        assert await session.wait() == 5
        await session.close()

    run(test)


def test_exec_in_a_terminal_of_a_size_as_another_user(run):
    async def test(box):
        container = await box.started("sleep", "1000")
        spec = ExecSpec(args=("sh",), tty=True, open_stdin=True, height=20, width=70, user="nobody", cwd="/usr")
        session = await box.runtime.exec(container, spec)
        await session.write(b"until stty size | grep '20 70'; do :; done; id -u; pwd; echo 1-$((1+1))\n")
        text = await until(session, b"1-2\r\n")
        assert b"65534\r\n/usr\r\n" in text
        await session.resize(30, 80)
        await session.write(b"until stty size | grep '30 80'; do :; done; exit 9\n")
        await everything(session)
        assert await session.wait() == 9
        await session.close()

    run(test)


def test_exec_of_what_is_not_there_and_in_what_does_not_run(run):
    async def test(box):
        container = await box.started("sleep", "1000")
        for tty in (False, True):
            with pytest.raises(
                Invalid, match=r'OCI runtime exec failed: .*exec: "foo": executable file not found in \$PATH'
            ):
                await box.runtime.exec(container, ExecSpec(args=("foo",), tty=tty))
        with pytest.raises(Invalid, match="unable to find user"):
            await box.runtime.exec(container, ExecSpec(args=("id",), user="who"))
        await box.runtime.kill(container, 9)
        await box.runtime.wait(container)
        with pytest.raises(Conflict, match="is not running"):
            await box.runtime.exec(container, ExecSpec(args=("true",)))

    run(test)


def test_exec_whose_reader_leaves_or_that_is_detached(run):
    async def test(box):
        container = await box.started("sleep", "1000")
        session = await box.runtime.exec(container, ExecSpec(args=("yes",)))
        assert (await session.read())[1].startswith(b"y\n")
        await session.close()
        assert await session.wait() != 0
        session = await box.runtime.exec(container, ExecSpec(args=("sh", "-c", "exit 3"), detach=True))
        assert session.pid > 0 and await session.read() is None and await session.wait() == 3
        await session.close()

    run(test)


def test_logs_follow_to_the_end_and_lose_nothing(run):
    async def test(box):
        container = await box.started("sh", "-c", "read x; seq 200000; printf tail; echo err >&2", open_stdin=True)
        lines = box.runtime.logs(container, follow=True)

        async def collect():
            return [line async for line in lines]

        collecting = asyncio.ensure_future(collect())
        stream = await box.runtime.attach(container)
        await stream.write(b"go\n")
        await stream.close()
        found = await collecting
        out = b"".join(line.data for line in found if line.stream == 1)
        assert out.rstrip(b"\n") == b"".join(b"%d\n" % n for n in range(1, 200001)) + b"tail"
        assert [line.data for line in found if line.stream == 2] == [b"err\n"]
        assert [line.time_ns for line in found] == sorted(line.time_ns for line in found)

    run(test)


def test_logs_by_tail_and_time(run):
    async def test(box):
        container = await box.started("seq", "1000")
        await box.runtime.wait(container)
        lines = [line async for line in box.runtime.logs(container)]
        assert [line.data async for line in box.runtime.logs(container, tail=3)] == [b"998\n", b"999\n", b"1000\n"]
        assert [line.data async for line in box.runtime.logs(container, tail=0)] == []
        assert [line async for line in box.runtime.logs(container, until_ns=lines[0].time_ns - 1)] == []
        assert [line async for line in box.runtime.logs(container, since_ns=lines[-1].time_ns + 1)] == []
        assert len([line async for line in box.runtime.logs(container, since_ns=lines[0].time_ns)]) == 1000

    run(test)


def test_a_follower_that_stops_half_way_leaves_nothing(run):
    async def test(box):
        container = await box.started("sh", "-c", "echo one; sleep 1000")
        lines = box.runtime.logs(container, follow=True)
        assert (await anext(lines)).data == b"one\n"
        await lines.aclose()

    run(test)
