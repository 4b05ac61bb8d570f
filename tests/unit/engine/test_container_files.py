"""/etc/hosts, /etc/resolv.conf and /etc/hostname of a container: their text, and whose they are once somebody edited them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from netengine.config import Config
from netengine.engine import files
from netengine.engine.files import EtcFiles, hosts, resolv_conf, write
from tests.unit.engine.model import container, network, plug

HOST_TEXT = "nameserver 127.0.0.1\nnameserver 192.0.2.53\nsearch corp.example\noptions edns0\n"


def resolv(
    host: dict[str, Any] | None = None, text: str = HOST_TEXT, embedded: bool = False, **config: Any
) -> list[str]:
    return resolv_conf(container("web", host=host), Config(**config), text, embedded).splitlines()


# ---------------------------------------------------------------------- hosts


def test_a_container_knows_itself_by_its_addresses() -> None:
    web = container("web", "abcdef0123456789")
    plug(web, network("app"))
    assert hosts(web, []).splitlines() == [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "10.1.0.2\tabcdef012345",
    ]


def test_the_hostname_and_domain_are_its_names() -> None:
    web = container("web", config={"hostname": "www", "domainname": "example.org"})
    plug(web, network("app"))
    assert "10.1.0.2\twww.example.org www\n" in hosts(web, [])


def test_added_hosts_and_the_gateway_of_the_host() -> None:
    web = container("web", host={"extra_hosts": ["db:10.0.0.9", "host.docker.internal:host-gateway", "x=10.0.0.8"]})
    assert hosts(web, ["172.17.0.1", "fd00::1"]).splitlines()[2:] == [
        "10.0.0.9\tdb",
        "172.17.0.1\thost.docker.internal",
        "fd00::1\thost.docker.internal",
        "10.0.0.8\tx",
    ]


def test_a_container_knows_itself_by_both_its_addresses() -> None:
    web = container("web", host={"extra_hosts": ["db:fd00::9", "log=[fd00::8]"]})
    plug(web, network("app")).address6 = "fd00::2/64"
    assert hosts(web, []).splitlines()[2:] == [
        f"10.1.0.2\t{web.id[:12]}",
        f"fd00::2\t{web.id[:12]}",
        "fd00::9\tdb",
        "fd00::8\tlog",
    ]


def test_without_ipv6_on_its_loopback_localhost_has_one_address() -> None:
    assert "::1" not in hosts(container("web"), [], ipv6=False)


# ---------------------------------------------------------------------- resolv.conf


def test_the_host_s_servers_without_its_loopback() -> None:
    assert resolv() == ["nameserver 192.0.2.53", "search corp.example", "options edns0"]


def test_a_container_s_own_wishes_come_first_then_the_daemon_s() -> None:
    asked = {"dns": ["10.0.0.1"], "dns_search": ["a.example"], "dns_options": ["ndots:2"]}
    daemon: dict[str, Any] = {"dns": ("10.0.0.2",), "dns_search": ("b.example",), "dns_opts": ("rotate",)}
    assert resolv(asked, **daemon) == ["nameserver 10.0.0.1", "search a.example", "options ndots:2"]
    assert resolv(**daemon) == ["nameserver 10.0.0.2", "search b.example", "options rotate"]


def test_a_search_list_of_a_dot_is_none() -> None:
    assert not any(line.startswith("search") for line in resolv({"dns_search": ["."]}))


def test_a_host_with_loopback_servers_only_has_public_ones_instead() -> None:
    assert resolv(text="nameserver 127.0.0.53\nnameserver ::1\n") == ["nameserver 8.8.8.8", "nameserver 8.8.4.4"]


def test_a_container_with_ipv6_gets_public_servers_of_both_families() -> None:
    web = container("web")
    plug(web, network("app")).address6 = "fd00::2/64"
    servers = resolv_conf(web, Config(), "", False).split()[1::2]
    assert servers == ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"]


def test_with_the_name_server_of_the_sandbox_that_is_the_only_one() -> None:
    lines = resolv({"dns": ["10.0.0.1"]}, embedded=True)
    assert [line for line in lines if line.startswith("nameserver")] == ["nameserver 127.0.0.11"]
    assert "options edns0 ndots:0" in lines


def test_ndots_asked_for_is_kept() -> None:
    assert "options ndots:3" in resolv({"dns_options": ["ndots:3"]}, embedded=True)


# ---------------------------------------------------------------------- writing


def test_a_file_is_written_in_place(tmp_path: Path) -> None:
    """A bind mount shows the file it was made from: another one under the same name would never be seen."""
    path = tmp_path / "hosts"
    write(path, "one\n")
    inode = path.stat().st_ino
    write(path, "two\n")
    assert (path.stat().st_ino, path.read_text()) == (inode, "two\n")


def test_a_marked_file_follows_changes(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    for text in ("one\n", "two\n"):
        write(path, text, marked=True)
        assert path.read_text().endswith("\n" + text)


@pytest.mark.parametrize("edit", ["nameserver 10.0.0.1\n", "#\n", "\0\xff"])
def test_a_file_that_was_edited_is_left_alone(tmp_path: Path, edit: str) -> None:
    path = tmp_path / "hosts"
    write(path, "one\n", marked=True)
    path.write_text(path.read_text() + edit)
    edited = path.read_text()
    write(path, "two\n", marked=True)
    assert path.read_text() == edited


def test_a_file_that_was_emptied_is_written_again(tmp_path: Path) -> None:
    """A crash between truncating and writing looks like this."""
    path = tmp_path / "hosts"
    path.touch()
    write(path, "one\n", marked=True)
    assert path.read_text().endswith("one\n")


def test_a_link_planted_in_the_directory_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "hosts").symlink_to(target)
    with pytest.raises(OSError):
        write(tmp_path / "hosts", "one\n")
    assert target.read_text() == "precious"


def test_files_are_readable_whatever_the_daemon_s_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write(tmp_path / "hosts", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "hosts").stat().st_mode & 0o777 == 0o644


# ---------------------------------------------------------------------- all three


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EtcFiles:
    monkeypatch.setattr(files, "HOST_RESOLV_CONF", tmp_path / "resolv.conf")
    (tmp_path / "resolv.conf").write_text(HOST_TEXT)
    return EtcFiles(tmp_path / "etc", Config())


def test_the_files_come_and_go_with_the_container(etc: EtcFiles) -> None:
    web = container("web")
    etc.refresh(web, ["172.17.0.1"], embedded=False, ipv6=True)
    paths = {Path(p) for p in etc.paths(web).values()}
    assert all(p.is_file() for p in paths)
    etc.remove(web)
    assert not any(p.parent.exists() for p in paths)


def test_a_removed_container_s_directory_with_more_in_it_is_kept(etc: EtcFiles) -> None:
    web = container("web")
    etc.refresh(web, [], embedded=False, ipv6=True)
    note = Path(etc.paths(web)["/etc/hosts"]).with_name("note")
    note.touch()
    etc.remove(web)
    assert note.exists()


def test_directories_of_forgotten_containers_are_found(etc: EtcFiles) -> None:
    web, gone = container("web"), container("gone")
    for each in (web, gone):
        etc.refresh(each, [], embedded=False, ipv6=True)
    assert [p.name for p in etc.leftovers([web.id])] == [gone.id]


def test_where_the_stub_of_systemd_is_named_its_real_servers_are_read(
    etc: EtcFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    monkeypatch.setattr(files, "RESOLVED_RESOLV_CONF", tmp_path / "resolved")
    (tmp_path / "resolved").write_text("nameserver 192.0.2.1\n")
    assert files.host_resolv_conf() == "nameserver 192.0.2.1\n"
