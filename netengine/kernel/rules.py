"""The text of our rules, chain by chain, as nft reads it. The sets and maps that it looks things up in, and how a table is made
of both, are in ruleset.py; docs/ruleset.md says why each rule stands where it does, and what it costs a packet.

What every packet passes comes first and is cheap: a comparison costs some 20 ns, a look-up of a name 110, of a prefix 165.
"""

from __future__ import annotations

from collections.abc import Mapping

from netengine.kernel.resources import MARK_GROUP, Family

ROUTED = """
    chain user-forward {
        comment "yours: jumped to before netengine lets anything through; never changed by it"
    }

    chain raw-prerouting {
        type filter hook prerouting priority raw; policy accept;
        IP daddr LOOPBACK goto loopback
        IP saddr LOOPBACK goto loopback
    }

    chain loopback {
        iif "lo" accept
        iifname != @bridges accept
        IP daddr LOOPBACK counter drop comment "a container may not reach the host's loopback"
        counter drop comment "nor pretend to be it"
    }

    chain published-ports {
PORTS
    }

    chain nat-prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        FROM_OUTSIDE fib daddr type local goto published-ports
    }

    chain nat-output {
        type nat hook output priority -100; policy accept;
        FROM_HERE fib daddr type local goto published-ports
    }

    chain nat-strangers {
        type nat hook postrouting priority srcnat - 10; policy accept;
        meta iifkind "bridge" meta oifkind "bridge" iifname != @bridges oifname != @bridges meta protocol vmap @strangers
    }

    chain nat-postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ct status dnat jump hairpin
        IP saddr LOOPBACK oifname @bridges masquerade comment "a container cannot answer the host's loopback"
        oifname @bridges accept
        snat IP to iifname map @sources
        iifname @masquerading masquerade
    }

    chain hairpin {
        iifgroup != OURS oifgroup OURS return comment "not from there"
        oifname . IP saddr @hairpins masquerade comment "the answer must come back through the host"
    }

    chain filter-forward {
        type filter hook forward priority filter; policy accept;
        ct state & (established | related) == 0 iifgroup != OURS jump direct-access
        jump user-forward
        meta protocol vmap @policy-gate
        ct state established,related accept
        ct status dnat iifname != @internal IP daddr . meta l4proto . th dport @published accept
        iifname . oifname vmap @pairs
        iifname @internal counter drop comment "out of an internal network"
        oifname @internal counter drop comment "into an internal network"
        oifname @bridges goto into-a-network
        iifname @bridges accept
        meta iifkind "bridge" meta oifkind "bridge" accept comment "within a bridge of others; else nat-strangers has it"
        meta protocol vmap @strangers
    }

    chain direct-access {
        ct status dnat return
        IP daddr != @subnets return
        iifname @bridges return comment "an adopted bridge"
        iifname . IP daddr @trusted return
        counter drop comment "direct access from outside to a container"
    }

    chain policies {
        ct state untracked return comment "IPv6 neighbours look for each other; and what you do not track"
        ct direction reply return
POLICIES
    }

    chain into-a-network {
        IP daddr . meta l4proto . th dport @open accept
        oifname @unprotected accept
        meta l4proto ICMP oifname @routed accept
        iifname . IP daddr @trusted IP daddr . meta l4proto . th dport @published accept
        iifname . IP saddr . IP daddr . meta l4proto . th dport @links accept comment "to a container it is linked to"
        iifname . IP daddr . IP saddr . meta l4proto . th sport @links accept comment "and back"
        counter drop comment "not published"
    }
"""

# Before connection tracking, as raw-prerouting. Tables are made in the order of their names: this one is there before an older
# version of `ip`, which did the same, is replaced.
INET = """
    chain inet-prerouting {
        type filter hook prerouting priority raw; policy accept;
        iifname @sealed fib daddr type local counter drop comment "the host has no part in an overlay network"
    }
"""

# A frame is looked at before the bridge learns from it where a MAC address is. Ethernet types other than these three, tagged
# frames among them, do not pass. An address is probed for with the sender 0.0.0.0 (RFC 5227) or :: (RFC 4862).
BRIDGE = """
    chain bridge-prerouting {
        type filter hook prerouting priority -300; policy accept;
        iifname @guarded goto guard
    }

    chain guard {
        iifname . ether saddr != @stations counter drop comment "another's MAC address"
        ether type { 8021q, 8021ad } counter drop comment "a tagged frame"
        iifname . ether saddr . ip saddr @owners accept
        ether type arp goto guard-arp
        ether type ip6 goto guard-ip6
        counter drop comment "another's IPv4 address, or no IP at all"
    }

    chain guard-arp {
        iifname . arp saddr ether . arp saddr ip @owners accept
        arp saddr ip 0.0.0.0 iifname . arp saddr ether @stations accept
        counter drop comment "an ARP message for another"
    }

    chain guard-ip6 {
        icmpv6 type { nd-router-advert, nd-redirect } counter drop comment "no container is a router"
        ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld2-listener-report } accept
        iifname . ether saddr . ip6 saddr != @owners6 counter drop comment "another's IPv6 address"
        icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @targets counter drop comment "an announcement for another"
        accept
    }
"""

WORDS: Mapping[Family, Mapping[str, str]] = {
    "ip": {
        "IP": "ip",
        "ICMP": "icmp",
        "OURS": str(MARK_GROUP),
        "LOOPBACK": "127.0.0.0/8",
        "FROM_OUTSIDE": "ip daddr != 127.0.0.0/8",
        "FROM_HERE": "",
    },
    # A packet between link-local addresses is never forwarded, and one from ::1 finds no way back: the kernel has no
    # route_localnet for IPv6. Both reach the socket that holds the port, and so the relay.
    "ip6": {
        "IP": "ip6",
        "ICMP": "ipv6-icmp",
        "OURS": str(MARK_GROUP),
        "LOOPBACK": "::1",
        "FROM_OUTSIDE": "ip6 saddr != fe80::/10",
        "FROM_HERE": "ip6 daddr != ::1 ip6 saddr != fe80::/10",
    },
}
"""What the words in capitals stand for in each family."""

PORTS = "\n".join(
    f"        meta l4proto {protocol} dnat IP to {key} map @{name}"
    for protocol in ("tcp", "udp", "sctp")  # a rule for each: nft wants to know it, and a set of three costs a look-up
    for key, name in (("IP daddr . meta l4proto . th dport", "address-ports"), ("meta l4proto . th dport", "ports"))
)
