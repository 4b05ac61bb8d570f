"""Archives that mean harm, and honest ones: what is refused says who, and nothing is written outside."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netengine.errors import Invalid
from netengine.runtime import tarball

LIMIT = 10 * 1024 * 1024


def member(name, kind=tarfile.REGTYPE, data=b"", link="", **more):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def archive(*members, format=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.TarFile(fileobj=buffer, mode="w", format=format) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def unpack(data, tmp_path, limit=LIMIT):
    target = tmp_path / "root"
    target.mkdir()
    return tarball.unpack(io.BytesIO(data), target, limit=limit, owners=False)


HOSTILE = {
    "parent": ([member("ok", data=b"x"), member("../evil", data=b"x")], "'../evil' is refused: its path has '..'"),
    "parent inside": ([member("a/../../evil", data=b"x")], r"'a/\.\./\.\./evil' is refused"),
    "absolute": ([member("/etc/evil", data=b"x")], "'/etc/evil' is refused: its path is absolute"),
    "symlink out": ([member("up", tarfile.SYMTYPE, link="../../etc")], "'up' is refused: its link target"),
    "through an absolute symlink": (
        [member("etc", tarfile.SYMTYPE, link="/etc"), member("etc/evil", data=b"x")],
        "'etc/evil' is refused: it leads out of the root",
    ),
    "hard link out": ([member("h", tarfile.LNKTYPE, link="../../etc/passwd")], "'h' is refused: its link target"),
    "absolute hard link": ([member("h", tarfile.LNKTYPE, link="/etc/passwd")], "'h' is refused: its link target"),
    "hard link through a symlink": (
        [member("etc", tarfile.SYMTYPE, link="/etc"), member("h", tarfile.LNKTYPE, link="etc/passwd")],
        "'h' is refused: it leads out",
    ),
    "hard link to a symlink": (
        [member("p", tarfile.SYMTYPE, link="/etc/passwd"), member("h", tarfile.LNKTYPE, link="p")],
        "'h' is refused: .*no regular file",
    ),
    "character device": ([member("dev/mem", tarfile.CHRTYPE, devmajor=1, devminor=1)], "'dev/mem' .*character device"),
    "block device": ([member("sda", tarfile.BLKTYPE, devmajor=8)], "'sda' is refused: it is a block device"),
    "fifo": ([member("pipe", tarfile.FIFOTYPE)], "'pipe' is refused: it is a FIFO"),
    "too large": ([member("big", data=bytes(LIMIT + 1))], "'big' is refused: with its 10485761 bytes"),
    "too large in all": ([member("a", data=bytes(LIMIT)), member("b", data=b"x")], "'b' is refused: with its 1 bytes"),
    "directory over a file": ([member("x", data=b"1"), member("x/y", data=b"2")], "'x/y' is refused"),
    "long path": ([member("a/" * 3000 + "b")], "its path is not acceptable"),
    "root as a link": ([member(".", tarfile.SYMTYPE, link="/etc")], "only a directory can be the root"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_member_is_refused_by_name(tmp_path, name):
    members, text = HOSTILE[name]
    with pytest.raises(Invalid, match=text):
        unpack(archive(*members), tmp_path)
    assert os.listdir(tmp_path) == ["root"]


def test_a_sparse_file_that_claims_an_exabyte_is_refused(tmp_path):
    info, _ = member("hole")
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[156:157] = b"S"
    head[483:495] = b"\x80" + (2**60).to_bytes(11, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    with pytest.raises(Invalid, match=r"'hole' is refused: with its 1152921504606846976 bytes"):
        unpack(bytes(head) + bytes(1024), tmp_path)


def test_a_header_of_gigabytes_is_not_read_into_memory(tmp_path):
    info, _ = member("x", tarfile.XHDTYPE)
    info.size = 3 * 1024**3
    with pytest.raises(Invalid, match="a header of"):
        unpack(info.tobuf() + bytes(1024), tmp_path)


def test_damage_is_invalid_and_never_another_error(tmp_path):
    good = archive(member("a", data=b"x" * 1000), member("b", data=b"y" * 5000))
    packed = gzip.compress(good)
    for number, data in enumerate(
        (b"", b"not a tar at all" * 100, good[:700], good[:2600], packed[: len(packed) // 2], packed[:-20] + b"?" * 12,
         bz2.compress(good)[:60], lzma.compress(good)[:60], b"BZh9" + b"?" * 600, b"\x1f\x8b" + b"?" * 600)
    ):  # fmt: skip
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(Invalid, match="invalid tar archive"):
            unpack(data, folder)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_honest_archives_come_out_as_they_are(tmp_path, pack, format):
    data = archive(
        member("./", tarfile.DIRTYPE, mode=0o755),
        member("usr/bin", tarfile.DIRTYPE, mode=0o755),
        member("bin", tarfile.SYMTYPE, link="usr/bin"),
        member("bin/tool", data=b"#!" + os.urandom(300_000), mode=0o4755),  # through a link that stays inside
        member("usr/bin/same", tarfile.LNKTYPE, link="usr/bin/tool"),
        member("etc/mtab", tarfile.SYMTYPE, link="/proc/mounts"),
        member("etc/up", tarfile.SYMTYPE, link="../usr/bin"),
        member("etc/twice", data=b"first"),
        member("etc/twice", data=b"second", mtime=1000),
        member("empty", data=b""),
        member("block", data=bytes(512)),
        format=format,
    )
    size = unpack(pack(data), tmp_path)
    root = tmp_path / "root"
    assert size == 300_002 + 5 + 6 + 512
    assert (root / "usr/bin/tool").stat().st_mode & 0o7777 == 0o4755
    assert (root / "usr/bin/same").stat().st_ino == (root / "usr/bin/tool").stat().st_ino
    assert os.readlink(root / "etc/mtab") == "/proc/mounts" and os.readlink(root / "bin") == "usr/bin"
    assert (root / "etc/twice").read_bytes() == b"second" and (root / "etc/twice").stat().st_mtime == 1000


def test_several_gzip_streams_in_a_row_are_one_archive(tmp_path):
    data = archive(member("a", data=b"x" * 10_000), member("b", data=b"y"))
    unpack(gzip.compress(data[:3000]) + gzip.compress(data[3000:]), tmp_path)
    assert (tmp_path / "root/b").read_bytes() == b"y"


_NAMES = st.sampled_from(
    ["a", "a/b", "a/../c", "..", ".", "/etc/x", "a/b/c", "d", "d/e", "", "a//b", "./a", "..\\x", "é", "x" * 300]
)
_MEMBERS = st.builds(
    lambda name, kind, link, mode: member(name, kind, b"x" if kind == tarfile.REGTYPE else b"", link, mode=mode),
    _NAMES,
    st.sampled_from(
        [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
    ),
    _NAMES | st.sampled_from(["../outside", "../../outside", "/", "a/../../outside"]),
    st.integers(0, 0o7777),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_MEMBERS, max_size=8))
def test_no_sequence_of_members_touches_anything_outside(members):
    """Links that are made first and written through later, in any order."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "outside").mkdir()
        (Path(folder) / "outside/kept").write_bytes(b"kept")
        before = sorted(os.listdir("/etc"))
        try:
            unpack(archive(*members), Path(folder))
        except Invalid:
            pass
        assert sorted(os.listdir(folder)) == ["outside", "root"]
        assert os.listdir(Path(folder) / "outside") == ["kept"]
        kept = (Path(folder) / "outside/kept").stat()
        assert (kept.st_size, kept.st_nlink) == (4, 1)
        assert sorted(os.listdir("/etc")) == before
