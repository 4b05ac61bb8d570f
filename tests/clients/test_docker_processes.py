"""Processes with the real `docker` command: run, exec, attach, logs, on pipes and on a terminal."""

import select
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.clients.lab import HERE, OUTSIDE, Lab, eventually, python
from tests.clients.rootfs import build
from tests.daemons import Client
from tests.hosts import Process, wait_until


def read(process: Process, words: bytes, timeout: float = 10) -> bytes:
    """Read the output of a running command until `words` appear in it."""
    assert process.popen.stdout is not None
    seen = b""

    def found() -> bool:
        nonlocal seen
        if select.select([process.popen.stdout], [], [], 0.1)[0]:
            seen += process.popen.stdout.read1(4096)  # type: ignore[union-attr]
        return words in seen

    wait_until(found, lambda: f"{words!r} in the output, which is {seen!r}", timeout)
    return seen


# ---------------------------------------------------------------------- run


def test_run_gives_the_output_and_leaves_nothing_with_rm(lab: Lab, docker: Client):
    assert docker("run", "--rm", "host", "echo", "hello") == "hello"
    assert lab.containers() == set()


def test_run_keeps_standard_error_apart(docker: Client):
    done = docker.run("run", "--rm", "host", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "exit 3"], 3),
        (["/no/such/program"], 127),
        (["/etc/passwd"], 126),
        (["sh", "-c", "kill -TERM $$; exit 9"], 9),  # PID 1 has no default action for signals
        (["sh", "-c", "sh -c 'kill -KILL $$'; exit $?"], 137),
    ],
)
def test_run_ends_with_the_exit_status_of_the_process(docker: Client, command: list[str], code: int):
    assert docker.run("run", "--rm", "host", *command).returncode == code


def test_a_program_that_does_not_exist_leaves_no_container_with_rm(lab: Lab, docker: Client):
    failed = docker.refused("run", "--rm", "host", "/no/such/program")
    assert failed.code == 127
    assert "no such file or directory" in failed.text.lower()
    eventually(lambda: lab.containers() == set())


def test_run_reads_standard_input(docker: Client):
    assert docker("run", "--rm", "-i", "host", "cat", stdin="through\nthe pipe\n") == "through\nthe pipe"


def test_a_megabyte_through_a_container_and_back(docker: Client):
    blob = "".join(f"{number:07}\n" for number in range(131_072))
    assert docker("run", "--rm", "-i", "host", "cat", stdin=blob) + "\n" == blob


def test_run_on_a_terminal(lab: Lab, docker: Client):
    terminal = docker.terminal("run", "--rm", "-it", "--name", "shell", "host", "sh")
    terminal.expect(r"[#$] ")
    terminal.type("echo $((6 * 7)); tty\n")
    terminal.expect(r"\b42\r\n")
    terminal.expect(r"/dev/(pts/\d+|console)")
    terminal.type("exit 3\n")
    assert terminal.end() == 3
    assert lab.containers() == set()


def test_the_terminal_has_the_size_of_the_persons_and_follows_it(docker: Client):
    terminal = docker.terminal("run", "--rm", "-it", "host", "sh")
    terminal.expect(r"[#$] ")

    def size() -> str:
        terminal.type("stty size\n")
        return terminal.expect(r"\d+ \d+\r").strip()

    # The client sends the size after the start, so a quick question comes before the answer.
    wait_until(lambda: size() == "24 80", "the first size")

    def size_when_changed() -> str:
        terminal.resize(50, 131)  # again: the client hears of changes only some time after it has sent the first size
        terminal.resize(50, 132)
        return size()

    wait_until(lambda: size_when_changed() == "50 132", "the new size")
    terminal.type("exit\n")
    assert terminal.end() == 0


def test_the_flags_of_run_reach_the_process(docker: Client):
    done = docker(
        *["run", "--rm", "--hostname", "www", "-e", "COLOUR=blue", "-w", "/usr", "--user", "65534:65534"],
        *["--add-host", "db:10.1.2.3", "--entrypoint", "sh", "host"],
        *["-c", "hostname; echo $COLOUR; pwd; id -u; id -g; grep 10.1.2.3 /etc/hosts"],
    )
    assert done.split() == ["www", "blue", "/usr", "65534", "65534", "10.1.2.3", "db"]


