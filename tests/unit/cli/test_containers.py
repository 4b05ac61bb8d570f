"""ps, rm, port, top, wait, images, info, events, explain and the rest: one call each, and its output."""

from __future__ import annotations

import io
import json
import sys
import time
from types import SimpleNamespace

import pytest

WEB = {
    "Id": "1" * 64,
    "Names": ["/web", "/db/alias"],
    "Image": "host",
    "Command": "python3 -m http.server 80",
    "Status": "Up 3 seconds",
    "State": "running",
    "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}],
    "Labels": {"tier": "front"},
    "NetworkSettings": {"Networks": {"db": {}, "app": {}}},
}
PORTS = {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}], "9/udp": None}


def test_ps_looks_like_dockers(engine, cli):
    engine.on("GET /containers/json", [{**WEB, "Created": int(time.time()) - 120}])
    result = cli("ps")
    assert result.out == (
        "CONTAINER ID   IMAGE     COMMAND                  CREATED         STATUS         PORTS                  NAMES\n"
        '111111111111   host      "python3 -m http.ser…"   2 minutes ago   Up 3 seconds   0.0.0.0:8080->80/tcp   web\n'
    )
    assert engine.requests[0].query == {}


def test_ps_flags_become_the_query(engine, cli):
    engine.on("GET /containers/json", [{**WEB, "Created": 0}])
    assert cli("ps", "-aq", "--no-trunc").out == "1" * 64 + "\n"
    cli("ps", "-l")
    cli("ps", "-n", "3", "-s")
    assert [request.query for request in engine.requests] == [
        {"all": ["1"]},
        {"all": ["1"], "limit": ["1"]},
        {"all": ["1"], "limit": ["3"], "size": ["1"]},
    ]
    out = cli("container", "ls", "--format", '{{.Names}} {{.Networks}} {{.Label "tier"}} {{.State}}').out
    assert out == "web app,db front running\n"


@pytest.mark.parametrize(
    ("words", "route", "query"),
    [
        (("stop", "-t", "1", "web"), "POST /containers/web/stop", {"t": ["1"]}),
        (("stop", "-t", "0", "web"), "POST /containers/web/stop", {"t": ["0"]}),
        (("restart", "web"), "POST /containers/web/restart", {}),
        (("kill", "web"), "POST /containers/web/kill", {"signal": ["KILL"]}),
        (("kill", "-s", "HUP", "web"), "POST /containers/web/kill", {"signal": ["HUP"]}),
        (("start", "web"), "POST /containers/web/start", {}),
        (("container", "rm", "-fv", "web"), "DELETE /containers/web", {"force": ["1"], "v": ["1"]}),
    ],
)
def test_verbs_print_the_name(engine, cli, words, route, query):
    engine.on(route, status=204)
    result = cli(*words)
    assert (result.status, result.out) == (0, "web\n")
    assert engine.asked(route)[0].query == query


def test_starting_what_runs_is_no_error(engine, cli):
    engine.on("POST /containers/web/start", status=304)
    assert cli("start", "web").status == 0


def test_rename(engine, cli):
    engine.on("POST /containers/web/rename", status=204)
    assert cli("rename", "web", "old").status == 0
    assert engine.requests[0].query == {"name": ["old"]}


def test_wait_prints_exit_codes(engine, cli):
    engine.on("POST /containers/a/wait", {"StatusCode": 0})
    engine.on("POST /containers/b/wait", {"StatusCode": 137})
    assert cli("wait", "a", "b").out == "0\n137\n"


def test_port(engine, cli):
    engine.on("GET /containers/web/json", {"NetworkSettings": {"Ports": PORTS}})
    assert cli("port", "web").out == "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n"
    assert cli("port", "web", "80").out == "0.0.0.0:8080\n[::]:8080\n"
    result = cli("port", "web", "9/udp")
    assert (result.status, result.err) == (
        1,
        "netengine: no public port '9/udp' published for web; published: 80/tcp\n",
    )


def test_top(engine, cli):
    engine.on("GET /containers/web/top", {"Titles": ["PID", "CMD"], "Processes": [["7", "sleep 9"]]})
    assert cli("top", "web", "-o", "pid,cmd").out == "PID                 CMD\n7                   sleep 9\n"
    assert engine.requests[0].query == {"ps_args": ["-o pid,cmd"]}


def test_container_prune(engine, cli):
    engine.on("POST /containers/prune", {"ContainersDeleted": ["a"], "SpaceReclaimed": 0})
    assert cli("container", "prune", "-f").out == "Deleted Containers:\na\n\nTotal reclaimed space: 0B\n"


def test_inspect_tries_containers_then_networks_then_images(engine, cli):
    engine.on("GET /networks/app", {"Name": "app"})
    engine.on("GET /images/host/json", {"Id": "sha256:1"})
    result = cli("inspect", "app", "host", "nope")
    assert [sorted(item) for item in json.loads(result.out)] == [["Name"], ["Id"]]
    assert (result.status, result.err) == (1, "netengine: No such container, network or image: nope\n")
    assert "valid value for --type" in cli("inspect", "--type", "volume", "x").err


@pytest.mark.parametrize("kind", ["multiplexed-stream", None])
def test_logs_come_apart_into_stdout_and_stderr(engine, cli, kind):
    media = f"Content-Type: application/vnd.docker.{kind}\r\n" if kind else ""
    body = engine.frame(1, b"out\n") + engine.frame(2, b"err\n") + engine.frame(1, b"more\n")
    engine.raw("GET /containers/web/logs", f"HTTP/1.1 200 OK\r\n{media}\r\n".encode() + body)
    engine.on("GET /containers/web/json", {"Config": {"Tty": False}})
    result = cli("logs", "-t", "--tail", "5", "--since", "1700000000", "web")
    assert (result.status, result.out, result.err) == (0, "out\nmore\n", "err\n")
    assert engine.requests[0].query == {
        "stdout": ["1"],
        "stderr": ["1"],
        "timestamps": ["1"],
        "tail": ["5"],
        "since": ["1700000000"],
    }


