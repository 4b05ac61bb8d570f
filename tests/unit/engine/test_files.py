"""The host's resolv.conf as the daemon reads it, and where it must look for changes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from netengine.engine import files


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root directory of a host with etc/ and run/."""
    for name in ("etc", "run"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(files, "HOST_RESOLV_CONF", tmp_path / "etc/resolv.conf")
    return tmp_path


def test_servers_that_are_no_addresses_are_left_out(host: Path) -> None:
    text = "# nameserver 192.0.2.9\nnameserver 192.0.2.1 # first\nnameserver ns.example\nnameserver\nnameserver fe80::1%eth0\n"
    (host / "etc/resolv.conf").write_text(text)
    assert files.resolvers() == ["192.0.2.1", "fe80::1%eth0"]


def test_no_file_is_no_server(host: Path) -> None:
    assert files.resolvers() == []
    assert files.resolv_conf_directories() == {host / "etc"}


def test_a_link_is_watched_where_it_leads(host: Path) -> None:
    (host / "etc/resolv.conf").symlink_to("../run/resolv.conf")
    assert files.resolv_conf_directories() == {host / "etc", host / "etc/../run"}


def test_a_link_to_nowhere_is_watched_where_that_would_appear(host: Path) -> None:
    (host / "etc/resolv.conf").symlink_to(host / "run/systemd/resolve/stub-resolv.conf")
    assert files.resolv_conf_directories() == {host / "etc", host / "run"}


def test_a_loop_of_links_ends(host: Path) -> None:
    (host / "etc/resolv.conf").symlink_to("resolv.conf")
    assert files.resolv_conf_directories() == {host / "etc"}
    assert files.resolvers() == []
