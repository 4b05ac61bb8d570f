"""What `netengine network ...` asks the daemon, and what it prints."""

from __future__ import annotations

import json

import pytest

NETWORKS = [
    {
        "Name": "none",
        "Id": "c" * 64,
        "Driver": "null",
        "Scope": "local",
        "Labels": {},
        "Created": "2026-01-31T10:00:00Z",
    },
    {
        "Name": "app",
        "Id": "0123456789ab" + "d" * 52,
        "Driver": "bridge",
        "Scope": "local",
        "EnableIPv4": True,
        "Internal": True,
        "Labels": {"tier": "front"},
        "Created": "2026-01-31T10:00:00.5+01:00",
    },
]


def test_ls_prints_dockers_columns_sorted_by_name(engine, cli):
    engine.on("GET /networks", NETWORKS)
    result = cli("network", "ls")
    assert result.out == (
        "NETWORK ID     NAME      DRIVER    SCOPE\n"
        "0123456789ab   app       bridge    local\n"
        "cccccccccccc   none      null      local\n"
    )
    assert (result.status, result.err) == (0, "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-q"], "0123456789ab\ncccccccccccc\n"),
        (["-q", "--no-trunc"], NETWORKS[1]["Id"] + "\n" + NETWORKS[0]["Id"] + "\n"),
        (["--format", "{{.Name}} {{.Internal}} {{.IPv4}}"], "app true true\nnone false false\n"),
        (["--format", '{{.Label "tier"}}|{{.Labels}}'], "front|tier=front\n|\n"),
        (
            ["--format", "table {{.Name}}\\t{{.CreatedAt}}"],
            "NAME      CREATED AT\napp       2026-01-31 09:00:00 +0000 UTC\nnone      2026-01-31 10:00:00 +0000 UTC\n",
        ),
    ],
)
def test_ls_formats(engine, cli, words, expected):
    engine.on("GET /networks", NETWORKS)
    assert cli("network", "ls", *words).out == expected


def test_ls_json_is_one_object_per_line(engine, cli):
    engine.on("GET /networks", NETWORKS)
    first, second = cli("network", "ls", "--format", "json").out.splitlines()
    assert json.loads(first)["Name"] == "app"
    assert "Label" not in json.loads(second)


def test_ls_of_nothing_still_prints_the_heading(engine, cli):
    engine.on("GET /networks", [])
    assert cli("network", "ls").out == "NETWORK ID   NAME      DRIVER    SCOPE\n"


def test_an_unknown_field_is_told_with_those_there_are(engine, cli):
    engine.on("GET /networks", NETWORKS)
    result = cli("network", "ls", "--format", "{{.Nme}}")
    assert result.status == 1
    assert "no field 'Nme'" in result.err and "Name" in result.err


def test_filters_reach_the_daemon_as_docker_sends_them(engine, cli):
    engine.on("GET /networks", [])
    cli("network", "ls", "-f", "driver=bridge", "--filter=name=a", "-fname=b")
    (request,) = engine.requests
    assert json.loads(request.query["filters"][0]) == {"driver": {"bridge": True}, "name": {"a": True, "b": True}}


def test_create_sends_everything_and_prints_the_id(engine, cli):
    engine.on("POST /networks/create", {"Id": "f" * 64, "Warning": "mind this"}, 201)
    result = cli(
        *("network", "create", "-d", "bridge", "--subnet", "10.1.0.0/24,fd00::/64", "--gateway", "10.1.0.254"),
        *("--ip-range", "10.1.0.128/25", "--aux-address", "nas=10.1.0.9", "--ipv6", "--ipv4=false", "--internal"),
        *("-o", "com.docker.network.driver.mtu=9000", "--label", "a=b", "--attachable", "app"),
    )
    assert (result.status, result.out, result.err) == (0, "f" * 64 + "\n", "WARNING: mind this\n")
    body = engine.requests[0].json
    assert body["IPAM"]["Config"] == [
        {
            "Subnet": "10.1.0.0/24",
            "IPRange": "10.1.0.128/25",
            "Gateway": "10.1.0.254",
            "AuxiliaryAddresses": {"nas": "10.1.0.9"},
        },
        {"Subnet": "fd00::/64"},
    ]
    assert (body["EnableIPv6"], body["EnableIPv4"], body["Internal"], body["Attachable"]) == (True, False, True, True)
    assert (body["Options"], body["Labels"]) == ({"com.docker.network.driver.mtu": "9000"}, {"a": "b"})


