"""The flags of run and create, as the request they make."""

from __future__ import annotations

import os

import pytest

from netengine.cli import containerspec, endpoints
from netengine.cli.flags import parse
from netengine.errors import Invalid


def _body(*words, detached=False, environ=None):
    options, (image, *command) = parse(containerspec.FLAGS, [*words, "host", "ls", "-l"], wrapped=True, about="x")
    return containerspec.body(options, image, command, detached=detached, environ=environ or {})


def test_the_plain_case():
    body = _body()
    assert (body["Image"], body["Cmd"]) == ("host", ["ls", "-l"])
    assert body["HostConfig"]["NetworkMode"] == "default"
    assert "NetworkingConfig" not in body and "Entrypoint" not in body
    assert (body["AttachStdin"], body["AttachStdout"], body["AttachStderr"]) == (False, True, True)


def test_interactive_and_detached():
    body = _body("-it")
    assert (body["Tty"], body["OpenStdin"], body["StdinOnce"], body["AttachStdin"]) == (True, True, True, True)
    body = _body("-i", detached=True)
    assert (body["OpenStdin"], body["StdinOnce"], body["AttachStdout"]) == (True, False, False)


def test_published_ports_are_exposed_too():
    body = _body("-p", "8080:80", "--expose", "90")
    assert body["ExposedPorts"] == {"80/tcp": {}, "90/tcp": {}}
    assert body["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}


def test_networks_in_the_long_form():
    body = _body("--network", "name=app,alias=a,alias=b,ip=10.1.0.7,driver-opt=k=v=w,gw-priority=5", "--network", "db")
    assert body["HostConfig"]["NetworkMode"] == "app"
    assert body["NetworkingConfig"]["EndpointsConfig"] == {
        "app": {
            "Aliases": ["a", "b"],
            "DriverOpts": {"k": "v=w"},
            "GwPriority": 5,
            "IPAMConfig": {"IPv4Address": "10.1.0.7"},
        },
        "db": {},
    }


def test_single_flags_belong_to_the_first_network():
    body = _body("--network", "app", "--network", "db", "--ip", "10.1.0.7", "--network-alias", "www")
    networks = body["NetworkingConfig"]["EndpointsConfig"]
    assert networks == {"app": {"IPAMConfig": {"IPv4Address": "10.1.0.7"}, "Aliases": ["www"]}, "db": {}}


@pytest.mark.parametrize("mode", ["host", "none", "bridge", "container:web"])
def test_modes_need_no_endpoint(mode):
    body = _body("--network", mode)
    assert body["HostConfig"]["NetworkMode"] == mode
    assert "NetworkingConfig" not in body


def test_links_go_to_the_default_bridge_or_to_the_network():
    assert _body("--link", "db:db")["HostConfig"]["Links"] == ["db:db"]
    body = _body("--network", "app", "--link", "db:db")
    assert (body["HostConfig"]["Links"], body["NetworkingConfig"]["EndpointsConfig"]["app"]["Links"]) == ([], ["db:db"])


def test_environment_flags_win_over_files_and_names_are_passed_on(tmp_path):
    path = tmp_path / "env"
    path.write_text("# note\n\n  A=1\nB=x y\nHOME\nUNSET\n")
    body = _body("-e", "A=2", "--env-file", str(path), "-e", "USER", "-e", "GONE", environ={"HOME": "/h", "USER": "u"})
    assert body["Env"] == ["A=1", "B=x y", "HOME=/h", "A=2", "USER=u", "GONE"]


def test_the_small_ones():
    body = _body(
        *("--entrypoint", "", "--sysctl", "net.core.somaxconn=9", "--add-host", "a:1.2.3.4", "--add-host", "b=[::1]"),
        *(
            "--tmpfs",
            "/run:size=1m",
            "-v",
            "./x:/y:ro",
            "--restart",
            "on-failure:3",
            "--stop-signal",
            "HUP",
            "-l",
            "k=v",
        ),
    )
    host = body["HostConfig"]
    assert body["Entrypoint"] == [""] and body["StopSignal"] == "HUP" and body["Labels"] == {"k": "v"}
    assert host["Sysctls"] == {"net.core.somaxconn": "9"}
    assert host["ExtraHosts"] == ["a:1.2.3.4", "b:::1"]
    assert host["Tmpfs"] == {"/run": "size=1m"}
    assert host["Binds"] == [f"{os.getcwd()}/x:/y:ro"]
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--network", "app", "--network", "app"], "network 'app' is specified multiple times"),
        (["--network", "name=app,ip=10.0.0.1", "--ip", "10.0.0.2"], "conflicting options: IPv4Address"),
        (["--network", "ip=10.0.0.1"], "names no network"),
        (["--network", "name=app,colour=red"], "invalid field 'colour=red'"),
        (["--network", "name=app,gw-priority=high"], "invalid gw-priority 'high'"),
        (["--network", ""], "invalid network ''"),
        (["--restart", "sometimes"], "invalid restart policy 'sometimes'"),
        (["--restart", "always:3"], "a count goes with on-failure only"),
        (["--restart", "always", "--rm"], "cannot specify both --restart and --rm"),
        (["--add-host", "web"], "bad format for add-host: 'web'"),
        (["--sysctl", "net.x"], "invalid sysctl 'net.x'"),
        (["-v", "/only"], "invalid volume specification: '/only'"),
        (["--tmpfs", "run"], "invalid tmpfs 'run'"),
        (["-e", "=x"], "invalid environment variable: '=x'"),
        (["--env-file", "/nowhere/env"], "cannot read --env-file /nowhere/env: No such file"),
        (["-a", "stdoops"], "invalid --attach stdoops"),
    ],
)
def test_refusals_name_the_value(words, message):
    with pytest.raises(Invalid) as caught:
        _body(*words)
    assert message in caught.value.message


def test_no_network_flag_is_docker_default():
    options, _ = parse(containerspec.FLAGS, [], wrapped=True, about="x")
    assert endpoints.attachments(options) == ("default", {})
