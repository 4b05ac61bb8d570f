"""What a container's process is started with."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from typing import Any

import pytest

from netengine.engine import spec
from netengine.errors import Invalid
from netengine.model import ContainerConfig, HostConfig
from netengine.runtime import Bind, Image, ImageConfig
from tests.unit.engine.model import container


def image(**config: Any) -> Image:
    return Image(
        id="sha256:0", repo_tags=("x:latest",), created=datetime.now(UTC), size=0, config=ImageConfig(**config)
    )


# ---------------------------------------------------------------------- the command: Docker's table of ENTRYPOINT and CMD


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "expected"),
    [
        (None, None, ["/entry", "default"]),
        (None, ["mine"], ["/entry", "mine"]),
        (["/other"], None, ["/other"]),
        (["/other"], ["mine"], ["/other", "mine"]),
        ([""], ["mine"], ["mine"]),
        ("/word", "mine", ["/word", "mine"]),
        (None, [], ["/entry", "default"]),
    ],
)
def test_the_command(entrypoint: Any, cmd: Any, expected: list[str]) -> None:
    config = ContainerConfig(entrypoint=entrypoint, cmd=cmd)
    assert spec.command(config, image(entrypoint=("/entry",), cmd=("default",))) == expected


def test_an_image_s_command_alone() -> None:
    assert spec.command(ContainerConfig(), image(cmd=("sh",))) == ["sh"]


@pytest.mark.parametrize("config", [ContainerConfig(), ContainerConfig(entrypoint=[""])])
def test_nothing_to_run(config: ContainerConfig) -> None:
    with pytest.raises(Invalid, match=r"^no command specified$"):
        spec.command(config, image())


# ---------------------------------------------------------------------- mounts


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("/srv:/data", Bind("/srv", "/data")),
        ("/srv:/data:ro", Bind("/srv", "/data", read_only=True)),
        ("/srv:/data:rw,z", Bind("/srv", "/data")),
        ("/srv:/data:ro,rslave", Bind("/srv", "/data", read_only=True, propagation="rslave")),
    ],
)
def test_a_bind(text: str, bind: Bind) -> None:
    assert spec.binds(HostConfig(binds=[text])) == (bind,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data:/data", "named volumes are not supported"),
        ("/srv", "invalid mount target"),
        ("/srv:data", "invalid mount target"),
        ("/srv:/", "an absolute path other than /"),
        ("/srv:/data:rx", "invalid mode 'rx'"),
        ("./srv:/data", "named volumes are not supported"),
    ],
)
def test_binds_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        spec.binds(HostConfig(binds=[text]))
    assert words in refused.value.message


def test_mounts_of_both_forms() -> None:
    mounts = [
        {"Type": "bind", "Source": "/srv", "Target": "/data", "ReadOnly": True},
        {"Type": "tmpfs", "Target": "/scratch"},
    ]
    host = HostConfig(mounts=mounts, tmpfs={"/tmp": "size=1m"})
    assert spec.binds(host) == (Bind("/srv", "/data", read_only=True),)
    assert spec.tmpfs(host) == {"/tmp": "size=1m", "/scratch": ""}


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        ({"Type": "volume", "Source": "v", "Target": "/v"}, "invalid mount type 'volume'"),
        ({"Target": "/v"}, "invalid mount type None"),
        ({"Type": "bind", "Source": "srv", "Target": "/v"}, "invalid mount source 'srv'"),
        ({"Type": "bind", "Source": 5, "Target": "/v"}, "invalid mount source 5"),
        ({"Type": "bind", "Source": "/srv", "Target": "v"}, "invalid mount target"),
    ],
)
def test_mounts_that_cannot_be(mount: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid) as refused:
        spec.binds(HostConfig(mounts=[mount]))
    assert words in refused.value.message


def test_one_target_twice() -> None:
    with pytest.raises(Invalid, match=r"^Duplicate mount point: /data$"):
        spec.binds(HostConfig(binds=["/a:/data", "/b:/data"]))


# ---------------------------------------------------------------------- the rest


@pytest.mark.parametrize(
    ("modes", "flag"),
    [({"pid_mode": "container:x"}, "--pid"), ({"ipc_mode": "container:x"}, "--ipc"), ({"uts_mode": "x"}, "--uts")],
)
def test_namespaces_of_other_containers_are_refused(modes: dict[str, str], flag: str) -> None:
    with pytest.raises(Invalid, match=flag):
        spec.check_modes(HostConfig(**modes))


def test_security_options() -> None:
    for given in ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"):
        spec.check_modes(HostConfig(security_opt=[given]))
    with pytest.raises(Invalid, match=r"--security-opt 'seccomp=unconfined' is not supported"):
        spec.check_modes(HostConfig(security_opt=["seccomp=unconfined"]))


def built(config: Any = None, host: Any = None, netns: str | None = "/run/x") -> Any:
    return spec.build(
        container("web", "abcdef0123456789", config={"cmd": ["true"], **(config or {})}, host=host), image(), netns, {}
    )


def test_the_hostname_is_the_id_s_beginning() -> None:
    assert built().hostname == "abcdef012345"
    assert built({"hostname": "www"}).hostname == "www"


def test_in_the_host_s_network_the_hostname_is_the_host_s() -> None:
    assert built(netns=None).hostname == socket.gethostname()
    assert built({"hostname": "www"}, netns=None).hostname == "www"


def test_network_sysctls_are_the_kernel_layer_s_business() -> None:
    assert built(host={"sysctls": {"net.ipv4.ip_forward": "1", "kernel.msgmax": "9"}}).sysctls == {"kernel.msgmax": "9"}


def test_a_negative_limit_of_processes_is_none() -> None:
    assert built(host={"pids_limit": -1}).pids_limit == 0
    assert built(host={"pids_limit": 9}).pids_limit == 9


def test_the_image_s_directory_is_the_default() -> None:
    web = container("web", config={"cmd": ["true"]})
    assert spec.build(web, image(working_dir="/srv"), None, {}).cwd == "/srv"
