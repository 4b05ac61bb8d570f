"""The constant rules as text: what every version of them must keep."""

from __future__ import annotations

import re

import pytest

from netengine.kernel import ruleset

TEXT = ruleset.text("ip")


def chain(name: str) -> list[str]:
    found = re.search(rf"chain {re.escape(name)} {{\n(.*?)\n    }}", TEXT, re.DOTALL)
    assert found is not None
    return [line.strip() for line in found.group(1).splitlines()]


def test_every_set_and_map_is_declared_and_looked_up() -> None:
    for name in ruleset.NAMES:
        assert re.search(rf"^    (set|map) {name} {{", TEXT, re.MULTILINE), f"{name} is not declared"
        assert f"@{name}" in TEXT, f"no rule looks {name} up"


def test_every_chain_accepts_by_default() -> None:
    """A policy of drop would drop what is not ours when the rules are incomplete."""
    hooks = [line for line in TEXT.splitlines() if " hook " in line]
    assert len(hooks) >= 4
    assert all(line.endswith("policy accept;") for line in hooks)


def test_the_user_s_chain_comes_before_any_verdict_of_ours() -> None:
    rules = [line for line in chain("filter-forward") if not line.startswith("type ")]
    assert rules[0] == f"jump {ruleset.USER_CHAIN}"


def test_the_user_s_chain_is_empty() -> None:
    assert [line for line in chain(ruleset.USER_CHAIN) if not line.startswith("comment ")] == []


def test_the_rules_name_no_address_or_link_of_a_network() -> None:
    """What is of one network is an element; only loopback is constant."""
    rules = re.sub(r'comment "[^"]*"', "", TEXT)
    assert set(re.findall(r"[0-9]+(?:\.[0-9]+){3}(?:/[0-9]+)?", rules)) == {"127.0.0.0/8"}
    assert set(re.findall(r'[io]ifname "([^"]+)"', rules)) <= {"lo"}


def test_the_signature_counts_the_rules_of_each_chain() -> None:
    names, counts = ruleset.signature("ip")
    expected = {}
    for name in re.findall(r"^    chain (\S+) {", TEXT, re.MULTILINE):
        rules = [line for line in chain(name) if not line.startswith(("type ", "comment "))]
        expected[name] = len(rules)
    del expected[ruleset.USER_CHAIN]
    assert counts == expected
    assert names == ruleset.NAMES | set(expected) | {ruleset.USER_CHAIN}


def test_another_text_has_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chain that names the version changes with any rule: an old table is not taken for a new one."""
    before = ruleset.signature("ip")[0]
    monkeypatch.setattr(ruleset, "_RULES_IP", ruleset._RULES_IP.replace("counter drop", "drop", 1))
    after = ruleset.signature("ip")[0]
    assert ruleset.version("ip") in after - before
    (old,), (new,) = before - after, after - before
    assert old.startswith("version-") and new.startswith("version-")


def test_there_is_no_rule_set_for_ipv6() -> None:
    with pytest.raises(ValueError, match="IPv6"):
        ruleset.text("ip6")
