"""Rules of others: what is in the way, and that the remedies name what all networks to come have in common."""

from __future__ import annotations

import pytest

from netengine.firewalls import GROUP, Obstacle, Seen, dropping_chains, judge
from netengine.kernel.resources import MARK_GROUP

DROP = "-P INPUT ACCEPT\n-P FORWARD DROP\n"
LET = "-A FORWARD -m devgroup --src-group 0x6e65 -j ACCEPT\n-A FORWARD -m devgroup --dst-group 0x6e65 -j ACCEPT\n"


def only(seen: Seen) -> Obstacle:
    (obstacle,) = judge(seen, "docker0")
    return obstacle


def test_the_group_is_that_of_our_links() -> None:
    assert GROUP == MARK_GROUP


def test_a_host_without_others_has_nothing_in_the_way() -> None:
    assert judge(Seen(docker=True), "docker0") == []


def test_iptables_is_told_of_our_group() -> None:
    assert (
        "iptables-nft -I FORWARD -m devgroup --src-group 28261 -j ACCEPT"
        in only(Seen(iptables={"iptables-nft": DROP})).remedy
    )


def test_docker_s_rules_go_where_docker_leaves_them() -> None:
    rules = DROP + "-N DOCKER-USER\n"
    assert "iptables-legacy -I DOCKER-USER" in only(Seen(iptables={"iptables-legacy": rules})).remedy


def test_iptables_of_ipv6_matters_to_ipv6_alone() -> None:
    assert only(Seen(iptables={"ip6tables-nft": DROP})).only_ipv6


@pytest.mark.parametrize(
    "seen",
    [
        Seen(iptables={"iptables-nft": DROP + LET}, dropping={"ip filter FORWARD": ""}),
        Seen(iptables={"iptables-nft": DROP.replace("DROP", "ACCEPT")}),
        Seen(firewalld='chain x {\n iifname "br-*" goto filter_FWDI_trusted\n}'),
        Seen(
            ufw=True,
            dropping={"ip filter FORWARD": ""},
            iptables={"iptables-nft": DROP + "".join(f"-A ufw-user-forward -{way} br-+ -j ACCEPT\n" for way in "io")},
        ),
        Seen(dropping={"inet fw pass": "iifgroup 28261 accept\noifgroup 28261 counter packets 0 bytes 0 accept"}),
    ],
    ids=["iptables", "policy accept", "firewalld", "ufw", "nftables"],
)
def test_what_was_let_through_is_not_in_the_way(seen: Seen) -> None:
    assert judge(seen, "docker0") == []


def test_a_half_of_the_remedy_is_not_enough() -> None:
    rules = DROP + LET.splitlines()[0]
    assert "FORWARD is DROP" in only(Seen(iptables={"iptables-nft": rules})).what


def test_firewalld_and_ufw_are_told_names_since_they_know_no_groups() -> None:
    assert "--add-interface=br-+ --add-interface=ne0" in judge(Seen(firewalld="table"), "ne0")[0].remedy
    assert "ufw route allow in on br-+" in only(Seen(ufw=True)).remedy


def test_a_native_chain_gets_native_rules() -> None:
    obstacle = only(Seen(dropping={"inet fw pass": "chain pass {}"}))
    assert obstacle.remedy.startswith("nft insert rule inet fw pass iifgroup 28261 accept; ")


def test_docker_beside_forwarding_that_netengine_turns_on_is_told_how_to_forward_again() -> None:
    assert '"ip-forward": false' in only(Seen(docker=True, strangers_dropped=True)).remedy


def test_foreign_chains_that_drop_what_is_forwarded_are_found_and_ours_are_not() -> None:
    listing = """
table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy drop;
	}
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
}
table inet fw {
	chain pass {
		type filter hook forward priority filter; policy accept;
	}
}
table ip netengine {
	chain forward {
		type filter hook forward priority filter; policy drop;
	}
}
"""
    assert dropping_chains(listing) == ("ip filter FORWARD",)
    assert dropping_chains("") == ()