def test_the_hostname_is_the_short_id_unless_given(docker: Client):
    identity = docker("run", "-d", "--name", "job", "host", "hostname")
    docker("wait", "job")
    assert docker("logs", "job") == identity[:12]


def test_net_sysctls_are_set_in_the_sandbox_only(lab: Lab, docker: Client):
    before = lab.here.sysctl("net.ipv4.ip_default_ttl")
    setting = "net.ipv4.ip_default_ttl=77"
    assert docker("run", "--rm", "--sysctl", setting, "host", "cat", "/proc/sys/net/ipv4/ip_default_ttl") == "77"
    assert lab.here.sysctl("net.ipv4.ip_default_ttl") == before


def test_a_sysctl_outside_net_is_refused(docker: Client):
    assert docker.refused("run", "--rm", "--sysctl", "kernel.panic=1", "host", "true").code == 125


def test_the_container_cannot_change_the_machine(docker: Client, tmp_path: Path):
    (tmp_path / "mine").write_text("untouched")
    script = f"echo spoilt > {tmp_path}/mine; rm -f /etc/passwd; ls /etc/passwd"
    docker.run("run", "--rm", "host", "sh", "-c", script)
    assert (tmp_path / "mine").read_text() == "untouched"
    assert Path("/etc/passwd").exists()


def test_a_bind_mount_is_shared_and_can_be_read_only(docker: Client, tmp_path: Path):
    (tmp_path / "in").write_text("from the machine")
    assert docker("run", "--rm", "-v", f"{tmp_path}:/data", "host", "cat", "/data/in") == "from the machine"
    docker("run", "--rm", "-v", f"{tmp_path}:/data", "host", "sh", "-c", "echo from the container > /data/out")
    assert (tmp_path / "out").read_text() == "from the container\n"
    done = docker.run("run", "--rm", "-v", f"{tmp_path}:/data:ro", "host", "touch", "/data/no")
    assert "Read-only file system" in done.stderr


def test_a_read_only_root(docker: Client):
    done = docker.run("run", "--rm", "--read-only", "host", "touch", "/usr/no")
    assert "Read-only file system" in done.stderr


def test_capabilities_are_docker_s_and_can_be_added_and_dropped(docker: Client):
    show = ["host", "grep", "CapEff", "/proc/self/status"]
    assert int(docker("run", "--rm", *show).split()[1], 16) == 0xA80425FB, "Docker's fourteen"
    assert int(docker("run", "--rm", "--cap-add", "NET_ADMIN", *show).split()[1], 16) == 0xA80435FB
    assert int(docker("run", "--rm", "--cap-drop", "ALL", *show).split()[1], 16) == 0


def test_privileged_may_configure_its_own_network(docker: Client):
    command = ["host", "ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1"]
    assert "Operation not permitted" in docker.refused("run", "--rm", *command).text
    docker("run", "--rm", "--privileged", *command)


def test_processes_do_not_see_those_of_the_machine(docker: Client):
    assert docker("run", "--rm", "host", "sh", "-c", "echo $$; ls -d /proc/[0-9]* | wc -l").split()[0] == "1"


# ---------------------------------------------------------------------- exec


def test_exec_runs_beside_the_first_process(lab: Lab, docker: Client):
    lab.serve("web", "--hostname", "www", "-e", "COLOUR=blue")
    assert docker("exec", "web", "hostname") == "www"
    assert docker("exec", "web", "sh", "-c", "echo $COLOUR") == "blue"
    assert docker("exec", "-e", "COLOUR=red", "-w", "/usr", "web", "sh", "-c", "echo $COLOUR; pwd").split() == [
        "red",
        "/usr",
    ]
    assert docker("exec", "-u", "65534", "web", "id", "-u") == "65534"
    assert docker("exec", "-i", "web", "cat", stdin="words") == "words"


