"""The main job as a person does it with the real `docker` command: a network, a web server on it, a published port."""

import re

from tests.clients.lab import HERE, Lab, eventually
from tests.daemons import Client

HEX64 = re.compile(r"[0-9a-f]{64}")


def test_from_network_create_to_a_page_on_another_machine(lab: Lab, docker: Client):
    assert HEX64.fullmatch(docker("network", "create", "-d", "bridge", "my-bridge-net"))
    container = docker(
        *["run", "-d", "--name", "web", "--network", "my-bridge-net", "-p", "8080:80", "host"],
        *["python3", "-m", "http.server", "80"],
    )
    assert HEX64.fullmatch(container)
    eventually(lambda: "Directory listing" in lab.here.fetch("127.0.0.1", 8080), "the page on 127.0.0.1")
    assert "Directory listing" in lab.here.fetch(HERE, 8080)
    assert "Directory listing" in lab.outside.fetch(HERE, 8080)
    assert "Directory listing" in lab.here.run(["curl", "-s", "http://127.0.0.1:8080/"], check=True).stdout
    assert docker("rm", "-f", "web") == "web"
    assert docker("network", "rm", "my-bridge-net") == "my-bridge-net"
    assert not lab.here.reaches("127.0.0.1", 8080)


def test_ps_shows_the_container_with_its_ports(lab: Lab, docker: Client):
    identity = lab.serve("web", "-p", "8080:80", "-p", "127.0.0.1:5353:53/udp")
    header, line = docker("ps").splitlines()
    assert header.split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert line.split()[:2] == [identity[:12], "host"]
    assert line.endswith("web")
    assert "Up " in line
    ports = docker("ps", "--format", "{{.Ports}}").split(", ")
    assert {"0.0.0.0:8080->80/tcp", "127.0.0.1:5353->53/udp"} <= set(ports)


def test_ps_filters_and_quiet(lab: Lab, docker: Client):
    docker("network", "create", "blue")
    one = lab.serve("one", "--network", "blue", "--label", "tier=front")
    two = docker("create", "--name", "two", "host", "true")
    assert docker("ps", "-q", "--no-trunc") == one
    assert docker("ps", "-aq", "--no-trunc").splitlines() == [two, one], "the newest comes first"
    assert docker("ps", "-a", "--filter", "name=tw", "--format", "{{.Names}}") == "two"
    assert docker("ps", "-a", "--filter", "status=created", "--format", "{{.Names}}") == "two"
    assert docker("ps", "-a", "--filter", "network=blue", "--format", "{{.Names}}") == "one"
    assert docker("ps", "-a", "--filter", "label=tier=front", "--format", "{{.Names}}") == "one"
    assert docker("ps", "-a", "--filter", f"id={two[:12]}", "--format", "{{.Names}}") == "two"
    assert docker("ps", "-a", "-l", "--format", "{{.Names}}") == "two"


def test_port_shows_the_mappings(lab: Lab, docker: Client):
    lab.serve("web", "-p", "8080:80", "-p", "127.0.0.1:5353:53/udp")
    lines = docker("port", "web").splitlines()
    assert "80/tcp -> 0.0.0.0:8080" in lines
    assert "53/udp -> 127.0.0.1:5353" in lines
    assert docker("port", "web", "80/tcp").splitlines()[0] == "0.0.0.0:8080"


def test_inspect_tells_where_the_container_is(lab: Lab, docker: Client):
    identity = lab.serve("web", "-p", "8080:80", "--hostname", "www", "-e", "COLOUR=blue", "-l", "tier=front")
    found = docker.inspect("web")
    assert found["Id"] == identity
    assert found["Name"] == "/web"
    assert found["Config"]["Hostname"] == "www"
    assert "COLOUR=blue" in found["Config"]["Env"]
    assert found["Config"]["Labels"]["tier"] == "front"
    assert found["State"]["Running"] is True
    assert found["State"]["Status"] == "running"
    settings = found["NetworkSettings"]
    assert settings["Ports"]["80/tcp"][0] == {"HostIp": "0.0.0.0", "HostPort": "8080"}
    endpoint = settings["Networks"]["bridge"]
    assert endpoint["IPAddress"] == "172.17.0.2"
    assert endpoint["IPPrefixLen"] == 16
    assert endpoint["Gateway"] == "172.17.0.1"
    assert re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", endpoint["MacAddress"])


