"""`images`, `import`, `tag` and `rmi`: root file systems and their names."""

from __future__ import annotations

import sys
import time

from netengine.cli import phrases
from netengine.cli.console import each
from netengine.cli.engine import decode, filters
from netengine.cli.flags import Command, Invocation, many, switch, text
from netengine.cli.listing import Listing
from netengine.cli.transport import BLOCK, quote
from netengine.errors import Invalid, KernelRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from netengine.cli.engine import Json

NONE = "<none>"


def split_name(reference: str) -> tuple[str, str]:
    """Repository and tag of `repo[:tag]`; the tag is empty when there is none. A colon before a slash is a registry's port."""
    name, colon, tag = reference.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (reference, "")


def _rows(images: Json) -> Iterator[Json]:
    """One row per name of an image, as Docker lists them; an image without names is still there."""
    for image in images:
        for reference in image.get("RepoTags") or [f"{NONE}:{NONE}"]:
            repository, tag = split_name(reference)
            yield {**image, "Repository": repository, "Tag": tag or NONE}


def _ls(call: Invocation) -> int:
    options = call.options
    pairs = options.many("filter")
    if call.arguments:
        pairs.append(f"reference={call.arguments[0]}")
    found = call.engine.get("/images/json", {"all": options.switch("all"), "filters": filters(pairs)})
    whole = options.switch("no-trunc")

    def created(item: Json) -> str:
        from netengine.cli import moments

        return moments.local(item["Created"])

    def digest(item: Json) -> str:
        return next((name.partition("@")[2] for name in item.get("RepoDigests") or () if "@" in name), NONE)

    listing = Listing(
        {
            "Repository": ("REPOSITORY", lambda item: item["Repository"]),
            "Tag": ("TAG", lambda item: item["Tag"]),
            "Digest": ("DIGEST", digest),
            "ID": ("IMAGE ID", lambda item: item["Id"] if whole else phrases.short_id(item["Id"])),
            "CreatedSince": ("CREATED", lambda item: phrases.span(time.time() - item["Created"]) + " ago"),
            "CreatedAt": ("CREATED AT", created),
            "Size": ("SIZE", lambda item: phrases.size(item.get("Size") or 0)),
        },
        ("Repository", "Tag", "ID", "CreatedSince", "Size"),
        "ID",
    )
    columns = ("Repository", "Tag", "Digest", *listing.columns[2:]) if options.switch("digests") else listing.columns
    listing.show(_rows(found), options, columns)
    return 0


def _import(call: Invocation) -> int:
    source, *names = call.arguments
    repository, tag = split_name(names[0]) if names else ("", "")
    if "://" in source:
        raise Invalid(f"cannot import from {source}: fetch it first, then import the file, or pipe it in with '-'")
    options = call.options
    query = {
        "fromSrc": "-",
        "repo": repository,
        "tag": tag,
        "message": options.text("message"),
        "platform": options.text("platform"),
        "changes": options.many("change"),
    }
    try:
        file = sys.stdin.buffer if source == "-" else open(source, "rb")  # noqa: SIM115 (stdin is not ours to close)
    except OSError as error:
        raise Invalid(f"cannot read {source}: {error.strerror}") from None
    if source == "-" and sys.stdin.isatty():
        raise Invalid("nothing to import on this terminal: pipe a tar archive in, or name a file")
    identity = ""
    with call.engine.upload("/images/create", query, _blocks(file, source)) as response:
        # One JSON object per line, ending in the new image's id, or in an error long after status 200 was sent.
        for line in response.lines():
            step = decode(line) or {}
            if "error" in step or "errorDetail" in step:
                raise KernelRefused(str((step.get("errorDetail") or {}).get("message") or step.get("error")))
            identity = step.get("status", identity)
    print(identity)
    return 0


def _blocks(file: BinaryIO, source: str) -> Iterator[bytes]:
    try:
        while block := file.read(BLOCK):
            yield block
    except OSError as error:
        raise Invalid(f"cannot read {source}: {error.strerror}") from None


def _tag(call: Invocation) -> int:
    source, name = call.arguments
    repository, tag = split_name(name)
    call.engine.post(f"/images/{quote(source)}/tag", {"repo": repository, "tag": tag})
    return 0


def _rm(call: Invocation) -> int:
    query = {"force": call.options.switch("force"), "noprune": call.options.switch("no-prune")}

    def remove(name: str) -> None:
        for step in call.engine.delete(f"/images/{quote(name)}", query) or ():
            for word in ("Untagged", "Deleted"):
                if step.get(word):
                    print(f"{word}: {step[word]}")

    return each(call.arguments, remove)


LS = Command(
    "images",
    "List images",
    _ls,
    arguments="[REPOSITORY[:TAG]]",
    flags=(
        switch("a all", "Show all images"),
        switch("digests", "Show digests"),
        many("f filter", "KEY=VALUE", "Filter: reference, label, before, since, dangling"),
        text("format", "FORMAT", "Format output: table, 'table TEMPLATE', json, or a Go template"),
        switch("no-trunc", "Do not truncate the output"),
        switch("q quiet", "Only display image IDs"),
    ),
    examples=(("netengine images", "'host' is built in: this machine's own root file system"),),
)
IMPORT = Command(
    "import",
    "Create an image from a root file system in a tar archive",
    _import,
    arguments="FILE|- [REPOSITORY[:TAG]]",
    flags=(
        many("c change", "INSTRUCTION", "Apply a Dockerfile instruction, such as 'CMD [\"sh\"]'"),
        text("m message", "TEXT", "Set commit message for imported image"),
        text("platform", "OS/ARCH", "Platform of the root file system"),
    ),
    examples=(
        ("netengine import rootfs.tar.gz small:1", "a file"),
        ("tar -C rootfs -c . | netengine import -c 'CMD [\"/bin/sh\"]' - small", "a directory, with a default command"),
    ),
)
TAG = Command(
    "tag",
    "Give an image another name",
    _tag,
    arguments="SOURCE_IMAGE TARGET_IMAGE",
    completes="image",
    examples=(("netengine tag small small:stable", ""),),
)
RM = Command(
    "rmi",
    "Remove one or more images",
    _rm,
    arguments="IMAGE [IMAGE...]",
    completes="image",
    flags=(switch("f force", "Force removal of the image"), switch("no-prune", "Do not delete untagged parents")),
    examples=(("netengine rmi small:1", "the name goes; the image too, when it was its last"),),
)