@pytest.mark.parametrize(
    ("command", "code"), [(["sh", "-c", "exit 5"], 5), (["/no/such"], 127), (["/etc/passwd"], 126)]
)
def test_exec_ends_with_the_exit_status(lab: Lab, docker: Client, command: list[str], code: int):
    lab.serve("web")
    assert docker.run("exec", "web", *command).returncode == code


def test_exec_on_a_terminal(lab: Lab, docker: Client):
    lab.serve("web")
    terminal = docker.terminal("exec", "-it", "web", "sh")
    terminal.expect(r"[#$] ")
    terminal.type("stty size; echo $((6 * 7))\n")
    terminal.expect(r"24 80")
    terminal.expect(r"\b42\r\n")
    terminal.type("exit 4\n")
    assert terminal.end() == 4
    assert lab.state("web")["Running"] is True


def test_exec_in_the_background(lab: Lab, docker: Client):
    lab.serve("web")
    docker("exec", "-d", "web", *python("import socket; socket.create_server(('', 81)).accept()"))
    eventually(lambda: lab.here.reaches(docker.address("web"), 81))


def test_exec_needs_a_running_container(docker: Client):
    docker("create", "--name", "web", "host", "true")
    assert "is not running" in docker.refused("exec", "web", "true").text


# ---------------------------------------------------------------------- logs


def test_logs_tail_and_timestamps(docker: Client):
    docker("run", "-d", "--name", "job", "host", "sh", "-c", "echo one; echo two; echo three >&2")
    docker("wait", "job")
    done = docker.run("logs", "job")
    assert (done.stdout, done.stderr) == ("one\ntwo\n", "three\n")
    assert docker.run("logs", "--tail", "1", "job").stderr == "three\n"
    stamped = docker("logs", "-t", "job").splitlines()[0]
    assert stamped.endswith("Z one")
    assert docker("logs", "--since", stamped.split()[0], "job").startswith("one")


def test_logs_follow_until_the_container_ends(lab: Lab, docker: Client):
    lab.serve("web", "-p", "8080:80")
    follower = docker.start("logs", "-f", "web")
    read(follower, b"ready")
    lab.here.fetch("127.0.0.1", 8080, "/first")
    read(follower, b"GET /first")
    lab.here.fetch("127.0.0.1", 8080, "/second")
    read(follower, b"GET /second")
    docker("stop", "-t", "2", "web")
    assert follower.wait() == 0


def test_a_line_without_an_end_and_a_very_long_one(docker: Client):
    docker("run", "-d", "--name", "job", "host", *python("print('x' * 100_000); print('end', end='')"))
    docker("wait", "job")
    assert docker("logs", "job") == "x" * 100_000 + "\nend"


# ---------------------------------------------------------------------- attach


def test_attach_joins_a_running_container(lab: Lab, docker: Client):
    docker("run", "-di", "--name", "cat", "host", "cat")
    for words in (b"hello\n", b"again\n"):
        client = docker.start("attach", "cat", stdin=subprocess.PIPE)
        assert client.popen.stdin is not None
        client.popen.stdin.write(words)
        client.popen.stdin.flush()
        assert read(client, b"\n") == words, "not what an earlier client saw"
        client.stop()
    assert lab.state("cat")["Running"] is True, "clients come and go"


def test_the_detach_keys_leave_the_container_running(lab: Lab, docker: Client):
    docker("run", "-dit", "--name", "shell", "host", "sh")
    terminal = docker.terminal("attach", "shell")
    terminal.type("\n")
    terminal.expect(r"[#$] ")
    terminal.type("\x10\x11")
    terminal.end()
    assert lab.state("shell")["Running"] is True


# ---------------------------------------------------------------------- life


def test_wait_prints_the_exit_status(lab: Lab, docker: Client):
    lab.serve("web")
    waiting = docker.start("wait", "web")
    docker("kill", "web")
    assert read(waiting, b"\n") == b"137\n"
    assert docker("wait", "web") == "137", "also when it has ended already"


