"""The same job through the `netengine` command: Docker's words, and what only netengine has."""

import json
import re

import pytest

from tests.clients.lab import HERE, OUTSIDE, Lab, eventually
from tests.daemons import Client

HEX64 = re.compile(r"[0-9a-f]{64}")


def test_from_network_create_to_a_page_on_another_machine(lab: Lab, netengine: Client):
    assert HEX64.fullmatch(netengine("network", "create", "-d", "bridge", "my-bridge-net"))
    lab.serve("web", "--network", "my-bridge-net", "-p", "8080:80", client=netengine)
    assert lab.outside.fetch(HERE, 8080) == f"web sees {OUTSIDE}"
    assert lab.here.fetch("127.0.0.1", 8080).startswith("web sees")
    assert netengine("rm", "-f", "web") == "web"
    assert netengine("network", "rm", "my-bridge-net") == "my-bridge-net"
    assert lab.networks() == {"bridge", "host", "none"}


def test_network_ls_is_the_table_that_docker_prints(lab: Lab, docker: Client, netengine: Client):
    netengine("network", "create", "blue")
    assert netengine("network", "ls").split() == docker("network", "ls").split()
    assert netengine("network", "ls", "-q") == docker("network", "ls", "-q")
    assert netengine("network", "ls", "--no-trunc", "-q") == docker("network", "ls", "--no-trunc", "-q")
    assert netengine("network", "ls", "--format", "{{.Name}}") == docker("network", "ls", "--format", "{{.Name}}")


def test_ps_is_the_table_that_docker_prints(lab: Lab, docker: Client, netengine: Client):
    lab.serve("web", "-p", "8080:80")
    netengine("create", "--name", "other", "host", "true")

    def columns(client: Client) -> list[list[str]]:
        return [re.split(r"\s{2,}", line.strip()) for line in client("ps", "-a").splitlines()]

    for _ in range(3):  # a second may pass between the two
        mine, theirs = columns(netengine), columns(docker)
        if mine == theirs:
            break
    assert mine == theirs
    assert netengine("ps", "-q", "--no-trunc") == docker("ps", "-q", "--no-trunc")
    assert netengine("port", "web").splitlines() == docker("port", "web").splitlines()


@pytest.mark.parametrize("words", [["network", "ls"], ["ps", "-a"]])
def test_format_json_is_one_object_a_line(lab: Lab, netengine: Client, words: list[str]):
    netengine("create", "--name", "web", "host", "true")
    rows = [json.loads(line) for line in netengine(*words, "--format", "json").splitlines()]
    assert rows
    assert all(isinstance(row, dict) for row in rows)


def test_inspect_is_dockers(lab: Lab, docker: Client, netengine: Client):
    lab.serve("web", "-p", "8080:80")
    mine, theirs = netengine.inspect("web"), docker.inspect("web")
    assert mine["Id"] == theirs["Id"]
    assert mine["NetworkSettings"]["Networks"] == theirs["NetworkSettings"]["Networks"]
    assert netengine("inspect", "-f", "{{.State.Status}}", "web") == "running"
    (network,) = netengine.json("network", "inspect", "bridge")
    assert network["Name"] == "bridge"


def test_connect_disconnect_and_prune(lab: Lab, netengine: Client):
    netengine("network", "create", "--subnet", "10.20.0.0/24", "blue")
    netengine("network", "create", "unused")
    lab.serve("web", client=netengine)
    netengine("network", "connect", "--ip", "10.20.0.9", "blue", "web")
    assert lab.here.fetch("10.20.0.9", 80).startswith("web sees")
    netengine("network", "disconnect", "blue", "web")
    assert "eth1" not in lab.sandbox("web").links()
    assert "unused" in netengine("network", "prune", "-f")
    assert lab.networks() == {"bridge", "host", "none"}


def test_create_start_stop_logs(lab: Lab, netengine: Client):
    identity = netengine("create", "--name", "job", "host", "sh", "-c", "echo words; exit 0")
    assert HEX64.fullmatch(identity)
    netengine("start", "job")
    eventually(lambda: lab.state("job")["Status"] == "exited")
    assert netengine("logs", "job") == "words"
    lab.serve("web", client=netengine)
    netengine("stop", "-t", "1", "web")
    assert lab.state("web")["Running"] is False


