"""The same job through docker-py, the client library that scripts and Ansible use."""

import time
from pathlib import Path

import docker as docker_py
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.types import IPAMConfig, IPAMPool

from tests.clients.lab import HERE, OUTSIDE, RESPONDER, Lab, eventually, python
from tests.clients.rootfs import build

Docker = docker_py.DockerClient


def serve(py: Docker, lab: Lab, name: str, **options: object) -> docker_py.models.containers.Container:
    command = python(RESPONDER, name, "tcp:80")
    container = py.containers.run("host", command, name=name, detach=True, **options)
    eventually(lambda: b"ready" in container.logs(), f"{name} to be ready")
    return container


def test_from_a_network_to_a_page_on_another_machine(lab: Lab, py: Docker):
    network = py.networks.create("my-bridge-net", driver="bridge")
    container = serve(py, lab, "web", network="my-bridge-net", ports={"80/tcp": 8080})
    assert lab.outside.fetch(HERE, 8080) == f"web sees {OUTSIDE}"
    container.reload()
    assert container.status == "running"
    assert container.ports["80/tcp"][0] == {"HostIp": "0.0.0.0", "HostPort": "8080"}
    network.reload()
    assert [attached.name for attached in network.containers] == ["web"]
    container.remove(force=True)
    network.remove()
    assert [found.name for found in py.networks.list(names=["my-bridge-net"])] == []


def test_ping_version_and_info(py: Docker):
    assert py.ping() is True
    assert py.version()["ApiVersion"] == "1.51"
    assert py.info()["OSType"] == "linux"


def test_run_to_the_end_gives_the_output(lab: Lab, py: Docker):
    assert py.containers.run("host", ["echo", "hello"], remove=True) == b"hello\n"
    assert lab.containers() == set()


def test_run_raises_with_exit_status_and_standard_error(py: Docker):
    with pytest.raises(ContainerError) as failure:
        py.containers.run("host", ["sh", "-c", "echo why >&2; exit 3"], remove=True)
    assert failure.value.exit_status == 3
    assert b"why" in failure.value.stderr


def test_exec_gives_status_and_both_streams_apart(lab: Lab, py: Docker):
    container = serve(py, lab, "web")
    code, output = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 5"], demux=True)
    assert (code, output) == (5, (b"out\n", b"err\n"))
    assert container.exec_run(["sh", "-c", "echo $COLOUR"], environment={"COLOUR": "blue"}).output == b"blue\n"
    assert container.exec_run("tty", tty=True).output.startswith(b"/dev/")


def test_a_network_with_its_own_addresses(lab: Lab, py: Docker):
    pool = IPAMPool(subnet="10.20.0.0/24", gateway="10.20.0.254", aux_addresses={"printer": "10.20.0.1"})
    network = py.networks.create("blue", ipam=IPAMConfig(pool_configs=[pool]), labels={"tier": "front"})
    container = serve(py, lab, "web")
    network.connect(container, ipv4_address="10.20.0.9", aliases=["www"])
    container.reload()
    endpoint = container.attrs["NetworkSettings"]["Networks"]["blue"]
    assert endpoint["IPAddress"] == "10.20.0.9"
    assert "www" in endpoint["Aliases"]
    assert lab.here.fetch("10.20.0.9", 80).startswith("web sees")
    network.disconnect(container)
    assert py.networks.list(filters={"label": "tier=front"})[0].attrs["Containers"] in (None, {})


def test_list_finds_by_filter(lab: Lab, py: Docker):
    serve(py, lab, "web", labels={"tier": "front"})
    py.containers.create("host", ["true"], name="other")
    assert [found.name for found in py.containers.list()] == ["web"]
    assert {found.name for found in py.containers.list(all=True)} == {"web", "other"}
    assert [found.name for found in py.containers.list(filters={"label": ["tier=front"]})] == ["web"]
    assert [found.name for found in py.containers.list(all=True, filters={"status": "created"})] == ["other"]


