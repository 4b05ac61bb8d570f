"""Other programs' rules that the packets of containers have to pass: what is in the way, and what to type.

A packet passes the rules of all programs, and no accepting rule of netengine's overrides another's drop. What is not
netengine's is not changed, so here it is only looked at (`look`) and judged (`judge`, pure). The remedies are good for every
network to come: they name the group that all links of netengine carry, or, where a program knows names alone, what bridge
names begin with.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import msgspec

GROUP = 28261
"""netengine.kernel.resources.MARK_GROUP: the group of every bridge and veth of netengine."""

_PATH = "/usr/sbin:/usr/bin:/sbin"
_SECONDS = 5.0
_NFT_CHAINS, _IPTABLES_FORWARD = re.compile(r"^(ip6?) filter FORWARD$"), "-P FORWARD DROP"
_PROGRAMS = {"ip": "iptables", "ip6": "ip6tables"}


class Obstacle(msgspec.Struct, frozen=True):
    """What stops packets, and the commands that let them pass. `only_ipv6`: it stops those of IPv6 alone."""

    what: str
    remedy: str
    only_ipv6: bool = False


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen on the host. The defaults are a host without other firewalls."""

    dropping: Mapping[str, str] = {}
    """Base chains of others on the forward hook with policy drop, "FAMILY TABLE CHAIN", with their rules as nft lists them."""
    iptables: Mapping[str, str] = {}
    """What `iptables-nft -S`, `ip6tables-legacy -S` and so on print, by program; only of those with rules."""
    firewalld: str = ""
    """firewalld's table as nft lists it; "" when it does not run."""
    ufw: bool = False
    """ufw is enabled and does not allow what is routed by default."""
    docker: bool = False
    """Docker's engine runs."""
    strangers_dropped: bool = False
    """netengine turned forwarding on, or is about to, and so drops what is forwarded between interfaces of others."""


def judge(seen: Seen, default_bridge: str) -> list[Obstacle]:
    """What is in the way. What was let through already is not."""
    found = [*_firewalld(seen, default_bridge), *_ufw(seen, default_bridge)]
    if not seen.ufw:
        found += _iptables(seen)
    found += _nftables(seen)
    if seen.docker and seen.strangers_dropped:
        found.append(
            Obstacle(
                "Docker's engine runs, and netengine drops what it forwards: net.ipv4.ip_forward was 0, and netengine turned it"
                " on for its own bridges alone",
                "write net.ipv4.ip_forward=1 into /etc/sysctl.d/99-forward.conf, and restart netengined with"
                ' "ip-forward": false in its daemon.json; or let Docker start before netengine',
            )
        )
    return found


def _firewalld(seen: Seen, default_bridge: str) -> list[Obstacle]:
    if not seen.firewalld or 'iifname "br-*"' in seen.firewalld:
        return []
    return [
        Obstacle(
            "firewalld is active, and rejects what containers send to outside and to one another",
            f"firewall-cmd --permanent --zone=trusted --add-interface=br-+ --add-interface={default_bridge};"
            " firewall-cmd --reload",
        )
    ]


def _ufw(seen: Seen, default_bridge: str) -> list[Obstacle]:
    rules = "\n".join(seen.iptables.values())
    if not seen.ufw or all(f"-A ufw-user-forward -{way} br-+ -j ACCEPT" in rules for way in "io"):
        return []
    commands = [f"ufw route allow {way} on {link}" for link in ("br-+", default_bridge) for way in ("in", "out")]
    return [Obstacle("ufw is active, and drops what is routed to and from containers", "; ".join(commands))]


def _iptables(seen: Seen) -> list[Obstacle]:
    found = []
    for program, rules in seen.iptables.items():
        if _IPTABLES_FORWARD not in rules or all(
            re.search(rf"--{way}-group (0x6e65|{GROUP}) -j ACCEPT", rules) for way in ("src", "dst")
        ):
            continue
        chain = "DOCKER-USER" if "-N DOCKER-USER" in rules else "FORWARD"
        commands = [f"{program} -I {chain} -m devgroup --{way}-group {GROUP} -j ACCEPT" for way in ("src", "dst")]
        what = f"{program}: the policy of FORWARD is DROP"
        found.append(Obstacle(what, "; ".join(commands), only_ipv6=program.startswith("ip6")))
    return found


