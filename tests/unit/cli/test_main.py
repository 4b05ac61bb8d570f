"""The front: help, mistakes, exit statuses, completion, and what start-up may load."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from netengine.cli import catalogue, help
from netengine.cli.flags import parse

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize("name", catalogue.PLACES)
def test_catalogue_and_commands_agree(name):
    command = catalogue.load(name)
    assert command.name == name
    own = {row: summary for _, rows in catalogue.GROUPS for row, _, summary in rows}
    assert name in catalogue.HIDDEN or command.summary == own[name]


@pytest.mark.parametrize("name", [name for name in catalogue.PLACES if not name.startswith("_")])
def test_every_help_has_examples_that_parse(name):
    command = catalogue.load(name)
    assert 1 <= len(command.examples) <= 3
    assert "Examples:" in (help.page([name]) or "")
    names = [flag.name for flag in command.flags] + [flag.short for flag in command.flags if flag.short]
    assert len(names) == len(set(names))
    for line, _ in command.examples:
        if line.startswith(f"netengine {name} ") and "'" not in line and ">" not in line:
            rest = line.split()[1 + len(name.split()) :]
            command.check_arguments(parse(command.flags, rest, wrapped=command.wrapped, about=name)[1])


def test_aliases_lead_somewhere():
    assert set(catalogue.ALIASES.values()) <= set(catalogue.PLACES)


def test_the_front_page_teaches(cli):
    result = cli("--help")
    assert result.status == 0
    for text in (
        "network create",
        "NETENGINE_HOST",
        "unix:///run/netengine/netengine.sock",
        "-p 8080:80",
        "explain app",
    ):
        assert text in result.out
    assert cli().out == cli("help").out == result.out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["network"], "Usage:  netengine network COMMAND"),
        (["network", "--help"], "Usage:  netengine network COMMAND"),
        (["network", "ls", "--help"], "Usage:  netengine network ls [OPTIONS]"),
        (["help", "network", "ls"], "Usage:  netengine network ls [OPTIONS]"),
        (["container", "ls", "-h"], "Usage:  netengine ps [OPTIONS]"),
        (["run", "--help"], "IMAGE [COMMAND] [ARG...]"),
    ],
)
def test_help_pages(cli, words, text):
    result = cli(*words)
    assert (result.status, text in result.out) == (0, True)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["netwrok"], 1, "'netwrok' is not a netengine command; did you mean: network"),
        (["network", "sl"], 1, "'network sl' is not a netengine command"),
        (["help", "nonsense"], 1, "'nonsense' is not a netengine command"),
        (["network", "ls", "--qiet"], 125, "unknown flag: --qiet (did you mean --quiet?)"),
        (["--hots", "x"], 125, "unknown flag: --hots (did you mean --host?)"),
        (["network", "rm"], 1, "requires at least 1 argument (NETWORK [NETWORK...]), not 0"),
        (["network", "ls", "x"], 1, "takes no arguments, and 'x' is one"),
        (["port", "a", "b", "c"], 1, "requires at most 2 arguments"),
        (["rename", "a"], 1, "requires exactly 2 arguments (CONTAINER NEW_NAME), not 1"),
        (["-H", "ssh://x", "ps"], 1, "unsupported host 'ssh://x'"),
        (["-H", "unix:///none.sock", "ps"], 1, "Is it running? Start it with: netengined"),
        (["-H", "unix:///none.sock", "run", "host"], 125, "Is it running? Start it with: netengined"),
        (["-H", "unix:///none.sock", "rm", "a", "b"], 1, "Is it running? Start it with: netengined"),
    ],
)
def test_mistakes_are_one_line(cli, words, status, message):
    result = cli(*words)
    assert result.status == status
    assert result.err.startswith("netengine: ") and message in result.err
    assert result.err.count("\n") == 1 and result.out == ""


def test_version_flag(cli):
    assert cli("-v").out.startswith("netengine version ")


def test_a_reader_that_has_gone_is_no_error(engine, process):
    engine.on("GET /containers/a/json", {"x": "y" * 300_000})
    child = process("inspect", "a")
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait(10) == 141


def test_a_name_that_the_locale_cannot_show_is_shown_escaped(engine, process, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    engine.on("GET /networks", [{"Name": "caf\u00e9\ud800", "Id": "a" * 64, "Driver": "bridge", "Scope": "local"}])
    out, err = process("network", "ls", "--format", "{{.Name}}").communicate(timeout=10)
    assert (out, err) == (b"caf\\xe9\\ud800\n", b"")


def test_ctrl_c_is_quiet(engine, process):
    def stuck(request):
        child.send_signal(signal.SIGINT)
        request.connection.recv(1)

    engine.on("GET /events", stuck)
    child = process("events")
    assert child.stderr.read() == b""
    assert child.wait(10) == 130


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["net"], ["network"]),
        (["network", "in"], ["inspect"]),
        (["network", "ls", "--no"], ["--no-trunc"]),
        (["network", "rm", ""], ["app", "db"]),
        (["run", "--network", "a"], ["app"]),
        (["network", "connect", "a"], ["app"]),
        (["network", "connect", "--ip", "1.2.3.4", "app", ""], ["web"]),
        (["stop", "w"], ["web"]),
        (["run", "--name", ""], []),
        (["-H", "unix:///none.sock", "stop", ""], []),
        (["--ho"], ["--host"]),
    ],
)
def test_completion(engine, cli, words, expected):
    engine.on("GET /networks", [{"Name": "app"}, {"Name": "db"}])
    engine.on("GET /containers/json", [{"Names": ["/web"]}])
    assert cli("__complete", "--", *words).out.split() == expected


def test_the_completion_script_is_valid_bash(cli):
    script = cli("completion", "bash").out
    assert subprocess.run(["bash", "-n"], input=script.encode(), check=False).returncode == 0
    assert "no completion for 'fish'" in cli("completion", "fish").err


def test_the_common_path_loads_little(engine):
    """Start-up time is a feature: what a listing imports is bounded here, so that nobody makes it slow by accident."""
    engine.on("GET /networks", [])
    code = (
        "import sys; before = set(sys.modules); from netengine.cli.main import main; main(['network', 'ls']);"
        "print(*sorted(set(sys.modules) - before))"
    )
    run = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"NETENGINE_HOST": engine.host, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(run.stdout.splitlines()[-1].split())
    heavy = {"typing", "dataclasses", "inspect", "argparse", "click", "rich", "http.client", "msgspec", "ipaddress"}
    assert not loaded & (
        heavy | {"datetime", "threading", "difflib", "subprocess", "urllib.parse", "netengine.cli.run"}
    )


def test_imports_nothing_of_netengine_but_errors_and_version_and_the_lab():
    for path in sorted(Path(REPOSITORY, "netengine/cli").glob("*.py")):
        for line in path.read_text().splitlines():
            if "import" in line and "netengine" in line and not line.strip().startswith(("#", '"')):
                allowed = ["from netengine.cli", "from netengine.errors import", "from netengine import __version__"]
                allowed += ["from netengine.lab"] if path.name == "lab.py" else []
                if line.strip().startswith(("from netengine", "import netengine")):
                    assert line.strip().startswith(tuple(allowed)), f"{path.name}: {line}"
