"""The plan: what is done, in which order, what is left to the kernel; and the laws that hold for any two kernels."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netengine.kernel.plan import Change, Plan, plan, stranded
from netengine.kernel.resources import (
    CREATION_ORDER,
    HOST,
    Address,
    Bridge,
    Element,
    HostPort,
    Ipvlan,
    LinkUp,
    Macvlan,
    Namespace,
    NamespaceAlias,
    Resource,
    Route,
    Sysctl,
    Table,
    TableFamily,
    Veth,
    Vlan,
    creation_rank,
)
from tests.unit.fake_kernel import FakeKernel
from tests.unit.resources_strategies import worlds

BRIDGE = Bridge("br0", "02:00:00:00:00:01", 1500, "netengine-br-1")
GATEWAY = Address(HOST, "br0", "10.0.0.1/24")
SANDBOX = Namespace("s0")
VETH = Veth("veth0", "br0", "s0", "eth0", "02:00:00:00:00:02", 1500)
ADDRESS = Address("s0", "eth0", "10.0.0.2/24")
UP = LinkUp("s0", "eth0")
ROUTE = Route("s0", "default", "eth0", "10.0.0.1")
PORT = Element("ip", "ports", ("tcp", "8080"), ("10.0.0.2", "80"))
HELD = HostPort("0.0.0.0", "tcp", 8080)
ALIAS = NamespaceAlias("web", "s0")
NETWORK: frozenset[Resource] = frozenset({Table("ip"), BRIDGE, GATEWAY})
CONTAINER: frozenset[Resource] = frozenset({SANDBOX, VETH, ADDRESS, UP, ROUTE, PORT, HELD, ALIAS})


def without_sysctls(world: frozenset[Resource]) -> set[Resource]:
    return {r for r in world if not isinstance(r, Sysctl)}


# ---------------------------------------------------------------------- laws


in_its_time = settings(deadline=None)
"""What is to be shown here is what the plan is, not how long a busy machine takes for it."""


@in_its_time
@given(worlds())
def test_nothing_is_done_where_everything_is_as_wanted(world: frozenset[Resource]) -> None:
    assert not plan(world, world)


@in_its_time
@given(worlds(), worlds())
def test_the_plan_turns_one_kernel_into_the_other(want: frozenset[Resource], have: frozenset[Resource]) -> None:
    kernel = FakeKernel(have)
    kernel.apply(want, have)
    assert kernel.has == without_sysctls(want)
    assert {r for r in want if isinstance(r, Sysctl)} <= kernel.sysctls


@in_its_time
@given(worlds(), worlds())
def test_there_and_back_again(want: frozenset[Resource], have: frozenset[Resource]) -> None:
    kernel = FakeKernel(have)
    kernel.apply(want, have)
    kernel.apply(have, want)
    assert kernel.has == without_sysctls(have)


@in_its_time
@given(worlds(), worlds())
def test_applying_twice_is_applying_once(want: frozenset[Resource], have: frozenset[Resource]) -> None:
    kernel = FakeKernel(have)
    kernel.apply(want, have)
    kernel.log.clear()
    kernel.apply(want, kernel.has | {r for r in kernel.sysctls if r in want})
    assert kernel.log == []


@in_its_time
@given(worlds(), st.data())
def test_whatever_is_taken_away_is_healed(want: frozenset[Resource], data: st.DataObject) -> None:
    """A foreign hand took something, and with it what the kernel takes along."""
    kernel = FakeKernel(want)
    taken = data.draw(st.sampled_from(sorted(kernel.has, key=lambda r: r.key)))
    kernel.carry_out(Plan(delete=(taken,), change=(), create=()))
    kernel.apply(want, kernel.has | (kernel.sysctls & want))
    assert kernel.has == without_sysctls(want)


@in_its_time
@given(worlds(), worlds())
def test_creations_and_deletions_are_in_the_kernel_s_order(
    want: frozenset[Resource], have: frozenset[Resource]
) -> None:
    steps = plan(want, have)
    created = [creation_rank(r) for r in steps.create]
    deleted = [creation_rank(r) for r in steps.delete]
    assert created == sorted(created)
    assert deleted == sorted(deleted, reverse=True)


@in_its_time
@given(worlds())
def test_the_plan_does_not_depend_on_the_order_of_a_set(world: frozenset[Resource]) -> None:
    assert plan(sorted(world, key=repr), ()) == plan(sorted(world, key=repr, reverse=True), ())


# ---------------------------------------------------------------------- single cases


def test_every_kind_of_resource_has_its_place_in_the_order() -> None:
    assert set(CREATION_ORDER) == set(Resource.__args__)  # type: ignore[attr-defined]


def test_a_port_is_taken_before_anything_is_built() -> None:
    """A port that somebody else has is the likeliest refusal: nothing must be undone for it."""
    assert plan(NETWORK | CONTAINER, ()).create[0] == HELD


def test_an_interface_has_its_address_before_it_comes_up() -> None:
    order = plan(NETWORK | CONTAINER, ()).create
    assert order.index(VETH) < order.index(ADDRESS) < order.index(UP) < order.index(ROUTE)


def test_a_port_is_translated_only_when_the_way_is_there() -> None:
    order = plan(NETWORK | CONTAINER, ()).create
    assert order.index(ROUTE) < order.index(PORT)


def test_what_restricts_is_there_before_the_link_and_after_it() -> None:
    guard = Element("bridge", "guarded", ("veth0",))
    policy = Element("ip", "policy-any-container", ("0.0.0.0/0", "10.0.0.2/32", "1-255", "0-65535"), ("drop",))
    world = CONTAINER | {guard, policy}
    created, deleted = plan(world, ()).create, plan((), world).delete
    for element in (guard, policy):
        assert created.index(element) < created.index(VETH) < created.index(UP) < created.index(PORT)
        assert deleted.index(PORT) < deleted.index(VETH) < deleted.index(element)


def test_what_keeps_the_host_out_of_overlay_networks_is_there_before_older_rules_that_do_are_replaced() -> None:
    tables: list[TableFamily] = ["bridge", "inet", "ip", "ip6"]
    assert plan({Table(family) for family in tables}, ()).create == tuple(map(Table, tables))


def test_what_goes_with_a_link_is_not_removed_by_itself() -> None:
    deleted = plan(NETWORK, NETWORK | CONTAINER).delete
    assert VETH in deleted and SANDBOX in deleted
    assert not {ADDRESS, UP, ROUTE} & set(deleted)


def test_the_bridge_s_address_and_sysctls_go_with_the_bridge() -> None:
    localnet = Sysctl(HOST, "net/ipv4/conf/br0/route_localnet", "1")
    assert plan((), {BRIDGE, GATEWAY, localnet}).delete == (BRIDGE,)


def test_an_address_of_a_link_that_stays_is_removed() -> None:
    assert plan({BRIDGE}, {BRIDGE, GATEWAY}).delete == (GATEWAY,)


def test_a_sysctl_is_never_removed() -> None:
    assert not plan((), {Sysctl(HOST, "net/ipv4/ip_forward", "1")})


def test_another_value_of_a_sysctl_is_a_change() -> None:
    off, on = Sysctl(HOST, "net/ipv4/ip_forward", "0"), Sysctl(HOST, "net/ipv4/ip_forward", "1")
    assert plan({on}, {off}) == Plan((), (Change(off, on),), ())


def test_a_veth_changes_its_bridge_in_place() -> None:
    moved = Veth("veth0", "br1", "s0", "eth0", VETH.peer_mac, 1500)
    assert plan({moved}, {VETH}) == Plan((), (Change(VETH, moved),), ())


@pytest.mark.parametrize(
    "other",
    [
        Veth("veth0", "br0", "s1", "eth0", VETH.peer_mac, 1500),
        Veth("veth0", "br0", "s0", "eth1", VETH.peer_mac, 1500),
        Veth("veth0", "br0", "s0", "eth0", "02:00:00:00:00:99", 1500),
    ],
    ids=["namespace", "name of the peer", "MAC"],
)
def test_a_veth_with_another_inner_end_is_made_anew(other: Veth) -> None:
    assert plan({other}, {VETH}) == Plan((VETH,), (), (other,))


def test_a_veth_made_anew_gets_all_that_it_carried() -> None:
    other = Veth("veth0", "br0", "s0", "eth0", "02:00:00:00:00:99", 1500)
    carried = {ADDRESS, UP, ROUTE}
    steps = plan(NETWORK | {SANDBOX, other} | carried, NETWORK | {SANDBOX, VETH} | carried)
    assert (steps.delete, steps.change, steps.create) == ((VETH,), (), (other, ADDRESS, UP, ROUTE))


def test_the_plan_names_what_goes_by_itself_so_that_it_can_be_put_back() -> None:
    assert set(plan(NETWORK, NETWORK | CONTAINER).implied) == {ADDRESS, UP, ROUTE}


def test_a_route_that_went_with_its_link_is_made_on_the_other_one() -> None:
    other = Veth("veth0", "br0", "s0", "eth1", VETH.peer_mac, 1500)
    moved = Route("s0", "default", "eth1", "10.0.0.1")
    steps = plan({other, moved}, {VETH, ROUTE})
    assert (steps.delete, steps.change, steps.create) == ((VETH,), (), (other, moved))


def test_one_key_with_two_contents_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="two different resources with one key"):
        plan({BRIDGE, Bridge("br0", "02:00:00:00:00:02", 1500, "x")}, ())


def test_an_empty_plan_is_false() -> None:
    assert not Plan((), (), ())
    assert Plan((BRIDGE,), (), ())


# ---------------------------------------------------------------------- parents that are missing

VLAN = Vlan("up0.5", "up0", 5)
ON_VLAN: set[Resource] = {
    Macvlan("s0", "eth0", "up0.5", "bridge"),
    Address("s0", "eth0", "10.0.0.2/24"),
    LinkUp("s0", "eth0"),
}
ON_UP0: set[Resource] = {Ipvlan("s1", "eth0", "up0", "l2", "bridge"), Route("s1", "default", "eth0")}
APART: set[Resource] = {Namespace("s0"), LinkUp("s0", "lo"), Address("s0", "eth1", "10.1.0.2/24")}


def test_what_stands_on_a_missing_parent_cannot_be() -> None:
    assert stranded({VLAN, LinkUp(HOST, "up0.5"), *ON_VLAN, *ON_UP0, *APART}, {"lo": True}) == {
        VLAN,
        LinkUp(HOST, "up0.5"),
        *ON_VLAN,
        *ON_UP0,
    }


def test_what_stands_on_a_parent_that_is_there_or_will_be_made_can_be() -> None:
    assert stranded({VLAN, LinkUp(HOST, "up0.5"), *ON_VLAN, *ON_UP0, *APART}, {"up0": True}) == frozenset()


def test_a_vlan_of_a_parent_that_is_down_cannot_be_up() -> None:
    assert stranded({VLAN, LinkUp(HOST, "up0.5"), *ON_VLAN}, {"up0": False}) == {LinkUp(HOST, "up0.5")}


def test_a_link_that_announces_has_its_address_first_and_one_that_does_not_has_it_after() -> None:
    for announces, order in ((True, ["Address", "LinkUp"]), (False, ["LinkUp", "Address"])):
        made = plan({LinkUp("s0", "eth0", announces), Address("s0", "eth0", "10.1.0.2/24")}, ()).create
        assert [type(r).__name__ for r in made] == order
