"""Names of sysctls: both forms, and nothing that leads out of /proc/sys/net."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netengine.errors import Invalid
from netengine.kernel import sysctl
from netengine.kernel.sysctl import path_of


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("net.ipv4.ip_local_port_range", "net/ipv4/ip_local_port_range"),
    ],
)
def test_dotted_and_path_form(name: str, path: str) -> None:
    assert path_of(name) == path


@pytest.mark.parametrize(
    "name",
    [
        "",
        "net",
        "net.",
        "net..ipv4",
        "kernel.hostname",
        "network.ipv4",
        "/net/ipv4/ip_forward",
        "net/../kernel/hostname",
        "net/ipv4/./ip_forward",
        "net/ipv4/../../kernel/hostname",
        "net.//.kernel",
        "net.ipv4.ip_forward\n",
        "net.ipv4.ip forward",
        "net.ipv4.\0",
    ],
)
def test_what_is_not_a_network_sysctl_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="is not a network sysctl"):
        path_of(name)


def test_a_refusal_shows_the_name_as_it_was_given() -> None:
    with pytest.raises(Invalid, match=r"^sysctl 'net\.ipv4/\.\./x' is not"):
        path_of("net.ipv4/../x")


@given(st.one_of(st.text(), st.from_regex(r"net[./]([./a-z]|\.\.){0,12}", fullmatch=True)))
def test_no_name_leads_out_of_net(name: str) -> None:
    try:
        parts = path_of(name).split("/")
    except Invalid:
        return
    assert parts[0] == "net" and len(parts) > 1
    assert not {"", ".", ".."} & set(parts)


def test_reading_makes_runs_of_white_space_one_space() -> None:
    low, high = (sysctl.read("net/ipv4/ip_local_port_range") or "").split(" ")
    assert int(low) < int(high)


def test_a_value_that_the_kernel_does_not_have_is_none() -> None:
    assert sysctl.read("net/ipv4/no_such_value") is None


def test_a_kernel_without_ipv6_has_it_disabled_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net/ipv4").mkdir(parents=True)
    monkeypatch.setattr(sysctl, "_ROOT", tmp_path)
    off = "net/ipv6/conf/br0/disable_ipv6"
    sysctl.write(off, "1")
    assert sysctl.read(off) == "1"
    assert sysctl.read("net/ipv6/conf/br0/accept_ra") is None
    with pytest.raises(OSError, match="No such file"):
        sysctl.write(off, "0")
