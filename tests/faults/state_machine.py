"""A hypothesis state machine: the API driven at random beside a model of it, with faults in between.

After each request the daemon's answers are compared with the model; after each fault, and at the end, the kernel is too, by
reading nftables and the links by other means than the daemon's. The doctor must find nothing. At the end all is removed, and
nothing may be left.
"""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.clients.lab import Lab
from tests.faults.machine_model import BRIDGE, INTERNAL, NETWORKS, Model
from tests.hosts import wait_until

NAMES = ("web", "mail", "job", "zoo")  # none could be the beginning of an id
PORTS = (0, 18081, 18082)
WISHES = (0, 0, 200, 201)

network = st.sampled_from((*NETWORKS, BRIDGE))
box = st.sampled_from(NAMES)
HEAL_SECONDS = 10.0


class Machine(RuleBasedStateMachine):
    """Driven by `lab`, set by whoever runs it."""

    lab: Lab
    requests = 0
    faults = 0
    first_failure = ""
    """What was done up to the first failure, and how it failed: hypothesis does it again, and on another daemon's state it may
    fail otherwise."""
    flushes: list[float] = []

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.history: list[str] = []
        self.taken = 0

    def _ask(self, expected: int, method: str, path: str, body: Any = None) -> Any:
        type(self).requests += 1
        self.history.append(f"{method} {path} {json.dumps(body) if body else ''}: {expected}")
        answer = self.lab.api(method, path, body, timeout=60)
        assert answer.status == expected, (
            f"{method} {path} {body}: {answer.status} {answer.body!r}, expected {expected}"
        )
        self._compare()
        return answer

    # -- requests -------------------------------------------------------------------------------------------------------

    @initialize()
    def something_is_there(self) -> None:
        self.create_network("net-a")
        self.create(NAMES[0], "net-a", 0, PORTS[1])
        self.start(NAMES[0])

    @rule(name=network)
    def create_network(self, name: str) -> None:
        subnet = [{"Subnet": NETWORKS.get(name, "10.54.0.0/24")}]
        body = {"Name": name, "IPAM": {"Config": subnet}, "Internal": name in INTERNAL}
        self._ask(self.model.create_network(name), "POST", "/networks/create", body)

    @rule(name=network)
    def remove_network(self, name: str) -> None:
        self._ask(self.model.remove_network(name), "DELETE", f"/networks/{name}")

    @rule(name=box, on=network, wish=st.sampled_from(WISHES), port=st.sampled_from(PORTS))
    def create(self, name: str, on: str, wish: int, port: int) -> None:
        wish = 0 if on == BRIDGE else wish
        bindings = {"80/tcp": [{"HostPort": str(port)}]} if port else {}
        body = {
            "Image": "sandbox",
            "HostConfig": {"NetworkMode": on, "PortBindings": bindings},
            "NetworkingConfig": {"EndpointsConfig": {on: _wish(on, wish)}},
        }
        self._ask(self.model.create(name, on, wish, port), "POST", f"/containers/create?name={name}", body)

    @rule(name=box)
    def start(self, name: str) -> None:
        self._ask(self.model.start(name), "POST", f"/containers/{name}/start")

    @rule(name=box)
    def stop(self, name: str) -> None:
        self._ask(self.model.stop(name), "POST", f"/containers/{name}/stop")

    @rule(name=box, force=st.booleans())
    def remove(self, name: str, force: bool) -> None:
        self._ask(self.model.remove(name, force), "DELETE", f"/containers/{name}?force={int(force)}")

    @rule(name=box, new=box)
    def rename(self, name: str, new: str) -> None:
        self._ask(self.model.rename(name, new), "POST", f"/containers/{name}/rename?name={new}")

    @rule(name=box, to=network, wish=st.sampled_from(WISHES))
    def connect(self, name: str, to: str, wish: int) -> None:
        wish = 0 if to == BRIDGE else wish
        body = {"Container": name, "EndpointConfig": _wish(to, wish)}
        self._ask(self.model.connect(name, to, wish), "POST", f"/networks/{to}/connect", body)

    @rule(name=box, to=network, force=st.booleans())
    def disconnect(self, name: str, to: str, force: bool) -> None:
        body = {"Container": name, "Force": force}
        self._ask(self.model.disconnect(name, to), "POST", f"/networks/{to}/disconnect", body)

    # -- faults ---------------------------------------------------------------------------------------------------------

    @rule(fault=st.sampled_from(("kill -9", "flush", "bridge", "veth", "down", "flush", "veth")))
    def something_happens(self, fault: str) -> None:
        # Healing gives up for a while on what is taken away six times in a minute (docs/reliability.md).
        self.taken += fault in ("bridge", "down", "veth")
        if self.taken > 4:
            return
        host, links = self.lab.here, sorted(self.lab.here.links())
        self.history.append(fault)
        type(self).faults += 1
        match fault:
            case "kill -9":
                self.lab.daemon.kill9()
                self.lab.daemon.start()
            case "flush":
                self.flushes[:] = [at for at in self.flushes if at > time.monotonic() - 65]
                if len(self.flushes) >= 4:
                    return
                self.flushes.append(time.monotonic())
                host.run(["nft", "flush", "ruleset"], check=True)
            case "bridge" | "down":
                bridges = [link for link in links if link.startswith("br-")]
                if bridges:
                    host.run(
                        ["ip", "link", *(["del", bridges[0]] if fault == "bridge" else ["set", bridges[0], "down"])]
                    )
            case "veth":
                veths = [link for link in links if link.startswith("veth")]
                if veths:
                    host.run(["ip", "link", "del", veths[0]])
        wait_until(
            lambda: self._differences() == [], lambda: f"healed after {fault}: {self._differences()}", HEAL_SECONDS
        )
        self._compare_kernel()

    # -- names ----------------------------------------------------------------------------------------------------------

    @precondition(lambda self: any(self._has_names(name) for name in self.model.boxes))
    @rule(data=st.data(), wanted=box)
    def look_up(self, data: st.DataObject, wanted: str) -> None:
        who = data.draw(st.sampled_from(sorted(name for name in self.model.boxes if self._has_names(name))))

        def found() -> bool:
            answer = self.lab.api("GET", f"/netengine/dns/query?from={who}&name={wanted}.").json
            return bool(answer["Records"])

        expected = self.model.finds(who, wanted)
        wait_until(lambda: found() == expected, f"{who} finds {wanted}: {expected}", HEAL_SECONDS)

    def _has_names(self, name: str) -> bool:
        one = self.model.boxes[name]
        return one.running and bool({*one.networks} - {BRIDGE})

    # -- what must be true ------------------------------------------------------------------------------------------------

    def _compare(self) -> None:
        networks = {one["Name"] for one in self.lab.api("GET", "/networks").json}
        assert networks == {*self.model.networks, "host", "none"}
        found = {}
        for one in self.lab.api("GET", "/containers/json?all=1").json:
            found[one["Names"][0].removeprefix("/")] = one
        assert found.keys() == self.model.boxes.keys()
        addresses: set[str] = set()
        for name, mine in self.model.boxes.items():
            shown = found[name]
            assert shown["State"] == mine.status, f"{name} is {shown['State']}, expected {mine.status}"
            endpoints = shown["NetworkSettings"]["Networks"]
            assert endpoints.keys() == mine.networks.keys(), f"{name} is on {[*endpoints]}, expected {[*mine.networks]}"
            for network, wish in mine.networks.items():
                address = endpoints[network]["IPAddress"]
                assert bool(address) == mine.running, f"{name} on {network}: {address!r}"
                assert not wish or not address or address.endswith(f".{wish}"), (
                    f"{name} on {network}: {address}, not {wish}"
                )
                assert not address or address not in addresses, f"{address} is there twice"
                addresses |= {address} - {""}
            ports = {port["PublicPort"] for port in shown["Ports"] if "PublicPort" in port}
            assert ports == {port for port, holder in self.model.ports().items() if holder == name}, f"{name}: {ports}"

    def _differences(self) -> list[str]:
        found = self.lab.api("GET", "/netengine/doctor").json
        return [f"{one['State']}: {one['What']}" for one in found["Differences"]] + found["Problems"]

    def _compare_kernel(self) -> None:
        self._compare()
        listed = self.lab.here.run(["nft", "-j", "list", "map", "ip", "netengine", "ports"], check=True).stdout
        elements = [one for entry in json.loads(listed)["nftables"] for one in entry.get("map", {}).get("elem", [])]
        assert {key["concat"][1] for key, _ in elements} == {*self.model.ports()}
        links = self.lab.here.links()
        assert sum(link.startswith("veth") for link in links) == sum(
            len(self.model.users(n)) for n in self.model.networks
        )
        assert sum(link.startswith("br-") for link in links) == len(self.model.networks - {BRIDGE})
        assert self.lab.here.namespaces() == {n for n, b in self.model.boxes.items() if b.running}

    def teardown(self) -> None:
        failure = sys.exc_info()[1]
        try:
            try:
                if failure is None and (self.model.boxes or self.model.networks != {BRIDGE}):
                    # Without waiting: after each fault there was time to heal, and a request leaves nothing to be healed.
                    assert self._differences() == []
                    self._compare_kernel()
            finally:
                self._clear()
        except Exception as error:  # one that takes too long, say
            failure = failure or error
            raise
        finally:
            # Hypothesis ends a machine that has drawn enough by an exception too, which is no Exception.
            if isinstance(failure, Exception) and not self.first_failure:
                type(self).first_failure = "\n".join([*self.history, f"{type(failure).__name__}: {failure}"])

    def _clear(self) -> None:
        paths = [f"/containers/{name}?force=1" for name in NAMES] + [f"/networks/{name}" for name in NETWORKS]
        answers = [(path, self.lab.api("DELETE", path, timeout=60)) for path in paths]
        refused = [
            f"DELETE {path}: {answer.status} {answer.body!r}"
            for path, answer in answers
            if answer.status not in (204, 404)
        ]
        assert not refused, "; ".join(refused)
        assert not re.search(r"10\.5[1-4]\.0", self.lab.here.rules()), "elements are left"


def _wish(network: str, wish: int) -> dict[str, Any]:
    if not wish:
        return {}
    return {"IPAMConfig": {"IPv4Address": NETWORKS[network].replace(".0/24", f".{wish}")}}
