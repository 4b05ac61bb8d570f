"""docker-compose: a file of two services that find each other by name, up and down again."""

import shutil
from pathlib import Path

import pytest

from tests.clients.lab import HERE, OUTSIDE, RESPONDER, Lab, eventually
from tests.daemons import SOCKET, Client

ASK = "import urllib.request; print(urllib.request.urlopen('http://web/', timeout=5).read().decode())"


@pytest.fixture
def compose(lab: Lab, tmp_path: Path) -> Client:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.fail("docker-compose is not installed: run `scripts/install --test`", pytrace=False)
    file = tmp_path / "docker-compose.yml"
    file.write_text(_project())
    argv = [program, "-f", str(file), "-p", "shop"]
    return Client(lab.daemon, argv, {"DOCKER_HOST": f"unix://{SOCKET}", "DOCKER_CONFIG": str(tmp_path)})


def _project() -> str:
    # A dollar sign would be a variable of compose's; the programs have none.
    responder = "\n".join(f"        {line}" for line in RESPONDER.splitlines())
    return f"""
version: "3.8"
services:
  web:
    image: host
    command:
      - python3
      - -I
      - -c
      - |
{responder}
      - web
      - tcp:80
    ports: ["8080:80"]
    networks: [front]
    stop_grace_period: 1s
  client:
    image: host
    command: [sleep, "1000"]
    networks: [front]
    depends_on: [web]
    stop_grace_period: 1s
networks:
  front:
    labels: {{tier: front}}
"""


def _service(docker: Client, name: str) -> str:
    """The container of a service: compose 1 and 2 name them differently."""
    return docker("ps", "-a", "--filter", f"label=com.docker.compose.service={name}", "--format", "{{.Names}}")


def test_a_project_goes_up_its_services_find_each_other_and_it_goes_down(lab: Lab, compose: Client, docker: Client):
    compose("up", "-d", timeout=60)
    web, client = _service(docker, "web"), _service(docker, "client")
    assert lab.containers() == {web, client}
    assert docker("network", "inspect", "shop_front", "-f", "{{.Labels.tier}}") == "front"
    eventually(lambda: b"ready" in lab.logs(web))
    assert docker("exec", client, "python3", "-c", ASK).startswith("web sees ")
    assert lab.outside.fetch(HERE, 8080) == f"web sees {OUTSIDE}"
    compose("down", "-t", "1", timeout=60)
    assert lab.containers() == set()
    assert "shop_front" not in lab.networks()


SIX = """
services:
  web:
    image: host
    command: [sleep, "1000"]
    stop_grace_period: 1s
    networks:
      front: {ipv6_address: "fd00:5::42"}
networks:
  front:
    enable_ipv6: true
    ipam:
      config: [{subnet: "fd00:5::/64"}]
"""


def test_a_project_with_ipv6(lab: Lab, compose: Client, docker: Client):
    (Path(compose._argv[2])).write_text(SIX)
    compose("up", "-d", timeout=60)
    web = _service(docker, "web")
    (found,) = docker.json("inspect", web)
    assert found["NetworkSettings"]["Networks"]["shop_front"]["GlobalIPv6Address"] == "fd00:5::42"
    compose("down", "-t", "1", timeout=60)
