"""Files of namespaces, as far as no namespace has to be made."""

from __future__ import annotations

from pathlib import Path

from netengine.kernel import namespaces


def test_lost_namespaces_are_those_without_a_mounted_file(tmp_path: Path) -> None:
    (tmp_path / "bare").touch()
    (tmp_path / "alive").symlink_to("/proc/self/ns/net")
    names = ["alive", "bare", "gone"]
    assert namespaces.not_alive(tmp_path, names) == ["bare", "gone"]
    assert [name for name in names if not namespaces.is_alive(tmp_path / name)] == ["bare", "gone"]
