"""Changes of the list of etcd's members, with the patience that etcd asks for. What is done on this host is in member.py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from netengine.errors import NotFound, Unavailable
from netengine.store.etcd import Etcd, Member

T = TypeVar("T")

CHANGE_SECONDS = 15.0
"""In which etcd must agree to take in or let go of a member."""
_SAME_SECOND = "its number cannot be given again"
_PASSING = ("unhealthy cluster", "too many learner", "not enough started", _SAME_SECOND)


async def add(etcd: Etcd, peer_url: str) -> tuple[Member, list[Member]]:
    """Take in a learner; it, and all members there are then. Raises Unavailable."""
    return await _patiently(lambda: _added(etcd, peer_url))


async def _added(etcd: Etcd, peer_url: str) -> tuple[Member, list[Member]]:
    try:
        return await etcd.add_member(peer_url, learner=True)
    except NotFound as error:
        # etcd makes a member's number from its URL and the second, and takes none in again that it has let go of.
        raise Unavailable(f"a member was removed in this very second: {_SAME_SECOND} ({error.message})") from error


async def promote(etcd: Etcd, member_id: int) -> None:
    """Give a learner its vote. One that has it has it: the answer to an earlier call may have been lost. Raises Unavailable
    while it has not read what the others have, and NotFound when it has not heard of itself and is the one that is asked."""
    try:
        await etcd.promote_member(member_id)
    except Unavailable:
        # By its words alone etcd does not tell one that has its vote from one that is not ready.
        if not any(one.id == member_id and not one.is_learner for one in await etcd.members()):
            raise


async def remove(etcd: Etcd, member: Member) -> None:
    """Take a member out, unless the others could not go on without it. Raises Unavailable then. One that is gone is gone."""
    try:
        await _patiently(lambda: etcd.remove_member(member.id))
    except NotFound:
        return
    except Unavailable as error:
        raise Unavailable(
            f"manager {member.name or f'{member.id:x}'} cannot be taken out of etcd now: {error.message}; too few of the other "
            "managers are up to go on without it"
        ) from error


async def _patiently(change: Callable[[], Awaitable[T]]) -> T:
    """A change of the members, tried again for a while: etcd makes none while it has not been in touch with all of them for
    five seconds, as after another change, and takes in one at a time. Raises Unavailable."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CHANGE_SECONDS
    while True:
        try:
            return await change()
        except Unavailable as error:
            passing = any(words in error.message for words in _PASSING)
            if not passing or loop.time() > deadline:
                raise
        await asyncio.sleep(0.25)
