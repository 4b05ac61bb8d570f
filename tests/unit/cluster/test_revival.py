"""A manager whose certificate ran out while nobody could renew it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from netengine.cluster import certificates, revival
from netengine.cluster.identity import Files, Identity

THEN = datetime(2026, 1, 1, tzinfo=UTC)
LATER = THEN + timedelta(days=200)
ROOT = certificates.create_authority("c1", THEN)


def node(tmp_path: Path, role: str = "manager", keep: bool = True) -> Files:
    key = certificates.make_key()
    made = certificates.issue(ROOT, certificates.make_request(key), "n1", role, "c1", ["192.0.2.1"], THEN)
    files = Files(tmp_path / "cluster")
    me = Identity(node="n1", cluster="c1", role=role, advertise_address="192.0.2.1")
    files.save(me, key, made, ROOT.trust)
    if keep:
        revival.keep(files, ROOT)
    return files


@pytest.mark.parametrize("now", [LATER, THEN - timedelta(days=1)], ids=["expired", "made by a clock that was ahead"])
def test_it_gives_itself_another_one(tmp_path: Path, now: datetime) -> None:
    files = node(tmp_path)
    before = files.key_and_certificate()
    assert revival.revive(files, now)
    key, made = files.key_and_certificate()
    said = certificates.read(made)
    assert said.not_before <= now <= said.not_after and certificates.matches(made, key) and key != before[0]
    assert (said.node, said.role, said.cluster) == ("n1", "manager", "c1")
    assert said.not_after - said.not_before == timedelta(days=90, hours=1)
    assert not revival.revive(files, now), "it is valid now"


def test_a_valid_one_is_kept(tmp_path: Path) -> None:
    files = node(tmp_path)
    before = files.key_and_certificate()
    assert not revival.revive(files, THEN + timedelta(days=89)) and files.key_and_certificate() == before


def test_a_worker_cannot(tmp_path: Path) -> None:
    assert not revival.revive(node(tmp_path, "worker"), LATER)


def test_nor_who_has_no_copy_or_a_damaged_or_an_old_one(tmp_path: Path) -> None:
    files = node(tmp_path, keep=False)
    assert not revival.revive(files, LATER) and revival.kept_trust(files) == ""
    files.keep_root(b"{")
    assert not revival.revive(files, LATER) and revival.kept_trust(files) == ""
    revival.keep(files, certificates.create_authority("c1", THEN))
    assert not revival.revive(files, LATER) and revival.kept_trust(files) != files.roots()


def test_the_copy_is_closed_to_others_and_goes(tmp_path: Path) -> None:
    files = node(tmp_path)
    assert revival.kept_trust(files) == ROOT.trust and files.root.stat().st_mode & 0o777 == 0o600
    files.keep_root(b"")
    files.keep_root(b"")
    assert not files.root.exists()
