"""How a reference finds a network or a container: id, then name, then the beginning of an id."""

from __future__ import annotations

import pytest

from netengine.engine.state import State
from netengine.errors import Invalid, NotFound
from tests.unit.engine.model import container, network, plug, running, state

A = network("app", "aaaa" + "0" * 60)
B = network("back", "aabb" + "0" * 60)
TRAP = network("aaaa" + "0" * 60 + "x", "cccc" + "0" * 60)


@pytest.mark.parametrize("reference", ["app", "aaaa" + "0" * 60, "aaaa", "aaa"])
def test_a_network_is_found(reference: str) -> None:
    assert state(A, B).network(reference) is A


def test_an_id_wins_over_a_name_and_a_name_over_the_beginning_of_an_id() -> None:
    named = network("aabb", "dddd" + "0" * 60)
    same = network(A.id, "eeee" + "0" * 60)
    everything = state(A, B, named, same)
    assert everything.network(A.id) is A
    assert everything.network("aabb") is named


def test_two_beginnings_are_ambiguous() -> None:
    with pytest.raises(Invalid, match=r"^network aa is ambiguous \(2 matches found based on ID prefix\)$"):
        state(A, B).network("aa")


def test_two_names_are_ambiguous() -> None:
    twins = state(network("app", "1" * 64), network("app", "2" * 64))
    with pytest.raises(Invalid, match=r"^network app is ambiguous \(2 matches found on name\)$"):
        twins.network("app")


def test_what_is_not_there_is_not_found_in_docker_s_words() -> None:
    with pytest.raises(NotFound, match=r"^network nowhere not found$"):
        state(A).network("nowhere")
    with pytest.raises(NotFound, match=r"^No such container: nowhere$"):
        State().container("nowhere")


@pytest.mark.parametrize("reference", ["", "/"])
def test_nothing_refers_to_nothing(reference: str) -> None:
    """The empty text is the beginning of every id."""
    with pytest.raises(NotFound):
        state(container("web")).container(reference)


def test_a_container_s_name_may_have_its_slash() -> None:
    web = container("web")
    assert state(web).container("/web") is web


def test_a_name_is_whose_it_is_now() -> None:
    web, other = container("web"), container("other")
    both = state(web, other)
    assert both.container("web") is web
    web.name, other.name = "old", "web"
    assert both.container("web") is other
    assert both.container("old") is web
    del both.containers[other.id]
    with pytest.raises(NotFound):
        both.container("web")
    named_as_an_id = container(web.id, "9" * 64)
    both.containers[named_as_an_id.id] = named_as_an_id
    assert both.container(web.id) is web


def test_containers_with_a_live_endpoint() -> None:
    on, off = container("on"), container("off")
    plug(on, A)
    assert list(state(A, on, off).attached_to(A.id)) == [on]


def test_running_containers_that_share_a_sandbox() -> None:
    owner, guest, ended, other = (container(n) for n in ("owner", "guest", "ended", "other"))
    running(owner)
    guest.sandbox_id = ended.sandbox_id = owner.id
    running(guest)
    running(other)
    assert list(state(owner, guest, ended, other).sharing(owner)) == [guest]
