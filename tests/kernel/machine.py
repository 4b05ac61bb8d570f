"""A machine for tests of the kernel layer: a network and a mount namespace on a thread of this process, with a `Kernel` in it.

Made in a millisecond and gone with its thread, so that each test has one of its own. Nothing of the daemon runs; networks and
sandboxes are rendered by the real driver and applied by the real kernel layer.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv6Network, ip_network
from pathlib import Path
from typing import Any, TypeVar

from netengine.drivers import BridgeDriver, EndpointContext
from netengine.kernel.host import Kernel
from netengine.kernel.observe import observe
from netengine.kernel.plan import plan
from netengine.kernel.resources import (
    HOST,
    Element,
    LinkUp,
    Resource,
    Sysctl,
    Table,
)
from netengine.kernel.resources import (
    Namespace as NamespaceResource,
)
from netengine.model import Endpoint, Network, PublishedPort, Subnet
from tests.hosts import Namespace, wait_until

T = TypeVar("T")

RUN_DIR = Path("/run/netengine/netns")
ALIAS_DIR = Path("/run/netns")
FORWARDING: frozenset[Resource] = frozenset({Table("ip"), Sysctl(HOST, "net/ipv4/ip_forward", "1")})
FORWARDING6: frozenset[Resource] = frozenset({Table("ip6"), Sysctl(HOST, "net/ipv6/conf/all/forwarding", "1")})
STRANGERS_STAY_OUT = Element("ip", "strangers", ("ip",), ("drop",))

_CLONE_NEWNS, _CLONE_NEWNET = 0x20000, 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "cannot make the namespaces of a test machine: root is needed")


def _become_a_machine() -> None:
    _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET))
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    _check(_libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, b"mode=755"))
    for name, value in (
        ("ipv4/ip_forward", "0"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        # A link without IPv6 has its addresses at once and no more than it was given.
        ("ipv6/conf/default/disable_ipv6", "1"),
        ("ipv6/conf/all/forwarding", "0"),
    ):
        Path("/proc/sys/net", name).write_text(value)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


class Machine(Namespace):
    """`Namespace` makes sockets in it from any thread; what is here runs on the kernel layer's thread."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, f"kernel of {name}")
        self._thread.submit(_become_a_machine).result()
        self.tid = self._thread.submit(threading.get_native_id).result()
        super().__init__(Path(f"/proc/self/task/{self.tid}/ns/net"), name)
        self.kernel = Kernel(RUN_DIR, ALIAS_DIR)
        self.on_kernel(self.kernel.open)
        self.built: frozenset[Resource] = frozenset()
        self._empty = self.snapshot()

    def on_kernel(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on the kernel layer's thread."""
        return self._thread.submit(function, *args).result()

    def run(self, *argv: str, stdin: str = "", check: bool = True) -> str:
        """Run a command in the machine; its standard output."""
        done = self.on_kernel(lambda: subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=20))
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def json(self, *argv: str) -> Any:
        return json.loads(self.run(*argv) or "[]")

    def path(self, path: Path | str) -> Path:
        """A path of the machine, from any thread."""
        return Path(f"/proc/self/task/{self.tid}/root{path}")

    def namespace(self, ns: str) -> Namespace:
        """Make sockets in a sandbox."""
        return Namespace(self.path(RUN_DIR / ns), ns)

    # ------------------------------------------------------------------ the kernel layer

    def observe(self, want: Iterable[Resource] = ()) -> set[Resource]:
        return self.on_kernel(observe, self.kernel, list(want))

    def apply(self, want: Iterable[Resource], have: Iterable[Resource] = ()) -> Any:
        """`Kernel.apply` alone: for tests of what it refuses."""
        return self.on_kernel(self.kernel.apply, list(want), list(have))

    def make(self, want: Iterable[Resource]) -> None:
        """Go from what was built to `want`. The kernel must then read back as exactly that, and nothing be left to do."""
        wanted = frozenset(want)
        self.apply(wanted, self.built)
        self.built = wanted
        self.must_be_as_built()

    def build(self, resources: Iterable[Resource]) -> None:
        self.make(self.built | set(resources))

    def take(self, resources: Iterable[Resource]) -> None:
        self.make(self.built - set(resources))

    def heal(self) -> None:
        """What the daemon does when it starts."""
        self.apply(self.built, self.observe(self.built))
        self.must_be_as_built()

    def must_be_as_built(self) -> None:
        seen = self.observe(self.built)
        assert seen == self.built, f"missing: {self.built - seen}; too much: {seen - self.built}"
        assert not plan(self.built, seen), "replaying apply would change something"

    # ------------------------------------------------------------------ what is there

    def snapshot(self) -> dict[str, Any]:
        """Everything of the machine that netengine could change; links out of use, which the daemon deletes later, are not."""
        self.on_kernel(self.kernel.reap)
        links = {}
        for k in self.json("ip", "-d", "-j", "link", "show"):
            kind = k.get("linkinfo", {}).get("info_kind")
            links[k["ifname"]] = [
                k.get("altnames"),
                k.get("group"),
                k.get("master"),
                kind,
                "UP" in k["flags"],
                k["mtu"],
            ]
            if kind != "veth":  # the outer end of a pair gets a random one
                links[k["ifname"]].append(k["address"])
        routes = self.run("ip", "-4", "route", "show", "table", "all") + self.run("ip", "-6", "route", "show")
        routes = routes.replace(" linkdown", "")
        return {
            "links": links,
            "addresses": self.run("ip", "-o", "-4", "address"),
            "addresses of IPv6": self.run("ip", "-o", "-6", "address", "show", "scope", "global"),
            # A host that forwards answers to the anycast address of each subnet (RFC 4291, section 2.6.1).
            "routes": sorted(line.strip() for line in routes.splitlines() if not line.startswith("anycast")),
            "rules": self.run("nft", "--stateless", "list", "ruleset"),
            "mounts": sorted(
                line.split()[4] for line in Path(f"/proc/self/task/{self.tid}/mountinfo").read_text().splitlines()
            ),
            "files": sorted(str(p) for p in self.on_kernel(lambda: [*RUN_DIR.rglob("*"), *ALIAS_DIR.rglob("*")])),
            "ports": self.kernel.held_ports(),
        }

    def keep_this(self) -> None:
        """Whatever of others is there now must be there, unchanged, at the end of the test."""
        self._empty = self.snapshot()

    def dropped(self, reason: str, family: str = "ip") -> int:
        """Packets that the rules with this comment have dropped."""
        found = re.findall(rf'counter packets ([0-9]+) .* comment "{re.escape(reason)}"', self.rules(family))
        assert found, f"no rule says {reason!r}"
        return sum(map(int, found))

    def rules(self, family: str = "ip") -> str:
        return self.run("nft", "list", "table", family, "netengine")

    # ------------------------------------------------------------------ the end

    def undo_everything(self) -> None:
        """Remove all that is ours; the machine must then be as it was."""
        self.apply((), self.observe(self.built))
        wait_until(
            lambda: self.snapshot() == self._empty,
            lambda: "the machine is not as it was:\n" + _difference(self._empty, self.snapshot()),
            2,
        )

    def close(self) -> None:
        self.on_kernel(self.kernel.close)
        super().close()
        self._thread.shutdown()


