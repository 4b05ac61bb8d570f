"""Links on the default bridge: who is linked to whom, as the model keeps it and the kernel gets it."""

from __future__ import annotations

import pytest

from netengine.engine import links
from netengine.engine.naming import links_of
from netengine.engine.sandbox import render
from netengine.engine.state import State
from netengine.errors import Conflict, Invalid
from netengine.kernel.resources import Element
from netengine.model import Attachment, Container
from tests.unit.engine.model import container, network, plug, running, state


def linked(icc: bool = False) -> tuple[State, Container, Container]:
    """`web` is linked to `db`, which exposes two ports and publishes a third; both run on the default bridge."""
    bridge = network("bridge", predefined=True)
    assert bridge.bridge is not None
    bridge.bridge.icc = icc
    db = running(container("db", config={"exposed_ports": {"5432/tcp": {}, "53/udp": {}}, "hostname": "store"}))
    db.host_config.port_bindings = {"80/tcp": []}
    web = running(container("web"))
    plug(db, bridge).address = "10.1.0.2/24"
    plug(web, bridge).address = "10.1.0.3/24"
    known = state(bridge, db, web)
    web.attachments[bridge.id].links = links.pinned(known, ["db:sql"])
    return known, web, db


def elements(known: State, of: Container) -> set[tuple[str, ...]]:
    return {r.parts for r in render(known, of) if isinstance(r, Element) and r.container == "links"}


def test_both_ends_render_the_target_s_ports_in_the_linker_s_direction() -> None:
    known, web, db = linked()
    ways = {
        ("br-bridge", "10.1.0.3", "10.1.0.2", protocol, port)
        for protocol, port in (("tcp", "5432"), ("udp", "53"), ("tcp", "80"))
    }
    assert elements(known, web) == elements(known, db) == ways


def test_where_neighbours_may_talk_anyway_there_is_nothing_to_open() -> None:
    known, web, db = linked(icc=True)
    assert elements(known, web) == elements(known, db) == set()
    assert links.host_lines(known, web) == [("10.1.0.2", "sql store db")]


def test_the_way_ends_with_either_end() -> None:
    for gone in (0, 1):
        known, *both = linked()
        both[gone].endpoints.clear()
        assert elements(known, both[1 - gone]) == set()


def test_the_line_in_hosts_names_alias_host_name_and_name_and_follows_the_target() -> None:
    known, web, db = linked()
    db.name = "shelf"
    next(iter(db.endpoints.values())).address = "10.1.0.9/24"
    assert links.host_lines(known, web) == [("10.1.0.9", "sql store shelf")]
    assert links.shown(known, web) == ["/shelf:/web/sql"]
    db.endpoints.clear()
    assert links.host_lines(known, web) == []
    del known.containers[db.id]
    assert links.shown(known, web) == []


def test_a_link_of_the_default_bridge_is_no_name_elsewhere() -> None:
    known, web, _ = linked()
    app = network("app")
    known.networks[app.id] = app
    web.attachments[app.id] = Attachment(network_id=app.id, links=["cache:c"])
    assert links_of(web, [app]) == {"c": "cache"}


@pytest.mark.parametrize(
    ("text", "target", "alias"),
    [("db", "db", "db"), ("db:sql", "db", "sql"), ("/db", "db", "db"), ("/db:/web/sql", "db", "sql")],
)
def test_the_forms_of_a_link(text: str, target: str, alias: str) -> None:
    assert links.parse(text) == (target, alias)


@pytest.mark.parametrize("text", ["", ":", "db:", ":sql", "db:a b", "db:a:b", "db:a\nb", "db:/web/"])
def test_what_is_no_link(text: str) -> None:
    with pytest.raises(Invalid, match="bad format for links"):
        links.parse(text)


def test_whom_a_new_container_cannot_be_linked_to() -> None:
    known, _, db = linked()
    other = container("other", host={"network_mode": "host"})
    guest = container("guest", host={"network_mode": f"container:{db.id}"})
    known.containers |= {other.id: other, guest.id: guest}
    assert links.pinned(known, ["guest:g"]) == [f"{db.id}:g"], "the sandbox's owner stands for it"
    assert links.pinned(known, ["db:a", "db:b", "db:a"]) == [f"{db.id}:a", f"{db.id}:b"]
    for texts, words in (
        (["nobody"], "could not get container for nobody: No such container: nobody"),
        (["other"], "conflicting options: host type networking can't be used with links"),
        (["db:x", "web:x"], "conflicting links: the alias x is given to two containers"),
    ):
        with pytest.raises(Invalid, match=words):
            links.pinned(known, texts)


def test_what_a_start_demands() -> None:
    known, web, db = linked()
    links.startable(known, web)
    db.state.status = "exited"
    with pytest.raises(Conflict, match="Cannot link to a non running container: /db AS /web/sql"):
        links.startable(known, web)
    db.attachments.clear()
    with pytest.raises(Conflict, match="Cannot link to /db, as it does not belong to the default network"):
        links.startable(known, web)