@pytest.mark.parametrize(
    ("command", "code"), [(["sh", "-c", "exit 3"], 3), (["/no/such"], 127), (["/etc/passwd"], 126), (["true"], 0)]
)
def test_run_ends_with_the_exit_status(lab: Lab, netengine: Client, command: list[str], code: int):
    assert netengine.run("run", "--rm", "host", *command).returncode == code
    eventually(lambda: lab.containers() == set())


def test_run_reads_standard_input_and_keeps_the_streams_apart(netengine: Client):
    done = netengine.run("run", "--rm", "-i", "host", "sh", "-c", "cat; echo err >&2", stdin="words\n")
    assert (done.stdout, done.stderr) == ("words\n", "err\n")


def test_run_on_a_terminal(lab: Lab, netengine: Client):
    terminal = netengine.terminal("run", "--rm", "-it", "host", "sh")
    terminal.expect(r"[#$] ")
    terminal.type("stty size; echo $((6 * 7))\n")
    terminal.expect(r"24 80")
    terminal.expect(r"\b42\r\n")
    terminal.type("exit 3\n")
    assert terminal.end() == 3
    eventually(lambda: lab.containers() == set())


def test_exec_on_a_terminal_and_without(lab: Lab, netengine: Client):
    lab.serve("web", "--hostname", "www")
    assert netengine("exec", "web", "hostname") == "www"
    assert netengine.run("exec", "web", "sh", "-c", "exit 5").returncode == 5
    terminal = netengine.terminal("exec", "-it", "web", "sh")
    terminal.expect(r"[#$] ")
    terminal.type("exit 4\n")
    assert terminal.end() == 4


def test_info_version_and_events(lab: Lab, netengine: Client):
    assert "1.51" in netengine("version")
    assert "Containers: 0" in netengine("info")
    since = netengine("info", "--format", "{{.SystemTime}}")
    netengine("network", "create", "blue")
    until = netengine("info", "--format", "{{.SystemTime}}")
    told = netengine("events", "--since", since, "--until", until, "--format", "{{.Type}} {{.Action}}")
    assert told.splitlines() == ["network create"]


def test_errors_go_to_standard_error_with_exit_status_1_and_125_for_run(lab: Lab, netengine: Client):
    done = netengine.run("network", "rm", "nope")
    assert (done.returncode, done.stdout) == (1, "")
    assert "network nope not found" in done.stderr
    assert netengine.refused("run", "--network", "nope", "host", "true").code == 125
    lab.serve("web", "-p", "8080:80")
    refused = netengine.refused("run", "--rm", "-p", "8080:80", "host", "true")
    assert "Bind for 0.0.0.0:8080 failed: port is already allocated" in refused.text
    assert netengine.refused("network", "create", "bridge").code == 1


def test_without_a_daemon_it_says_where_it_looked(netengine: Client):
    done = netengine.run("-H", "unix:///run/nobody.sock", "ps")
    assert done.returncode == 1
    assert "/run/nobody.sock" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["network", "create"], ["network", "connect"], ["run"], ["exec"], ["explain"]])
def test_help_has_an_example(netengine: Client, words: list[str]):
    usage, _, examples = netengine(*words, "--help").partition("Examples:")
    assert "Usage:" in usage
    assert f"netengine {' '.join(words)} " in examples


def test_explain_prints_commands_that_name_what_exists(lab: Lab, netengine: Client):
    identity = netengine("network", "create", "--subnet", "10.20.0.0/24", "blue")
    lab.serve("web", "--network", "blue", "-p", "8080:80")
    network = netengine("explain", "blue")
    assert f"ip link add name br-{identity[:12]}" in network or f"ip link add br-{identity[:12]}" in network
    assert "10.20.0.1/24" in network
    container = netengine("explain", "web")
    assert "10.20.0.2" in container
    assert "nft " in container
    assert "8080" in container
    assert "nope" in netengine.refused("explain", "nope").text
