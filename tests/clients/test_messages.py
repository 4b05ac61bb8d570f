"""The exact messages that people search for and scripts match on, as the real `docker` command shows them."""

import pytest

from tests.clients.lab import Lab
from tests.daemons import Client


def test_port_taken_by_another_container(lab: Lab, docker: Client):
    lab.serve("web", "-p", "8080:80")
    failed = docker.refused("run", "-d", "--name", "other", "-p", "8081:80", "-p", "8080:80", "host", "sleep", "9")
    assert failed.code == 125
    assert "Bind for 0.0.0.0:8080 failed: port is already allocated" in failed.text
    assert lab.state("other")["Running"] is False
    with lab.here.socket() as sock:
        sock.bind(("0.0.0.0", 8081))  # the port that did succeed was given back
    assert list(docker.inspect("bridge")["Containers"]) == [docker.inspect("web")["Id"]], "and so was the address"


def test_port_taken_by_a_program_of_the_host(lab: Lab, docker: Client):
    with lab.here.listen(8080):
        failed = docker.refused("run", "-d", "--name", "web", "-p", "8080:80", "host", "sleep", "9")
    assert failed.code == 125
    assert "Bind for 0.0.0.0:8080 failed: port is already allocated" in failed.text
    docker("start", "web")


@pytest.mark.parametrize(("first", "second"), [("8080", "127.0.0.1:8080"), ("127.0.0.1:8080", "8080")])
def test_a_wildcard_and_one_address_exclude_each_other(lab: Lab, docker: Client, first: str, second: str):
    lab.serve("web", "-p", f"{first}:80")
    failed = docker.refused("run", "-d", "--name", "other", "-p", f"{second}:80", "host", "sleep", "9")
    address = "127.0.0.1" if second.startswith("127") else "0.0.0.0"
    assert f"Bind for {address}:8080 failed: port is already allocated" in failed.text


def test_tcp_and_udp_do_not_exclude_each_other(lab: Lab, docker: Client):
    lab.serve("web", "-p", "8080:80")
    lab.serve("dns", "-p", "8080:53/udp", speak=("udp:53",))
    assert lab.here.ask("127.0.0.1", 8080).startswith("dns sees")


def test_container_name_taken(lab: Lab, docker: Client):
    identity = docker("create", "--name", "web", "host", "true")
    failed = docker.refused("run", "--name", "web", "host", "true")
    assert failed.code == 125
    assert (
        f'Conflict. The container name "/web" is already in use by container "{identity}". '
        f"You have to remove (or rename) that container to be able to reuse that name."
    ) in failed.text


def test_network_name_taken(docker: Client):
    docker("network", "create", "blue")
    failed = docker.refused("network", "create", "blue")
    assert failed.code == 1
    assert "network with name blue already exists" in failed.text


def test_network_in_use(lab: Lab, docker: Client):
    docker("network", "create", "blue")
    lab.serve("web", "--network", "blue")
    endpoint = docker.inspect("web")["NetworkSettings"]["Networks"]["blue"]["EndpointID"]
    failed = docker.refused("network", "rm", "blue")
    assert failed.code == 1
    assert (
        f'error while removing network: network blue has active endpoints (name:"web" id:"{endpoint[:12]}")'
        in failed.text
    )


@pytest.mark.parametrize(
    "words",
    [
        ["network", "rm", "nope"],
        ["network", "inspect", "nope"],
        ["network", "connect", "nope", "web"],
        ["network", "disconnect", "nope", "web"],
        ["run", "--rm", "--network", "nope", "host", "true"],
    ],
)
def test_network_not_found(lab: Lab, docker: Client, words: list[str]):
    docker("create", "--name", "web", "host", "true")
    assert "network nope not found" in docker.refused(*words).text
    assert lab.containers() == {"web"}


def test_subnet_overlap(docker: Client):
    docker("network", "create", "--subnet", "10.20.0.0/16", "blue")
    failed = docker.refused("network", "create", "--subnet", "10.20.5.0/24", "green")
    assert "Pool overlaps with other one on this address space" in failed.text
    assert "blue" in failed.text, "which one"


def test_subnet_with_host_bits(docker: Client):
    failed = docker.refused("network", "create", "--subnet", "10.20.0.1/24", "blue")
    assert "invalid network config:" in failed.text
    assert "invalid subnet 10.20.0.1/24: it should be 10.20.0.0/24" in failed.text


def test_address_taken(lab: Lab, docker: Client):
    docker("network", "create", "--subnet", "10.20.0.0/24", "blue")
    lab.serve("web", "--network", "blue", "--ip", "10.20.0.9")
    failed = docker.refused("run", "--rm", "--network", "blue", "--ip", "10.20.0.9", "host", "true")
    assert failed.code == 125
    assert "Address already in use" in failed.text
    assert "10.20.0.9" in failed.text


def test_address_outside_the_subnet(docker: Client):
    docker("network", "create", "--subnet", "10.20.0.0/24", "blue")
    failed = docker.refused("run", "--rm", "--network", "blue", "--ip", "10.21.0.9", "host", "true")
    assert "no configured subnet contains IP address 10.21.0.9" in failed.text


def test_no_address_left(lab: Lab, docker: Client):
    docker("network", "create", "--subnet", "10.20.0.0/30", "tiny")
    lab.serve("web", "--network", "tiny")
    failed = docker.refused("run", "--rm", "--network", "tiny", "host", "true")
    assert "no available IPv4 addresses on this network's address pools: tiny" in failed.text


def test_all_31_pools_used(docker: Client):
    for number in range(30):
        docker("network", "create", f"n{number}")
    failed = docker.refused("network", "create", "one-too-many")
    assert "all predefined address pools have been fully subnetted" in failed.text


@pytest.mark.parametrize("name", ["bridge", "host", "none", "default"])
def test_predefined_networks_are_neither_made_nor_removed(docker: Client, name: str):
    assert f"operation is not permitted on predefined {name} network" in docker.refused("network", "create", name).text
    if name != "default":
        assert f"{name} is a pre-defined network and cannot be removed" in docker.refused("network", "rm", name).text


@pytest.mark.parametrize("verb", ["start", "stop", "rm", "logs", "port", "kill", "top", "restart", "wait"])
def test_no_such_container(docker: Client, verb: str):
    failed = docker.refused(verb, "nope")
    assert failed.code == 1
    assert "No such container: nope" in failed.text


def test_no_such_image(lab: Lab, docker: Client):
    failed = docker.refused("run", "--rm", "no-such-image", "true")
    assert failed.code == 125
    assert "no-such-image" in failed.text
    assert lab.containers() == set()


def test_a_running_container_is_not_removed_without_force(lab: Lab, docker: Client):
    lab.serve("web")
    failed = docker.refused("rm", "web")
    assert "cannot remove container" in failed.text
    assert "container is running" in failed.text
    assert lab.state("web")["Running"] is True