def test_top_lists_the_processes(lab: Lab, docker: Client):
    lab.serve("web")
    header, line = docker("top", "web").splitlines()
    assert header.split()[:2] == ["UID", "PID"]
    assert "python3" in line
    assert docker("top", "web", "-o", "pid,comm").splitlines()[1].endswith("python3")


def test_stop_asks_first_and_kills_after_the_time_given(lab: Lab, docker: Client):
    lab.serve("polite")
    docker("stop", "-t", "10", "polite")
    assert lab.state("polite")["ExitCode"] == 0
    lab.run("deaf", command=["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"])
    docker("stop", "-t", "1", "deaf")
    assert lab.state("deaf")["ExitCode"] == 137


def test_kill_sends_the_signal_that_is_named(lab: Lab, docker: Client):
    lab.run("job", command=["sh", "-c", "trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done"])
    docker("kill", "-s", "USR1", "job")
    assert docker("wait", "job") == "7"


def test_restart_gives_a_new_process_with_the_same_identity(lab: Lab, docker: Client):
    identity = lab.serve("web", "-p", "8080:80")
    before = lab.state("web")["Pid"]
    docker("restart", "-t", "2", "web")
    eventually(lambda: lab.outside.fetch(HERE, 8080) == f"web sees {OUTSIDE}")
    assert lab.state("web")["Pid"] != before
    assert docker("ps", "-q", "--no-trunc") == identity


def test_starting_twice_is_no_error(lab: Lab, docker: Client):
    lab.serve("web")
    assert docker("start", "web") == "web"


def test_a_stopped_container_keeps_its_files_but_not_its_address(lab: Lab, docker: Client):
    docker("run", "-d", "--name", "job", "host", "sh", "-c", "cat /kept 2>/dev/null; echo words > /kept")
    docker("wait", "job")
    assert docker.address("job") == ""
    docker("start", "job")
    docker("wait", "job")
    assert docker("logs", "job") == "words"


def test_start_attached_gives_output_and_status(docker: Client):
    docker("create", "--name", "job", "host", "sh", "-c", "echo words; exit 6")
    done = docker.run("start", "-a", "job")
    assert (done.stdout, done.returncode) == ("words\n", 6)


# ---------------------------------------------------------------------- images


def test_a_root_file_system_is_imported_and_run(lab: Lab, docker: Client, tmp_path: Path):
    archive = build(tmp_path / "tiny.tar")
    identity = docker(
        "import", "-c", "ENV COLOUR=blue", "-c", 'CMD ["sh", "-c", "echo $COLOUR"]', str(archive), "tiny:1"
    )
    assert identity.startswith("sha256:")
    assert docker("run", "--rm", "tiny:1") == "blue"
    assert docker("run", "--rm", "tiny:1", "sh", "-c", "echo /*").split()[0] == "/bin"
    docker("tag", "tiny:1", "small:2")
    assert {"tiny:1", "small:2"} <= lab.images()
    docker("rmi", "tiny:1", "small:2")
    assert lab.images() == set()


def test_import_from_standard_input_compressed(docker: Client, tmp_path: Path):
    archive = build(tmp_path / "tiny.tar.gz", "w:gz")
    docker("import", "-", "tiny", stdin=archive.read_bytes())
    assert docker("run", "--rm", "tiny", "sh", "-c", "echo inside") == "inside"


def test_an_image_in_use_is_not_removed(docker: Client, tmp_path: Path):
    docker("import", str(build(tmp_path / "tiny.tar")), "tiny")
    docker("create", "--name", "job", "tiny", "sh")
    assert "conflict: unable to " in docker.refused("rmi", "tiny").text


def test_the_image_host_is_not_removed(docker: Client):
    assert docker.refused("rmi", "host").code == 1


def test_the_archive_itself_is_sound(tmp_path: Path):
    with tarfile.open(build(tmp_path / "tiny.tar")) as archive:
        assert "bin/sh" in archive.getnames()
