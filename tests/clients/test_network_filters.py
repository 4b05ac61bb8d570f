"""Finding networks and clearing them away with the real `docker` command: filters, labels, odd names, references."""

from __future__ import annotations

import pytest

from tests.clients.lab import Lab
from tests.daemons import Client

PREDEFINED = ["bridge", "host", "none"]


def listed(docker: Client, *filters: str) -> list[str]:
    flags = [word for f in filters for word in ("--filter", f)]
    return docker("network", "ls", *flags, "--format", "{{.Name}}").splitlines()


@pytest.fixture
def shop(lab: Lab, docker: Client) -> None:
    docker("network", "create", "--label", "tier=front", "--label", "keep", "app")
    docker("network", "create", "--label", "tier=back", "app-2")
    docker("network", "create", "my-app")
    docker("run", "-d", "--name", "web", "--network", "app", "sandbox")


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["name=app"], ["app", "app-2", "my-app"]),
        (["name=^app$"], ["app"]),
        (["name=^app"], ["app", "app-2"]),
        (["name=app.*2", "name=^my"], ["app-2", "my-app"]),
        (["name=nothing"], []),
        (["label=tier"], ["app", "app-2"]),
        (["label=tier=front"], ["app"]),
        (["label=tier", "label=keep"], ["app"]),
        (["driver=bridge", "type=custom"], ["app", "app-2", "my-app"]),
        (["driver=null"], ["none"]),
        (["driver=macvlan"], []),
        (["type=builtin"], PREDEFINED),
        (["scope=local", "dangling=true"], ["app-2", "my-app"]),
        (["dangling=false"], ["app", *PREDEFINED]),
        (["scope=swarm"], []),
    ],
    ids=str,
)
def test_filters_of_ls(docker: Client, shop: None, filters: list[str], names: list[str]):
    assert listed(docker, *filters) == sorted(names)


def test_a_part_of_an_id(docker: Client, shop: None):
    identity = docker.inspect("app")["Id"]
    assert listed(docker, f"id={identity}") == ["app"]
    assert listed(docker, f"id={identity[20:40]}") == ["app"]
    assert listed(docker, f"id=^{identity[:12]}") == ["app"]


@pytest.mark.parametrize(
    ("filter", "words"),
    [
        ("colour=blue", "invalid filter 'colour'"),
        ("type=odd", "invalid filter: 'type'='odd'"),
        ("dangling=perhaps", "invalid filter 'dangling=perhaps'"),
        ("name=(a+)+$", "invalid filter"),
    ],
)
def test_filters_that_cannot_be(docker: Client, filter: str, words: str):
    assert words in docker.refused("network", "ls", "--filter", filter).text


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ([], ["app"]),
        (["label=tier"], ["app", "my-app"]),
        (["label!=tier=back"], ["app", "app-2"]),
        (["until=10m"], ["app", "app-2", "my-app"]),
        (["until=2999-01-01"], ["app"]),
        (["until=0.001s"], ["app"]),
    ],
    ids=str,
)
def test_prune_takes_what_its_filters_say(docker: Client, shop: None, filters: list[str], left: list[str]):
    flags = [word for f in filters for word in ("--filter", f)]
    docker("network", "prune", "-f", *flags)
    assert listed(docker, "type=custom") == left


@pytest.mark.parametrize("filter", ["until=yesterday", "until=5 m", "name=app"])
def test_prune_refuses_what_it_does_not_understand_and_removes_nothing(docker: Client, shop: None, filter: str):
    assert "invalid filter" in docker.refused("network", "prune", "-f", "--filter", filter).text
    assert listed(docker, "type=custom") == ["app", "app-2", "my-app"]


@pytest.mark.parametrize("name", ["test@#$", "größe", "a b", "x:y=z", "%41", "-dash", "a" * 255])
def test_names_of_every_kind(lab: Lab, docker: Client, name: str):
    identity = docker("network", "create", "--", name)
    assert docker("network", "inspect", "-f", "{{.Id}}", "--", name) == identity
    docker("run", "-d", "--name", "web", "--network", identity, "sandbox")
    docker("network", "disconnect", "--", name, "web")
    assert docker("network", "rm", "--", name) == name
    assert listed(docker, "type=custom") == []


def test_references_and_what_is_ambiguous(lab: Lab, docker: Client):
    """Full id, then name, then the beginning of an id."""
    first = docker("network", "create", "one")
    second = docker("network", "create", first[:12])  # a name that is the beginning of another's id
    assert docker("network", "inspect", "-f", "{{.Id}}", first[:12]) == second
    assert docker("network", "inspect", "-f", "{{.Id}}", first[:13]) == first
    names = [f"n{number}" for number in range(20)]  # among 20 ids two begin with the same of 16 digits
    for name in names:
        docker("network", "create", name)
    ids = [n["Id"] for n in lab.api("GET", "/networks").json]
    digit = next(i[0] for i in ids if sum(other.startswith(i[0]) for other in ids) > 1)
    refused = docker.refused("network", "inspect", digit).text
    count = sum(i.startswith(digit) for i in ids)
    assert f"network {digit} is ambiguous ({count} matches found based on ID prefix)" in refused


def test_verbose_inspection(lab: Lab, docker: Client, shop: None):
    (found,) = docker.json("network", "inspect", "-v", "app")
    assert [member["Name"] for member in found["Containers"].values()] == ["web"]
    assert lab.api("GET", "/networks/app?scope=swarm").message == "network app not found"
    assert lab.api("GET", "/networks/app?scope=local&verbose=true").json["Id"] == found["Id"]