def test_prune(py: Docker):
    py.networks.create("unused")
    assert py.networks.prune()["NetworksDeleted"] == ["unused"]
    created = py.containers.create("host", ["true"])
    assert py.containers.prune()["ContainersDeleted"] == [created.id]


def test_wait_kill_stop_restart_rename_top(lab: Lab, py: Docker):
    container = serve(py, lab, "web")
    assert any("python3" in " ".join(process) for process in container.top()["Processes"])
    container.rename("www")
    assert py.containers.get("www").id == container.id
    container.restart(timeout=1)
    eventually(lambda: container.logs().count(b"ready") == 2, "the second life")
    container.stop(timeout=1)
    assert container.wait()["StatusCode"] == 0
    container.start()
    container.kill()
    assert container.wait(condition="not-running")["StatusCode"] == 137


def test_logs_stream_to_the_end(lab: Lab, py: Docker):
    container = py.containers.run("host", ["sh", "-c", "for i in 1 2 3; do echo $i; done"], detach=True)
    assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\n"
    assert container.logs(tail=1) == b"3\n"
    assert container.logs(stderr=True, stdout=False) == b""


def test_attach_reads_and_writes(py: Docker):
    container = py.containers.create("host", ["cat"], stdin_open=True)
    stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    stream._sock.sendall(b"hello\n")
    assert stream.read(8) == b"\x01\0\0\0\0\0\0\x06"
    assert stream.read(6) == b"hello\n"
    stream._sock.close()


def test_events_are_objects(py: Docker):
    since = time.time()
    py.networks.create("blue").remove()
    # The stream ends at `until`, which must lie behind what has happened.
    told = list(py.events(since=f"{since:.9f}", until=f"{time.time():.9f}", decode=True))
    assert [event["Action"] for event in told if event["Actor"]["Attributes"].get("name") == "blue"] == [
        "create",
        "destroy",
    ]


def test_an_image_from_a_tar_stream(py: Docker, tmp_path: Path):
    py.api.import_image_from_data(build(tmp_path / "tiny.tar").read_bytes(), repository="tiny", tag="1")
    image = py.images.get("tiny:1")
    assert "tiny:1" in image.tags
    assert py.containers.run("tiny:1", ["sh", "-c", "echo inside"], remove=True) == b"inside\n"
    assert image.tag("small", "2")
    py.images.remove("small:2")
    py.images.remove("tiny:1")
    with pytest.raises(ImageNotFound):
        py.images.get("tiny:1")


@pytest.mark.parametrize("version", ["1.24", "1.40", "1.44", "1.51"])
def test_every_api_version_a_client_may_choose(lab: Lab, version: str):
    client = docker_py.DockerClient(base_url=lab.daemon.url, version=version)
    try:
        assert client.containers.run("host", ["echo", version], remove=True) == f"{version}\n".encode()
    finally:
        client.close()


def test_errors_have_dockers_status(lab: Lab, py: Docker):
    with pytest.raises(NotFound, match="No such container: nope"):
        py.containers.get("nope")
    with pytest.raises(NotFound, match="network nope not found"):
        py.networks.get("nope")
    with pytest.raises(ImageNotFound):
        py.images.get("nope")
    py.networks.create("blue")
    with pytest.raises(APIError, match="already exists") as taken:
        py.networks.create("blue")
    assert taken.value.status_code == 409
    container = serve(py, lab, "web")
    with pytest.raises(APIError) as running:
        container.remove()
    assert running.value.status_code == 409
    with pytest.raises(APIError) as predefined:
        py.networks.get("bridge").remove()
    assert predefined.value.status_code == 403


def test_an_upload_that_breaks_off_leaves_no_image(lab: Lab, py: Docker, tmp_path: Path):
    whole = build(tmp_path / "tiny.tar").read_bytes()
    with pytest.raises(APIError):
        py.api.import_image_from_data(whole[: len(whole) // 2 + 100], repository="half")
    assert lab.images() == set()