def _nftables(seen: Seen) -> list[Obstacle]:
    found = []
    for chain, rules in seen.dropping.items():
        match = _NFT_CHAINS.match(chain)
        if match and (seen.ufw or f"{_PROGRAMS[match[1]]}-nft" in seen.iptables):
            continue  # iptables speaks of it
        if all(re.search(rf"{way}group {GROUP} .*accept", rules) for way in ("iif", "oif")):
            continue
        commands = [f"nft insert rule {chain} {way}group {GROUP} accept" for way in ("iif", "oif")]
        what = f"the chain {chain} drops what is forwarded"
        found.append(Obstacle(what, "; ".join(commands), only_ipv6=chain.startswith("ip6 ")))
    return found


def dropping_chains(listing: str) -> tuple[str, ...]:
    """Base chains on the forward hook with policy drop that are not ours, from the text of `nft list chains`."""
    found, table, chain = [], "", ""
    for line in map(str.strip, listing.splitlines()):
        words = line.split()
        if line.startswith("table ") and len(words) >= 3:
            table = f"{words[1]} {words[2]}"
        elif line.startswith("chain ") and len(words) >= 2:
            chain = words[1]
        elif "hook forward" in line and "policy drop" in line and not table.endswith(" netengine"):
            found.append(f"{table} {chain}")
    return tuple(found)


# -- looking ----------------------------------------------------------------------------------------------------------


def look(ip_forward: bool) -> Seen:
    """Look at the host. In processes of their own: a table that a newer nft wrote has been seen to crash an older parser.

    `ip_forward`: netengine may turn forwarding on.
    """
    # Declarations alone, without rules and elements: cheap on any host.
    chains = _run("nft", "list", "chains")
    dropping = dropping_chains(chains)
    programs = [f"{_PROGRAMS[match[1]]}-nft" for chain in dropping if (match := _NFT_CHAINS.match(chain))]
    for family, program in _PROGRAMS.items():
        # Reading this file does not load the module; the programs would.
        if "filter" in text_of(f"/proc/net/{family}_tables_names").split():
            programs.append(f"{program}-legacy")
    iptables = {program: rules for program in programs if (rules := _run(program, "-S"))}
    ufw = "enabled=yes" in text_of("/etc/ufw/ufw.conf").lower().split()
    forwarded = re.search(r'^DEFAULT_FORWARD_POLICY="?(\w+)', text_of("/etc/default/ufw"), re.M)
    docker = docker_runs()
    off = text_of("/proc/sys/net/ipv4/ip_forward").strip() == "0"
    return Seen(
        dropping={chain: _run("nft", "list", "chain", *chain.split()) for chain in dropping},
        iptables=iptables,
        firewalld=_run("nft", "list", "table", "inet", "firewalld") if "table inet firewalld" in chains else "",
        ufw=ufw and not (forwarded and forwarded[1].upper() == "ACCEPT"),
        docker=docker,
        strangers_dropped=docker and ip_forward and (off or "drop" in _run("nft", *_STRANGERS)),
    )


_STRANGERS = ("list", "map", "ip", "netengine", "strangers")


def docker_runs() -> bool:
    """Whether Docker's engine runs here, by the file where it writes its process id."""
    pid = text_of("/run/docker.pid").strip()
    return pid.isdigit() and Path("/proc", pid).exists()


def default_bridge() -> str:
    """What the default network's bridge is called: Docker's engine wants docker0 for itself."""
    return "ne0" if docker_runs() else "docker0"


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_PATH}")


def _run(*argv: str) -> str:
    """What a program prints; "" when there is no such program or it fails."""
    program = _find(argv[0])
    if program is None:
        return ""
    try:
        done = subprocess.run([program, *argv[1:]], capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def text_of(path: str) -> str:
    """What a file says, "" where there is none that can be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
