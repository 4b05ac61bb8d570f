"""/images: decode, call the image store, encode. Nothing is ever pulled: root file systems are imported."""

from __future__ import annotations

from netengine.api import wire
from netengine.api.http import engine_of, filters, flag, matches_labels, reply
from netengine.engine import Engine
from netengine.errors import Conflict, NotFound
from netengine.http import Answer, Request, Response
from netengine.runtime import Image

_FILTERS = ("before", "dangling", "label", "reference", "since", "until")
_PRUNE_FILTERS = ("dangling", "until", "label", "label!")


def _using(engine: Engine, image: Image) -> int:
    return sum(c.image_id == image.id for c in engine.state.containers.values())


async def list_images(request: Request) -> Response:
    engine = engine_of(request)
    wanted = filters(request, _FILTERS)
    found = [i for i in engine.images.list() if _matches(i, wanted)]
    return reply([wire.image_summary(i, _using(engine, i)) for i in found])


def _matches(image: Image, wanted: dict[str, list[str]]) -> bool:
    if "reference" in wanted:
        names = {*image.repo_tags, *(t.rpartition(":")[0] for t in image.repo_tags)}
        if not names & set(wanted["reference"]):
            return False
    if "dangling" in wanted and (wanted["dangling"] == ["true"]) == bool(image.repo_tags):
        return False
    return matches_labels(image.config.labels, wanted.get("label", []))


async def inspect(request: Request) -> Response:
    return reply(wire.image(engine_of(request).images.find(request.variables["name"])))


async def create(request: Request) -> Answer:
    """POST /images/create: `fromSrc=-` imports the body; `fromImage` would pull, which netengine does not."""
    query = request.query
    if query.get("fromImage"):
        name = query["fromImage"]
        raise NotFound(
            f"pull access denied for {name}, repository does not exist: netengine pulls no images; "
            f"use the built-in image host, or import a root file system: docker import rootfs.tar {name}"
        )
    if query.get("fromSrc") != "-":
        raise NotFound("netengine imports from a tar stream only: docker import FILE NAME, or - for standard input")
    engine = engine_of(request)

    identity = await engine.images.import_tar(
        aiter(request.body),
        repository=query.get("repo", ""),
        tag=query.get("tag", ""),
        changes=query.getall("changes"),
        message=query.get("message", ""),
    )
    engine.events.publish("image", "import", identity, name=query.get("repo", ""))
    return reply({"status": identity})


async def tag(request: Request) -> Response:
    engine = engine_of(request)
    engine.images.tag(request.variables["name"], request.query.get("repo", ""), request.query.get("tag", ""))
    return Response(201)


async def prune(request: Request) -> Response:
    """Remove images without a name that no container uses."""
    engine = engine_of(request)
    filters(request, _PRUNE_FILTERS)
    deleted, freed = [], 0
    for image in engine.images.list():
        if not image.repo_tags and not image.builtin and not _using(engine, image):
            deleted += [{kind: name} for kind, name in await engine.images.remove(image.id)]
            freed += image.size
    return reply({"ImagesDeleted": deleted or None, "SpaceReclaimed": freed})


async def remove(request: Request) -> Response:
    engine = engine_of(request)
    image = engine.images.find(request.variables["name"])
    users = [c for c in engine.state.containers.values() if c.image_id == image.id]
    if users and not (flag(request, "force") and not any(c.running for c in users)):
        raise Conflict(
            f'conflict: unable to remove repository reference "{request.variables["name"]}" (must force) - '
            f"container {users[0].id[:12]} is using its referenced image {image.id.removeprefix('sha256:')[:12]}"
        )
    done = await engine.images.remove(request.variables["name"], force=flag(request, "force"))
    return reply([{kind: name} for kind, name in done])
