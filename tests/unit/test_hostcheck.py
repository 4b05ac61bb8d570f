"""Host checks: from what was seen on a host to what its owner is told."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from netengine import hostcheck, trial
from netengine.firewalls import Seen
from netengine.hostcheck import CAPABILITIES, MODULES, Facts, file_system, judge


def without(*names: str) -> int:
    mask = (1 << 41) - 1
    for name in names:
        mask &= ~(1 << CAPABILITIES[name][0])
    return mask


def test_a_host_that_lacks_nothing_has_no_findings() -> None:
    assert judge(Facts()) == []


@pytest.mark.parametrize("name", ["NET_ADMIN", "SYS_ADMIN"])
def test_without_these_capabilities_nothing_works(name: str) -> None:
    (finding,) = judge(Facts(capabilities=without(name)))
    assert (finding.level, finding.without) == ("fatal", "nothing")
    assert f"CAP_{name}" in finding.what
    assert "CapabilityBoundingSet=" in finding.remedy


def test_a_lesser_capability_costs_a_part_only() -> None:
    (finding,) = judge(Facts(capabilities=without("NET_RAW")))
    assert finding.level == "warn"
    assert "ping" in finding.without


def test_every_feature_that_is_tried_names_the_module_that_brings_it() -> None:
    assert MODULES.keys() == {*trial.NFT_RULES, *trial.LINKS, "overlay"}
    for feature, module in MODULES.items():
        (finding,) = judge(Facts(failures={feature: "Operation not supported"}))
        assert finding.level == ("warn" if feature in ("overlay", "nft_ipv6") else "fatal")
        assert f"modprobe {module}" in finding.remedy
        assert "Operation not supported" in finding.what
        assert finding.without


@pytest.mark.parametrize("kind", trial.LINKS)
def test_without_bridges_the_daemon_can_do_without_when_told_so(kind: str) -> None:
    (finding,) = judge(Facts(failures={kind: "no"}, bridge_wanted=False))
    assert (finding.level, finding.without) == ("warn", "the networks host and none; no bridge networks")


def test_without_namespaces_nothing_works_and_a_failed_trial_proves_nothing() -> None:
    (finding,) = judge(Facts(failures={"netns": "Operation not permitted"}))
    assert finding.level == "fatal"
    (finding,) = judge(Facts(failures={"trial": "no answer"}))
    assert finding.level == "warn"


@pytest.mark.parametrize(("program", "package"), [("runc", "runc"), ("nft", "nftables"), ("ip", "iproute2")])
def test_a_missing_program_names_its_package(program: str, package: str) -> None:
    (finding,) = judge(Facts(missing_programs=(program,)))
    assert (finding.level, finding.remedy) == ("warn", f"apt-get install {package}")


def test_the_missing_binding_names_package_and_virtual_environment() -> None:
    (finding,) = judge(Facts(nftables_binding=False))
    assert finding.level == "fatal"
    assert "python3-nftables" in finding.remedy
    assert "--system-site-packages" in finding.remedy


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        ({"sysctls_writable": False}, "/proc/sys/net is read-only"),
        ({"cgroups_writable": False}, "no writable cgroups"),
        ({"bridge_calls_iptables": True}, "br_netfilter"),
        ({"data_root_type": "overlay"}, "lies on overlay"),
        ({"firewalls": Seen(ufw=True)}, "ufw is active"),
        ({"firewalls": Seen(dropping={"ip6 filter FORWARD": ""})}, "ip6 filter FORWARD drops what is forwarded"),
    ],
)
def test_the_surroundings_never_stop_the_daemon(fact: dict[str, object], words: str) -> None:
    (finding,) = judge(msgspec.structs.replace(Facts(), **fact))
    assert finding.level in ("warn", "note")
    assert words in finding.what


def test_the_gravest_finding_comes_first_and_reads_as_one_line() -> None:
    findings = judge(
        Facts(firewalls=Seen(dropping={"ip6 filter FORWARD": ""}), missing_programs=("runc",), nftables_binding=False)
    )
    assert [finding.level for finding in findings] == ["fatal", "warn", "note"]
    assert str(findings[1]).startswith("runc is not installed; apt-get install runc; without: networks")
    assert "\n" not in "".join(map(str, findings))


def test_the_file_system_of_a_directory_is_that_of_the_deepest_mount_above_it() -> None:
    mountinfo = "\n".join(
        [
            "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
            "30 22 0:30 / /var rw - xfs /dev/sdb rw",
            "31 30 0:31 / /var/lib/my\\040data rw - overlay none rw",
            "32 22 0:32 / /mnt rw - nfs4 server:/ rw",
            "33 22 0:33 / /mnt rw - tmpfs none rw",
        ]
    )
    assert file_system(mountinfo, Path("/srv/netengine")) == "ext4"
    assert file_system(mountinfo, Path("/var/lib/netengine")) == "xfs"
    assert file_system(mountinfo, Path("/var/lib/my data/netengine")) == "overlay"
    assert file_system(mountinfo, Path("/mnt")) == "tmpfs"
    assert file_system(mountinfo, Path("/variable")) == "ext4"


def test_effective_capabilities_are_read_from_the_status_file() -> None:
    assert hostcheck._effective_capabilities("Name:\tx\nCapEff:\t0000000000003000\n") == 0x3000
    assert hostcheck._effective_capabilities("") == 0
