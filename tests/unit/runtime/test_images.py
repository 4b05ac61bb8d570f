"""The image store: built-in images, imports, names, and what survives a restart."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile

import pytest

from netengine.errors import Conflict, Forbidden, Invalid, NotFound
from netengine.runtime import ImageStore


def tar(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.TarFile(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("_", "/"))
            info.size, info.uid, info.gid = len(data), os.getuid(), os.getgid()
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def imported(store: ImageStore, data: bytes, **more) -> str:
    async def stream():
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]

    return asyncio.run(store.import_tar(stream(), **more))


@pytest.fixture
def store(tmp_path):
    return ImageStore(tmp_path)


def test_host_and_sandbox_are_built_in_and_stay(store):
    assert {image.repo_tags for image in store.list()} == {("host:latest",), ("sandbox:latest",)}
    assert str(store.rootfs(store.find("host").id)) == "/"
    assert store.find("host:latest").config.cmd == ("/bin/sh",)
    with pytest.raises(Invalid, match="no file system"):
        store.rootfs(store.find("sandbox").id)
    with pytest.raises(Forbidden):
        asyncio.run(store.remove("host"))
    with pytest.raises(Conflict):
        store.tag("sandbox", "host")


def test_an_import_is_found_by_name_id_and_prefix_also_after_a_restart(store, tmp_path):
    changes = [
        'CMD ["sh","-c","x"]',
        "ENV A=1 B='two words'",
        "WORKDIR /srv",
        "EXPOSE 80 53/udp",
        "LABEL a.b=c",
        "USER app",
    ]
    image_id = imported(store, tar(bin_sh=b"#!"), repository="reg.example:5000/my/app", changes=changes, message="why")
    for again in (store, ImageStore(tmp_path)):
        image = again.find("reg.example:5000/my/app")
        assert image.id == image_id == again.find(image_id).id == again.find(image_id[7:19]).id
        assert image.repo_tags == ("reg.example:5000/my/app:latest",)
        assert image.config.cmd == ("sh", "-c", "x") and image.config.env == ("A=1", "B=two words")
        assert set(image.config.exposed_ports) == {"80/tcp", "53/udp"} and image.config.labels == {"a.b": "c"}
        assert (image.size, image.comment, image.config.user) == (2, "why", "app")
        assert (again.rootfs(image.id) / "bin/sh").read_bytes() == b"#!"


def test_what_does_not_work_leaves_nothing(store, tmp_path):
    before = sorted(os.listdir(tmp_path / "images"))
    for data, more, text in (
        (tar(ok=b"x", **{".._evil": b"x"}), {}, r"'\.\./evil' is refused"),
        (b"garbage" * 200, {}, "invalid tar archive"),
        (tar(a=b""), {"repository": "UPPER"}, "invalid reference format"),
        (tar(a=b""), {"repository": "a/../b"}, "invalid reference format"),
        (tar(a=b""), {"repository": "a", "tag": "x/y"}, "invalid reference format"),
        (tar(a=b""), {"changes": ["RUN rm -rf /"]}, "RUN is not one of"),
        (tar(a=b""), {"changes": ["EXPOSE 70000"]}, "invalid port '70000'"),
        (tar(a=b""), {"changes": ['CMD ["a"']}, "invalid change"),
    ):
        with pytest.raises(Invalid, match=text):
            imported(store, data, **more)
    assert sorted(os.listdir(tmp_path / "images")) == before


def test_an_upload_that_breaks_off_leaves_nothing(store, tmp_path):
    async def stream():
        yield tar(a=b"x")[:600]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(store.import_tar(stream()))
    assert os.listdir(tmp_path / "images") == []


def test_names_move_and_the_last_one_takes_the_image_with_it(store, tmp_path):
    first = imported(store, tar(a=b"1"), repository="app")
    second = imported(store, tar(a=b"2"), repository="app", tag="v2")
    store.tag("app", "other", "x")
    with pytest.raises(Conflict, match="must be forced"):
        asyncio.run(store.remove(first))
    assert asyncio.run(store.remove("app")) == (("Untagged", "app:latest"),)
    assert asyncio.run(store.remove("other:x")) == (("Untagged", "other:x"), ("Deleted", first))
    with pytest.raises(NotFound, match="No such image: app:latest"):
        store.find("app")
    store.tag("app:v2", "app")
    assert store.find("app").id == second
    assert asyncio.run(store.remove(second, force=True))[-1] == ("Deleted", second)
    assert os.listdir(tmp_path / "images") == ["tags.json"]


def test_an_import_that_was_killed_is_cleared_away_at_the_next_start(store, tmp_path):
    (tmp_path / "images/.import-dead/rootfs").mkdir(parents=True)
    ImageStore(tmp_path)
    assert os.listdir(tmp_path / "images") == []


def test_a_name_that_a_user_gave_a_built_in_image_outlives_a_restart_and_can_be_taken_away(store, tmp_path):
    store.tag("sandbox", "box", "1")
    again = ImageStore(tmp_path)
    assert again.find("box:1").id == again.find("sandbox").id
    with pytest.raises(Forbidden, match="sandbox:latest is built in"):
        asyncio.run(again.remove("sandbox"))
    with pytest.raises(Forbidden):
        asyncio.run(again.remove(again.find("box:1").id, force=True))
    assert asyncio.run(again.remove("box:1")) == (("Untagged", "box:1"),)
    assert ImageStore(tmp_path).find("sandbox").repo_tags == ("sandbox:latest",)


def test_a_damaged_file_costs_its_image_and_not_the_start(store, tmp_path):
    kept = imported(store, tar(a=b"1"), repository="kept")
    lost = imported(store, tar(a=b"2"), repository="lost")
    (tmp_path / "images" / lost.removeprefix("sha256:") / "image.json").write_bytes(b'{"id": 5')
    again = ImageStore(tmp_path)
    assert again.find("kept").id == kept
    with pytest.raises(NotFound):
        again.find("lost")
    (tmp_path / "images/tags.json").write_bytes(b"\xff")
    assert ImageStore(tmp_path).find(kept).repo_tags == ()
