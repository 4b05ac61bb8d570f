"""Known names: what each sandbox sees, and how it is put into a packet."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.reversename
import pytest

from netengine.dns.protocol import Entry, Network, NetworkChange, Settings, Sync, Update
from netengine.errors import Invalid

_spec = importlib.util.spec_from_file_location("dns_inside", Path(__file__).with_name("inside.py"))
assert _spec is not None and _spec.loader is not None
inside = importlib.util.module_from_spec(_spec)
sys.modules["dns_inside"] = inside
_spec.loader.exec_module(inside)


def ask(house, ident: str, name: str, kind: str = "A", tcp: bool = False, **options: object) -> dns.message.Message:
    client = house.client(ident, tcp)
    packet = dns.message.make_query(name, kind, **options).to_wire()
    client.send(inside.framed(packet) if tcp else packet)
    got: list[bytes] = []
    house.until(lambda: got or (got.append(data) if (data := inside.received(client)) else None))
    return dns.message.from_wire(got[0][2:] if tcp else got[0])


def addresses(message: dns.message.Message) -> set[str]:
    return {str(record) for rrset in message.answer for record in rrset}


def test_a_link_is_seen_by_its_sandbox_alone() -> None:
    with inside.house() as house:
        house.box("linked", Settings(("n",), links={"database": "db"}))
        house.box("other")
        both = {"172.18.0.3", "172.18.0.4"}
        assert addresses(ask(house, "linked", "database")) == both
        assert addresses(ask(house, "linked", "DataBase.app")) == both
        assert ask(house, "linked", "database", "AAAA").rcode() == dns.rcode.NOERROR
        assert ask(house, "other", "database").rcode() == dns.rcode.SERVFAIL  # unknown, and there are no servers


def test_a_link_follows_its_target() -> None:
    with inside.house() as house:
        house.box("linked", Settings(("n",), links={"site": "web"}))
        assert addresses(ask(house, "linked", "site")) == {"172.18.0.2"}
        moved = Entry(("web",), ("172.18.0.7",))
        house.server.update(Update(0, {"n": NetworkChange(put={"e1": moved})}))
        assert addresses(ask(house, "linked", "site")) == {"172.18.0.7"}


@pytest.mark.parametrize(
    ("ndots", "name", "code"), [(None, "x", "SERVFAIL"), (1, "x", "NOERROR"), (1, "x.y", "SERVFAIL")]
)
def test_ndots_keeps_single_labels_here(ndots: int | None, name: str, code: str) -> None:
    with inside.house() as house:
        house.box("sb", Settings(("n",), ndots=ndots))
        for tcp in (False, True):
            answer = ask(house, "sb", name, tcp=tcp)
            assert dns.rcode.to_text(answer.rcode()) == code and not answer.answer
        assert ask(house, "sb", "web").answer


@pytest.mark.parametrize(("size", "most"), [(None, 512), (512, 512), (1232, 1232), (4096, 4096)])
def test_answers_keep_to_the_size_that_the_client_takes(size: int | None, most: int) -> None:
    options = {"use_edns": -1} if size is None else {"use_edns": 0, "payload": size}
    with inside.house() as house:
        house.box("sb")
        for _ in range(3):  # the later ones come from what is kept
            answer = ask(house, "sb", "many", **options)
            assert len(answer.to_wire()) <= most
            assert bool(answer.flags & dns.flags.TC) == (most < 1700)  # 100 records of 16 bytes
            assert (answer.edns == 0) == (size is not None)
        whole = ask(house, "sb", "many", tcp=True, **options)
        assert len(addresses(whole)) == 100 and not whole.flags & dns.flags.TC


def test_another_edns_version_is_refused_with_badvers() -> None:
    with inside.house() as house:
        house.box("sb")
        assert ask(house, "sb", "web", use_edns=1).rcode() == dns.rcode.BADVERS


def test_known_names_have_no_other_records_and_keep_their_case() -> None:
    with inside.house() as house:
        house.box("sb")
        for kind in ("MX", "TXT", "SRV", "AAAA"):
            answer = ask(house, "sb", "web", kind)
            assert answer.rcode() == dns.rcode.NOERROR and not answer.answer
        assert ask(house, "sb", "wEb.ApP").question[0].name.to_text() == "wEb.ApP."


def test_what_a_sync_leaves_the_same_goes_on_answering() -> None:
    with inside.house() as house:
        house.box("sb")
        house.box("going")
        client = house.client("sb")
        connection = house.client("sb", tcp=True)
        view = house.server.sandboxes["sb"].view
        client.send(dns.message.make_query("web", "A").to_wire())  # waits while the model is replaced
        removed = house.server.sync(Sync(1, {"n": Network("app", dict(inside.APP.put))}, {"sb": Settings(("n",))}))
        assert removed == ("going",) and house.server.sandboxes["sb"].view is view
        got: list[bytes] = []
        house.until(lambda: got or (got.append(data) if (data := inside.received(client)) else None))
        assert addresses(dns.message.from_wire(got[0])) == {"172.18.0.2"}
        connection.send(inside.framed(dns.message.make_query("db", "A").to_wire()))
        house.until(lambda: inside.received(connection))
        without = {key: entry for key, entry in inside.APP.put.items() if key != "e1"}
        house.server.sync(Sync(2, {"n": Network("app", without)}, {"sb": Settings(("n",))}))
        assert ask(house, "sb", "web").rcode() == dns.rcode.SERVFAIL
        assert len(addresses(ask(house, "sb", "db"))) == 2


def test_an_update_that_is_refused_changes_nothing() -> None:
    with inside.house() as house:
        house.box("sb")
        bad = Update(0, {"n": NetworkChange(put={"e1": Entry(("web",), ("172.18.0.300",))})}, {"sb": None})
        with pytest.raises(Invalid, match=r"172\.18\.0\.300"):
            house.server.update(bad)
        assert addresses(ask(house, "sb", "web")) == {"172.18.0.2"}


def test_exposed_services_have_srv_records() -> None:
    with inside.house() as house:
        house.box("sb")
        shop = Entry(("shop", "front"), ("172.18.0.9",), services={"_http._tcp": 80, "_domain._udp": 53})
        house.server.update(Update(0, {"n": NetworkChange(put={"e9": shop})}, {}))
        for name in ("_http._tcp.shop", "_HTTP._tcp.front", "_http._tcp.shop.app"):
            (rrset,) = ask(house, "sb", name, "SRV").answer
            assert str(rrset[0]) == "0 0 80 shop.app.", name
        assert str(ask(house, "sb", "_domain._udp.shop", "SRV").answer[0][0]) == "0 0 53 shop.app."
        unknown = ask(house, "sb", "_imap._tcp.shop", "SRV")
        assert (unknown.rcode(), unknown.answer) == (dns.rcode.NOERROR, []), "known here, so nobody else is asked"
        for name in ("_http._tcp.nobody", "_http._tcp", "_http.shop", "_http"):
            assert ask(house, "sb", name, "SRV").rcode() == dns.rcode.SERVFAIL, "forwarded, and there is no server"


def test_ipv6_addresses_have_both_ways() -> None:
    with inside.house() as house:
        house.box("sb")
        both = Entry(("both",), ("172.18.0.8",), ("fd00::8",))
        house.server.update(Update(0, {"n": NetworkChange(put={"e8": both})}, {}))
        assert addresses(ask(house, "sb", "both", "AAAA")) == {"fd00::8"}
        assert addresses(ask(house, "sb", "both")) == {"172.18.0.8"}
        back = dns.reversename.from_address("fd00::8").to_text()
        assert addresses(ask(house, "sb", back, "PTR")) == {"both.app."}
