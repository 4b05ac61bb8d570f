"""What a node knows of itself: whole or not at all, for root alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netengine.cluster import certificates, identity, tls
from netengine.cluster.identity import Files, Identity, hosts_port
from netengine.errors import Conflict, Invalid, NotFound

ROOT = certificates.create_authority("c1")
KEY = certificates.make_key()
CERTIFICATE = certificates.issue(ROOT, certificates.make_request(KEY), "n1", "manager", "c1", ["192.0.2.1"])
ME = Identity(node="n1", cluster="c1", role="manager", advertise_address="192.0.2.1", user="node-n1", password="secret")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(tmp_path / "data" / "cluster")
    made.save(ME, KEY, CERTIFICATE, ROOT.trust)
    return made


def test_what_is_saved_is_loaded_and_closed_to_others(files: Files) -> None:
    assert files.exists() and files.load() == ME
    assert files.key_and_certificate() == (KEY, CERTIFICATE) and files.roots() == ROOT.trust
    assert os.stat(files.directory).st_mode & 0o777 == 0o700
    assert {os.stat(p).st_mode & 0o777 for p in files.directory.iterdir()} == {0o600}
    assert "secret" not in repr(ME)
    for made in (tls.server_context(files), tls.client_context(files)):
        assert len(made.get_ca_certs()) == 1


def test_to_forget_is_to_be_in_no_cluster(files: Files) -> None:
    files.forget()
    files.forget()
    assert not files.exists() and not files.directory.exists()
    with pytest.raises(NotFound, match="in no cluster"):
        files.load()


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_join_that_is_cut_short_leaves_no_half_joined_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    count = 0

    def cut(path: Path, content: bytes) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise KeyboardInterrupt
        path.write_bytes(content)

    monkeypatch.setattr(identity, "write_whole", cut)
    files = Files(tmp_path / "cluster")
    with pytest.raises(KeyboardInterrupt):
        files.save(ME, KEY, CERTIFICATE, ROOT.trust)
    assert not files.exists()


@pytest.mark.parametrize("name", ["node.json", "node.pem", "ca.pem"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00", None], ids=["empty", "object", "bytes", "gone"])
def test_a_damaged_file_is_named_with_what_to_do(files: Files, name: str, content: bytes | None) -> None:
    path = files.directory / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(NotFound if (name, content) == ("node.json", None) else Conflict) as caught:
        files.load()
    if isinstance(caught.value, Conflict):
        assert str(path) in caught.value.message and "leave --force" in caught.value.message


def test_a_file_of_a_later_version_is_left_alone(files: Files) -> None:
    files.node.write_bytes(files.node.read_bytes().replace(b'"version": 1', b'"version": 2'))
    with pytest.raises(Conflict, match="later netengine"):
        files.load()


def test_a_write_that_fails_keeps_what_was(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", lambda a, b: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(Exception, match="No space left"):
        files.update(ME)
    assert files.load() == ME and {p.name for p in files.directory.iterdir()} == {"node.json", "node.pem", "ca.pem"}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", ("192.0.2.1", 2377)),
        ("192.0.2.1:99", ("192.0.2.1", 99)),
        ("manager.example", ("manager.example", 2377)),
        ("[2001:db8::1]:99", ("2001:db8::1", 99)),
        ("[2001:db8::1]", ("2001:db8::1", 2377)),
        ("2001:db8::1", ("2001:db8::1", 2377)),
        ("tcp://192.0.2.1:2377", ("192.0.2.1", 2377)),
    ],
)
def test_addresses_of_managers(text: str, address: tuple[str, int]) -> None:
    assert hosts_port(text) == address


@pytest.mark.parametrize("text", ["", ":2377", "a:b", "a:0", "a:65536", "[::1]x", "a/b", "a b", "a:١"])
def test_what_is_no_address_of_a_manager(text: str) -> None:
    with pytest.raises(Invalid, match="no address of a manager"):
        hosts_port(text)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_invalid(text: str) -> None:
    try:
        host, port = hosts_port(text)
    except Invalid:
        return
    assert host and 0 < port < 65536 and not set(host) & set("/@? ")
