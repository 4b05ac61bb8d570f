"""The audit trail as its reader sees it: who, when, what, with what outcome; kept over a restart."""

from __future__ import annotations

import json

from tests.clients.lab import Lab
from tests.daemons import Client


def trail(netengine: Client, since: str) -> list[dict[str, str]]:
    """The records since a time: action, id and attributes of each."""
    lines = netengine("events", "--audit", "--since", since, "--until", "0s", "--format", "json").splitlines()
    records = [json.loads(line) for line in lines]
    return [{"action": r["Action"], "path": r["Actor"]["ID"], **r["Actor"]["Attributes"]} for r in records]


def test_a_change_is_written_down_with_who_asked_and_what_came_of_it(
    lab: Lab, docker: Client, netengine: Client
) -> None:
    docker("network", "create", "traced")
    docker.refused("network", "create", "traced")
    docker("run", "-d", "--name", "audited", "--network", "traced", "-e", "TOKEN=s3cret", "host", "sleep", "60")
    docker("exec", "audited", "true")
    docker("ps")
    lab.daemon.restart()
    docker("rm", "-f", "audited")

    records = trail(netengine, "1m")
    made, refused = [one for one in records if "traced" in one.get("asked", "") and "/networks/create" in one["path"]][
        -2:
    ]
    assert (made["uid"], made["user"], made["command"], made["status"]) == ("0", "root", "docker", "201")
    assert int(made["pid"]) > 0
    assert refused["status"] == "409" and refused["error"] == "network with name traced already exists"
    (created,) = [one for one in records if one.get("query") == "name=audited"]
    assert '"Image":"host"' in created["asked"] and '"TOKEN=..."' in created["asked"]
    assert "s3cret" not in json.dumps(records)
    begun = [one["status"] for one in records if one["path"].endswith("/start") and "/exec/" in one["path"]]
    assert begun[0] == "begun", "a session is written down when it begins"
    assert any('"Cmd":["true"]' in one.get("asked", "") for one in records)
    assert records[-1]["action"] == "DELETE", "the trail goes on after a restart"
    docker_s = {one["action"] for one in records if one.get("command") == "docker"}
    assert docker_s == {"POST", "DELETE"}, "who only reads leaves no record"


def test_what_leads_nowhere_is_written_down(lab: Lab, netengine: Client) -> None:
    """A path and methods that the API does not have, and what is no HTTP."""
    daemon = lab.daemon
    assert daemon.request("GET", "/v1.41/secret/place").status == 404
    assert daemon.request("POST", "/nowhere?x=1", {"Env": ["TOKEN=s3cret"]}).status == 404
    assert daemon.request("PATCH", "/containers/json").status == 404
    for raw in (b"BREW /containers/json HTTP/1.1\r\n\r\n", b"\x16\x03\x01" * 5):
        with daemon.connect() as sock:
            sock.sendall(raw)
            assert sock.recv(64).startswith(b"HTTP/1.1 400 ")
    records = [one for one in trail(netengine, "1m") if one.get("error") == "page not found" or one["status"] == "400"]
    assert [(one["action"], one["path"], one["status"]) for one in records[-5:]] == [
        ("GET", "/v1.41/secret/place", "404"),
        ("POST", "/nowhere", "404"),
        ("PATCH", "/containers/json", "404"),
        ("MALFORMED", "", "400"),
        ("MALFORMED", "", "400"),
    ]
    assert {one["user"] for one in records[-5:]} == {"root"}
    assert "method" in records[-2]["error"] and records[-4]["query"] == "x=1"
    assert "s3cret" not in json.dumps(records)


def test_the_trail_as_people_read_it(docker: Client, netengine: Client) -> None:
    docker("network", "create", "shown")
    last = netengine("events", "--audit", "--since", "1h", "--until", "0s").splitlines()[-1]
    assert " audit POST /v1." in last and "command=docker" in last and "status=201" in last
    refused = netengine.refused("events", "--audit", "--filter", "type=network")
    assert "--filter does not go together with --audit" in refused.text