def _difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    return "\n".join(f"{k}: {before[k]}\n   -> {after[k]}" for k in before if before[k] != after[k])


def cable(
    one: Machine, other: Machine, network: str = "192.0.2", link: str = "up0", network6: str = "2001:db8::"
) -> None:
    """Connect two machines: link up0 on both, addresses `network`.1/24 and .2/24, `network6`1/64 and 2/64."""
    one.run("ip", "link", "add", link, "type", "veth", "peer", "name", link, "netns", str(other.tid))
    for machine, number in ((one, 1), (other, 2)):
        # Without a link-local address that it may use, a machine cannot ask for the neighbour of a packet that it forwards.
        machine.run("sysctl", "-qw", f"net.ipv6.conf.{link}.accept_dad=0", f"net.ipv6.conf.{link}.disable_ipv6=0")
        machine.run("ip", "address", "add", f"{network}.{number}/24", "dev", link)
        machine.run("ip", "address", "add", f"{network6}{number}/64", "dev", link, "nodad")
        machine.run("ip", "link", "set", link, "up")
    for machine in (one, other):
        wait_until(lambda m=machine: _has_carrier(m, link), f"{link} of {machine.name} up")
        machine.keep_this()


def link_local(machine: Machine, link: str = "up0") -> str:
    """The link-local address of a link, or "" while it has none that can be used."""
    for entry in machine.json("ip", "-6", "-j", "address", "show", "dev", link, "scope", "link"):
        for address in entry.get("addr_info", []):
            if address.get("local") and not address.get("tentative"):
                return str(address["local"])
    return ""


