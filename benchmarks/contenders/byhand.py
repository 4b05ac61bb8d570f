"""What a careful administrator's script does: `ip -batch` and `nft -f`."""

from __future__ import annotations

from benchmarks.contenders.base import FIRST_PORT, Contender, address, namespaces, run

RULES = """
add table ip t
add set ip t subnets { type ipv4_addr; }
add map ip t ports { type inet_proto . inet_service : ipv4_addr . inet_service; }
add chain ip t pre { type nat hook prerouting priority dstnat; }
add chain ip t out { type nat hook output priority -100; }
add chain ip t post { type nat hook postrouting priority srcnat; }
add rule ip t pre fib daddr type local dnat ip to meta l4proto . th dport map @ports
add rule ip t out fib daddr type local dnat ip to meta l4proto . th dport map @ports
add rule ip t post iifname "br0" oifname != "br0" masquerade
add rule ip t post ip saddr 127.0.0.0/8 oifname "br0" masquerade
"""


class ByHand(Contender):
    name = "ip+nft by hand"

    def prepare(self, count: int) -> None:
        namespaces(count)
        self._ip("link add br0 type bridge", "addr add 10.7.0.1/16 dev br0", "link set br0 up")
        run(["nft", "-f", "-"], stdin=RULES.encode())

    def attach(self, n: int) -> None:
        self._connect(n)
        run(["nft", "-f", "-"], stdin=f"add element ip t subnets {{ {address(n, '10.7')} }}\n".encode())

    def port(self, n: int) -> None:
        self._connect(n)
        ip = address(n, "10.7")
        lines = (
            f"add element ip t subnets {{ {ip} }}\nadd element ip t ports {{ tcp . {FIRST_PORT + n} : {ip} . 80 }}\n"
        )
        run(["nft", "-f", "-"], stdin=lines.encode())

    def detach(self, n: int) -> None:
        self._ip(f"link del v{n}")
        run(["nft", "-f", "-"], stdin=f"delete element ip t subnets {{ {address(n, '10.7')} }}\n".encode())

    def _connect(self, n: int) -> None:
        self._ip(f"link add v{n} type veth peer name eth0 netns ns{n}", f"link set v{n} master br0 up")
        inner = ("link set lo up", f"addr add {address(n, '10.7')}/16 dev eth0", "link set eth0 up")
        self._ip(*inner, "route add default via 10.7.0.1", within=f"ns{n}")

    def _ip(self, *lines: str, within: str = "") -> None:
        run(["ip", *(["-n", within] if within else []), "-batch", "-"], stdin="\n".join(lines).encode())
