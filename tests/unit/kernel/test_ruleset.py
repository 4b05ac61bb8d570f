"""The constant rules as text: what every version of them must keep, in both families."""

from __future__ import annotations

import re

import pytest

from netengine.kernel import rules, ruleset
from netengine.kernel.nftables import VERDICTS
from netengine.kernel.resources import Family, TableFamily

ROUTED: tuple[Family, ...] = ("ip", "ip6")
every = pytest.mark.parametrize("family", ruleset.FAMILIES)
both = pytest.mark.parametrize("family", ROUTED)


def chain(family: TableFamily, name: str) -> list[str]:
    found = re.search(rf"chain {re.escape(name)} {{\n(.*?)\n    }}", ruleset.text(family), re.DOTALL)
    assert found is not None
    return [line.strip() for line in found.group(1).splitlines()]


@every
def test_every_set_and_map_is_declared_and_looked_up(family: TableFamily) -> None:
    text = ruleset.text(family)
    for name in (c.name for c in ruleset.containers(family)):
        assert re.search(rf"^    (set|map) {name} {{", text, re.MULTILINE), f"{name} is not declared"
        assert f"@{name}" in text, f"no rule looks {name} up"


@every
def test_every_chain_accepts_by_default(family: TableFamily) -> None:
    """A policy of drop would drop what is not ours when the rules are incomplete."""
    hooks = [line for line in ruleset.text(family).splitlines() if " hook " in line]
    assert len(hooks) >= (4 if family in ROUTED else 1)
    assert all(line.endswith("policy accept;") for line in hooks)


@every
def test_every_other_chain_is_led_to(family: TableFamily) -> None:
    text = ruleset.text(family)
    for name in re.findall(r"^    chain (\S+) {", text, re.MULTILINE):
        if not name.startswith(ruleset.VERSION_PREFIX) and " hook " not in chain(family, name)[0]:
            by_element = f"jump {name}" in VERDICTS
            assert by_element or re.search(rf"(jump|goto) {name}$", text, re.MULTILINE), f"nothing leads to {name}"


@both
def test_nothing_of_ours_lets_a_packet_through_before_the_user_s_chain(family: Family) -> None:
    lines = [line for line in chain(family, "filter-forward") if not line.startswith("type ")]
    assert lines[0].endswith(" jump direct-access") and lines[1] == f"jump {ruleset.USER_CHAIN}"
    verdicts = re.sub(r' comment "[^"]*"', "", "\n".join(chain(family, "direct-access")))
    assert {line.split()[-1] for line in verdicts.splitlines()} == {"return", "drop"}


@both
def test_the_user_s_chain_is_empty(family: Family) -> None:
    assert [line for line in chain(family, ruleset.USER_CHAIN) if not line.startswith("comment ")] == []


@pytest.mark.parametrize(
    ("family", "constants"),
    [("ip", {"127.0.0.0/8"}), ("ip6", {"::1", "fe80::/10"}), ("inet", set()), ("bridge", {"0.0.0.0", "::"})],
)
def test_the_rules_name_no_address_or_link_of_a_network(family: TableFamily, constants: set[str]) -> None:
    """What is of one network is an element; only loopback and link-local addresses are constant."""
    text = re.sub(r'comment "[^"]*"', "", ruleset.text(family))
    found = set(re.findall(r"[0-9]+(?:\.[0-9]+){3}(?:/[0-9]+)?|(?<![\w-])[0-9a-f]*::[0-9a-f:]*(?:/[0-9]+)?", text))
    assert found == constants
    assert set(re.findall(r'[io]ifname "([^"]+)"', text)) <= {"lo"}


@every
def test_the_signature_counts_the_rules_of_each_chain(family: TableFamily) -> None:
    names, counts = ruleset.signature(family)
    expected = {}
    for name in re.findall(r"^    chain (\S+) {", ruleset.text(family), re.MULTILINE):
        lines = [line for line in chain(family, name) if not line.startswith(("type ", "comment "))]
        expected[name] = len(lines)
    users = {ruleset.USER_CHAIN} & set(expected)
    assert users or family not in ROUTED
    assert counts == {name: count for name, count in expected.items() if name not in users}
    assert names == {c.name for c in ruleset.containers(family)} | set(expected)


@every
def test_another_text_has_another_version(family: TableFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chain that names the version changes with any rule: an old table is not taken for a new one."""
    before = ruleset.signature(family)[0]
    name = "ROUTED" if family in ROUTED else family.upper()
    monkeypatch.setattr(rules, name, getattr(rules, name).replace("counter drop", "drop", 1))
    after = ruleset.signature(family)[0]
    assert ruleset.version(family) in after - before
    (old,), (new,) = before - after, after - before
    assert old.startswith("version-") and new.startswith("version-")


def test_both_families_have_the_same_names_and_as_many_rules() -> None:
    (names4, counts4), (names6, counts6) = (ruleset.signature(family) for family in ROUTED)
    assert {n for n in names4 ^ names6 if not n.startswith(ruleset.VERSION_PREFIX)} == set()
    versions = {ruleset.version("ip"), ruleset.version("ip6")}
    assert {n: c for n, c in counts4.items() if n not in versions} == {
        n: c for n, c in counts6.items() if n not in versions
    }


@both
def test_no_word_of_the_common_text_is_left(family: Family) -> None:
    text = re.sub(r'comment "[^"]*"', "", ruleset.text(family))
    assert re.findall(r"\b[A-Z][A-Z_]+\b", text) == []


def test_the_families_are_kept_apart() -> None:
    assert not re.search(r"ip6|ipv6|::", ruleset.text("ip"))
    assert not re.search(r"\bip [sd]addr|ipv4|127\.", ruleset.text("ip6"))