def _has_carrier(machine: Machine, link: str) -> bool:
    """And the link-local address that comes with it, a moment later."""
    carrier = "LOWER_UP" in machine.json("ip", "-j", "link", "show", link)[0]["flags"]
    return carrier and "fe80::" in machine.run("ip", "-6", "route", "show", "dev", link)


class Lan:
    """A bridge network, rendered by the driver. `link` is the bridge's name."""

    driver = BridgeDriver()

    def __init__(
        self, machine: Machine, name: str = "br0", subnet: str = "10.1.0.0/24", subnet6: str = "", **fields: Any
    ) -> None:
        options = {"com.docker.network.bridge.name": name, **fields.pop("options", {})}
        self.machine = machine
        self.link = name
        self.subnet = ip_network(subnet)
        self.gateway = str(self.subnet[1])
        self.subnet6 = IPv6Network(subnet6) if subnet6 else None
        self.gateway6 = str(self.subnet6[1]) if self.subnet6 else ""
        fields.setdefault("enable_ipv6", bool(subnet6))
        self.network = Network(
            id=name.ljust(64, "0"),
            name=name,
            driver="bridge",
            created="",
            options=options,
            **fields,
        )
        self.driver.settle(self.network, [], 1500)
        self.network.subnets = [Subnet(subnet=subnet, gateway=self.gateway)]
        if subnet6:
            self.network.subnets.append(Subnet(subnet=subnet6, gateway=self.gateway6))

    @property
    def resources(self) -> frozenset[Resource]:
        return self.driver.render_network(self.network)

    def build(self) -> Lan:
        self.machine.build(FORWARDING | (FORWARDING6 if self.subnet6 else set()) | self.resources)
        return self

    def plug(
        self, ns: str, number: int, *ports: PublishedPort, link: str = "eth0", mac: str = "", is_gateway: bool = True
    ) -> frozenset[Resource]:
        """The resources of an endpoint with the subnet's `number`-th address."""
        endpoint = Endpoint(
            id="e" * 64,
            network_id=self.network.id,
            container_id=ns,
            sandbox_id=ns,
            address=f"{self.subnet[number]}/{self.subnet.prefixlen}",
            gateway="" if self.network.internal else self.gateway,
            address6=f"{self.subnet6[number]}/{self.subnet6.prefixlen}" if self.subnet6 else "",
            gateway6="" if self.network.internal else self.gateway6,
            mac=mac or f"02:00:00:00:{len(self.link):02x}:{number:02x}",
            link=link,
            host_link=f"v{ns}{self.link}"[:15],
        )
        context = EndpointContext(
            is_gateway,
            ports,
            is_gateway6=is_gateway and bool(self.subnet6),
            relays_ipv6=is_gateway and not self.subnet6,
        )
        return self.driver.render_endpoint(self.network, endpoint, context)

    def sandbox(self, ns: str, number: int, *ports: PublishedPort, mac: str = "") -> Namespace:
        """A sandbox on this network, built."""
        self.machine.build(box(ns) | self.plug(ns, number, *ports, mac=mac))
        return self.machine.namespace(ns)


def box(ns: str) -> frozenset[Resource]:
    """A sandbox that is on no network."""
    return frozenset({NamespaceResource(ns), LinkUp(ns, "lo")})


def port(host_port: int, container_port: int, host_ip: str = "0.0.0.0", protocol: str = "tcp") -> PublishedPort:
    return PublishedPort(host_ip=host_ip, host_port=host_port, container_port=container_port, protocol=protocol)


def installed(program: str) -> str:
    found = shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
    assert found is not None, f"{program} is not installed"
    return found
