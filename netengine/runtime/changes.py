"""The Dockerfile instructions that `docker import --change` may carry, applied to an image's configuration. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from netengine.errors import Invalid
from netengine.runtime.model import ImageConfig

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?")


def apply(changes: Iterable[str], config: ImageConfig | None = None) -> ImageConfig:
    """The configuration after all changes. Invalid names the line that cannot be applied."""
    result = config or ImageConfig()
    for line in changes:
        word, _, rest = line.strip().partition(" ")
        result = _one(result, word.upper(), rest.strip(), line)
    return result


def _one(config: ImageConfig, word: str, rest: str, line: str) -> ImageConfig:
    if "\0" in line or not rest:
        raise Invalid(f"invalid change {line!r}: {word or 'it'} needs an argument")
    match word:
        case "CMD":
            return replace(config, cmd=_command(rest, line))
        case "ENTRYPOINT":
            return replace(config, entrypoint=_command(rest, line))
        case "ENV":
            pairs = _pairs(rest, line)
            kept = tuple(item for item in config.env if item.partition("=")[0] not in pairs)
            return replace(config, env=(*kept, *(f"{name}={value}" for name, value in pairs.items())))
        case "LABEL":
            return replace(config, labels={**config.labels, **_pairs(rest, line)})
        case "WORKDIR":
            base = config.working_dir or "/"
            return replace(config, working_dir=rest if rest.startswith("/") else f"{base.rstrip('/')}/{rest}")
        case "USER":
            return replace(config, user=rest)
        case "EXPOSE":
            ports = {port: dict[str, str]() for item in rest.split() for port in _ports(item)}
            return replace(config, exposed_ports={**config.exposed_ports, **ports})
        case "VOLUME":
            paths = _command(rest, line) if rest.startswith("[") else tuple(rest.split())
            return replace(config, volumes={**config.volumes, **{path: {} for path in paths}})
        case "STOPSIGNAL":
            return replace(config, stop_signal=rest)
        case _:
            known = "CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR"
            raise Invalid(f"invalid change {line!r}: {word} is not one of {known}")


def _command(rest: str, line: str) -> tuple[str, ...]:
    """The exec form, a JSON list, as it is; anything else is for a shell."""
    if rest.startswith("["):
        try:
            return msgspec.json.decode(rest, type=tuple[str, ...])
        except msgspec.MsgspecError as error:
            raise Invalid(f"invalid change {line!r}: {error}") from None
    return ("/bin/sh", "-c", rest)


def _pairs(rest: str, line: str) -> dict[str, str]:
    """`a=b "c d"=e`, or the old form `a b c`, whose value is the rest of the line."""
    if "=" not in rest.split(None, 1)[0]:
        name, _, value = rest.partition(" ")
        if not value.strip():
            raise Invalid(f"invalid change {line!r}: {name} has no value")
        return {name: value.strip()}
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise Invalid(f"invalid change {line!r}: {error}") from None
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise Invalid(f"invalid change {line!r}: {word!r} is not NAME=VALUE")
        pairs[name] = value
    return pairs


def _ports(item: str) -> list[str]:
    match = _PORT.fullmatch(item)
    first = int(match[1]) if match else 0
    last = int(match[2]) if match and match[2] else first
    if match is None or not 1 <= first <= last <= 65535:
        raise Invalid(f"invalid port {item!r} in EXPOSE: as in 80, 80/udp or 8000-8010")
    return [f"{port}/{match[3] or 'tcp'}" for port in range(first, last + 1)]