def test_logs_of_a_terminal_are_raw(engine, cli):
    raw = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nplain\r\n"
    engine.raw("GET /containers/web/logs", raw)
    assert cli("logs", "web").out == "plain\r\n"


def test_images(engine, cli):
    image = {"Id": "sha256:" + "ab" * 32, "Created": int(time.time()) - 7200, "Size": 117_000_000}
    engine.on("GET /images/json", [{**image, "RepoTags": ["small:1", "reg:5000/x:y"]}, {**image, "RepoTags": []}])
    assert cli("image", "ls").out == (
        "REPOSITORY   TAG       IMAGE ID       CREATED       SIZE\n"
        "small        1         abababababab   2 hours ago   117MB\n"
        "reg:5000/x   y         abababababab   2 hours ago   117MB\n"
        "<none>       <none>    abababababab   2 hours ago   117MB\n"
    )


def test_import_streams_the_archive_and_prints_the_id(engine, cli, tmp_path):
    archive = tmp_path / "rootfs.tar"
    archive.write_bytes(b"tar" * 50_000)
    engine.on("POST /images/create", {"status": "sha256:abc"})
    result = cli("import", "-c", 'CMD ["sh"]', "-c", "ENV A=1", str(archive), "small:1")
    assert (result.status, result.out) == (0, "sha256:abc\n")
    (request,) = engine.requests
    assert request.body == b"tar" * 50_000
    assert request.query == {"fromSrc": ["-"], "repo": ["small"], "tag": ["1"], "changes": ['CMD ["sh"]', "ENV A=1"]}


def test_import_from_standard_input_and_an_error_in_the_stream(engine, cli, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"junk"), isatty=lambda: False))
    engine.on("POST /images/create", {"errorDetail": {"message": "invalid tar header"}, "error": "x"})
    result = cli("import", "-", "bad")
    assert (result.status, result.err) == (1, "netengine: invalid tar header\n")
    assert f"cannot read {tmp_path}/none: No such file" in cli("import", f"{tmp_path}/none").err
    assert "fetch it first" in cli("import", "http://x/y.tar").err


def test_rmi_and_tag(engine, cli):
    engine.on("DELETE /images/small:1", [{"Untagged": "small:1"}, {"Deleted": "sha256:abc"}])
    assert cli("rmi", "small:1").out == "Untagged: small:1\nDeleted: sha256:abc\n"
    engine.on("POST /images/small/tag", status=201)
    assert cli("tag", "small", "reg:5000/small:v2").status == 0
    assert engine.requests[-1].query == {"repo": ["reg:5000/small"], "tag": ["v2"]}


def test_info_and_version(engine, cli):
    engine.on("GET /info", {"ServerVersion": "0.1.0", "NCPU": 2, "MemTotal": 2**33, "Warnings": ["WARNING: no ipv6"]})
    result = cli("info")
    assert "Server Version: 0.1.0\nCPUs: 2\nTotal Memory: 8GiB\n" in result.out
    assert result.err == "WARNING: no ipv6\n"
    assert cli("info", "-f", "{{.NCPU}}").out == "2\n"
    engine.on("GET /version", {"Version": "0.1.0", "ApiVersion": "1.51", "MinAPIVersion": "1.24"})
    assert " API version:      1.51 (minimum version 1.24)\n" in cli("version").out
    assert cli("version", "--format", "{{.Server.Version}}").out == "0.1.0\n"


def test_version_still_tells_the_clients_half(engine, cli):
    result = cli("-H", "unix:///nowhere.sock", "version")
    assert (result.status, result.out[:7]) == (1, "Client:")
    assert "Is it running?" in result.err


def test_events(engine, cli):
    event = {
        "Type": "network",
        "Action": "create",
        "Actor": {"ID": "f" * 12, "Attributes": {"type": "bridge", "name": "app"}},
        "time": 1769853600,
        "timeNano": 1769853600000000007,
    }
    engine.on("GET /events", event)
    line = "2026-01-31T10:00:00.000000007+00:00 network create ffffffffffff (name=app, type=bridge)\n"
    assert cli("events", "--until", "1", "--filter", "type=network").out == line
    assert cli("events", "--format", "{{.Action}} {{.Actor.Attributes.name}}").out == "create app\n"
    assert json.loads(cli("events", "--format", "json").out) == event
    assert json.loads(engine.requests[0].query["filters"][0]) == {"type": {"network": True}}


def test_explain_is_a_script(engine, cli):
    steps = [
        {"Command": "ip link add br0 type bridge", "Why": "the bridge"},
        {"Command": "ip link set br0 up", "Why": "the bridge"},
        {"Command": "sysctl -w net.ipv4.ip_forward=1", "Why": "between\ninterfaces"},
    ]
    engine.on("GET /netengine/explain", {"Kind": "network", "Name": "app", "Id": "f" * 64, "Steps": steps})
    assert cli("explain", "app").out == (
        "# network app (ffffffffffff)\n\n# the bridge\nip link add br0 type bridge\nip link set br0 up\n\n"
        "# between interfaces\nsysctl -w net.ipv4.ip_forward=1\n"
    )
    assert engine.requests[0].query == {"ref": ["app"]}