def test_create_leaves_unasked_families_to_the_daemon(engine, cli):
    engine.on("POST /networks/create", {"Id": "f"}, 201)
    cli("network", "create", "app")
    assert not {"EnableIPv4", "EnableIPv6", "ConfigFrom"} & set(engine.requests[0].json)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gateway", "10.1.0.1"], "every ip-range or gateway must have a corresponding subnet"),
        (["--subnet", "10.1.0.0/24", "--subnet", "10.1.0.0/16"], "multiple overlapping subnet configuration"),
        (["--subnet", "10.1.0.0/33"], "invalid subnet '10.1.0.0/33'"),
        (["--subnet", "10.1.0.0/24", "--aux-address", "x=10.2.0.1"], "no matching subnet for aux-address 10.2.0.1"),
        (["--label", "=x"], "invalid value '=x' for --label"),
    ],
)
def test_create_refuses_what_belongs_nowhere(engine, cli, words, message):
    result = cli("network", "create", *words, "app")
    assert (result.status, engine.requests) == (1, [])
    assert result.err.startswith("netengine: ") and message in result.err


def test_rm_goes_on_after_a_refusal_and_exits_1(engine, cli):
    engine.on("DELETE /networks/a", status=204)
    engine.refuse("DELETE /networks/b", 404, "network b not found")
    engine.on("DELETE /networks/c", status=204)
    result = cli("network", "rm", "a", "b", "c")
    assert (result.status, result.out, result.err) == (1, "a\nc\n", "netengine: network b not found\n")


def test_rm_force_forgives_only_what_is_not_there(engine, cli):
    engine.refuse("DELETE /networks/gone", 404, "network gone not found")
    engine.refuse("DELETE /networks/busy", 403, "network busy has active endpoints")
    result = cli("network", "rm", "-f", "gone", "busy")
    assert (result.status, result.err) == (1, "netengine: network busy has active endpoints\n")


def test_names_cannot_leave_their_path_segment(engine, cli):
    cli("network", "rm", "../containers/web?force=1")
    assert engine.requests[0].path == "/networks/../containers/web?force=1"  # decoded: it came in one segment
    assert engine.requests[0].query == {}


def test_connect_sends_only_what_was_asked(engine, cli):
    engine.on("POST /networks/app/connect")
    assert cli("network", "connect", "app", "web").status == 0
    cli("network", "connect", "--ip", "10.1.0.7", "--alias", "www", "--gw-priority", "-1", "app", "web")
    plain, full = engine.requests
    assert plain.json == {"Container": "web", "EndpointConfig": {}}
    assert full.json["EndpointConfig"] == {
        "IPAMConfig": {"IPv4Address": "10.1.0.7"},
        "Aliases": ["www"],
        "GwPriority": -1,
    }


def test_disconnect(engine, cli):
    engine.on("POST /networks/app/disconnect")
    assert cli("network", "disconnect", "-f", "app", "web").status == 0
    assert engine.requests[0].json == {"Container": "web", "Force": True}


def test_prune(engine, cli, monkeypatch):
    engine.on("POST /networks/prune", {"NetworksDeleted": ["a", "b"]})
    assert cli("network", "prune", "-f").out == "Deleted Networks:\na\nb\n\n"
    monkeypatch.setattr("builtins.input", lambda: "n")
    assert "Are you sure" in cli("network", "prune").out
    assert len(engine.requests) == 1


def test_inspect_prints_what_it_found_and_names_what_it_did_not(engine, cli):
    engine.on("GET /networks/app", {"Name": "app", "IPAM": {"Config": [{"Subnet": "10.1.0.0/24"}]}})
    engine.refuse("GET /networks/nope", 404, "network nope not found")
    result = cli("network", "inspect", "app", "nope")
    assert json.loads(result.out)[0]["Name"] == "app"
    assert (result.status, result.err) == (1, "netengine: network nope not found\n")
    assert cli("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}}{{end}}", "app").out == "10.1.0.0/24\n"