def test_a_container_is_found_by_name_id_and_prefix(lab: Lab, docker: Client):
    identity = docker("create", "--name", "web", "host", "true")
    for reference in ("web", "/web", identity, identity[:12], identity[:5]):
        assert docker("inspect", "-f", "{{.Id}}", reference) == identity


def test_info_says_what_the_daemon_is(lab: Lab, docker: Client):
    docker("create", "--name", "web", "host", "true")
    info = docker.json("info", "--format", "{{json .}}")
    assert info["Containers"] == 1
    assert info["ContainersRunning"] == 0
    assert info["OSType"] == "linux"
    assert info["Name"] == "here"
    assert {"bridge", "host", "null"} <= set(info["Plugins"]["Network"])
    assert info["FirewallBackend"]["Driver"] == "nftables"
    assert "Server Version:" in docker("info")


def test_version_reports_api_1_51_and_minimum_1_24(docker: Client):
    server = docker.json("version", "--format", "{{json .Server}}")
    assert (server["ApiVersion"], server["MinAPIVersion"]) == ("1.51", "1.24")
    assert server["Os"] == "linux"
    assert "Server:" in docker("version")


def test_events_tell_the_life_of_a_container_and_its_network(lab: Lab, docker: Client):
    since = docker("info", "--format", "{{.SystemTime}}")
    docker("network", "create", "blue")
    docker("run", "--rm", "--name", "job", "--network", "blue", "host", "true")
    docker("network", "rm", "blue")
    until = docker("info", "--format", "{{.SystemTime}}")
    told = docker("events", "--since", since, "--until", until, "--format", "{{.Type}} {{.Action}}").splitlines()
    for event in ("network create", "container create", "network connect", "container start", "container die"):
        assert event in told
    order = ["container create", "container start", "container die", "container destroy", "network destroy"]
    assert [event for event in told if event in order] == order
    assert told.index("network connect") < told.index("container start")
    assert told.index("network disconnect") < told.index("container destroy")


def test_events_stream_while_things_happen_and_can_be_filtered(lab: Lab, docker: Client):
    stream = docker.start("events", "--filter", "type=network", "--format", "{{.Action}} {{.Actor.Attributes.name}}")
    # The subscription has no answer of its own to wait for: make networks until the first is told.
    assert stream.popen.stdout is not None

    def told() -> bool:
        docker("network", "create", "blue")
        docker("network", "rm", "blue")
        return b"create blue" in line()

    def line() -> bytes:
        import select

        ready, _, _ = select.select([stream.popen.stdout], [], [], 0.3)
        return stream.popen.stdout.readline() if ready else b""

    eventually(told, "an event about network blue")


def test_the_container_is_entered_by_name_with_ip_netns(lab: Lab, docker: Client):
    lab.serve("web")
    assert "172.17.0.2/16" in lab.here.run(["ip", "netns", "exec", "web", "ip", "addr"], check=True).stdout


def test_a_renamed_container_answers_to_the_new_name_only(lab: Lab, docker: Client):
    identity = lab.serve("web", "-p", "8080:80")
    docker("rename", "web", "www")
    assert docker("ps", "--format", "{{.Names}}") == "www"
    assert "No such container: web" in docker.refused("rename", "web", "x").text
    assert docker("inspect", "-f", "{{.Id}}", "www") == identity
    assert lab.here.fetch("127.0.0.1", 8080).startswith("web sees"), "traffic goes on"
    assert "172.17.0.2" in lab.here.run(["ip", "netns", "exec", "www", "ip", "addr"], check=True).stdout


def test_images_lists_the_machine_itself(docker: Client):
    assert "host:latest" in docker("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
    assert docker("image", "inspect", "-f", "{{.Os}}", "host") == "linux"


def test_container_prune_removes_the_stopped_ones(lab: Lab, docker: Client):
    lab.serve("web")
    old = docker("run", "-d", "--name", "old", "host", "true")
    docker("wait", "old")
    assert old in docker("container", "prune", "-f")
    assert lab.containers() == {"web"}
