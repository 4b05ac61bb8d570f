"""What the API must do, in a page: networks, sandboxes, addresses, published ports and names as plain dictionaries.

The state machine (state_machine.py) does everything twice, once here and once with the daemon. Only what is simple is modelled:
which status a request gets, who is on which network, which ports are held, which names are found; not how the kernel is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NETWORKS = {"net-a": "10.51.0.0/24", "net-b": "10.52.0.0/24", "inner": "10.53.0.0/24"}
INTERNAL = frozenset({"inner"})
BRIDGE = "bridge"


@dataclass
class Box:
    """A sandbox without a process. `networks` holds the wish for each: the last octet of a fixed address, or 0."""

    networks: dict[str, int]
    port: int
    status: str = "created"

    @property
    def running(self) -> bool:
        return self.status == "running"


@dataclass
class Model:
    networks: set[str] = field(default_factory=lambda: {BRIDGE})
    boxes: dict[str, Box] = field(default_factory=dict)

    # -- questions ----------------------------------------------------------------------------------------------------

    def users(self, network: str) -> list[str]:
        """The boxes with a live endpoint on the network."""
        return [name for name, box in self.boxes.items() if box.running and network in box.networks]

    def published(self, box: Box) -> bool:
        """Whether a box, if it runs, holds its port: it needs a way out."""
        return bool(box.port) and any(network not in INTERNAL for network in box.networks)

    def ports(self) -> dict[int, str]:
        """The ports of the host that are held, and for whom."""
        return {box.port: name for name, box in self.boxes.items() if box.running and self.published(box)}

    def _address_taken(self, network: str, wish: int, but: str) -> bool:
        return wish != 0 and any(
            self.boxes[name].networks[network] == wish for name in self.users(network) if name != but
        )

    def finds(self, who: str, name: str) -> bool:
        """Whether a running box is answered an address for another's name: they share a user-defined network."""
        mine, theirs = self.boxes[who], self.boxes.get(name)
        return theirs is not None and theirs.running and bool({*mine.networks} & {*theirs.networks} - {BRIDGE})

    # -- requests: each answers the status that the daemon must answer ---------------------------------------------------

    def create_network(self, name: str) -> int:
        if name in self.networks:
            return 403 if name == BRIDGE else 409
        self.networks.add(name)
        return 201

    def remove_network(self, name: str) -> int:
        if name == BRIDGE:
            return 403
        if name not in self.networks:
            return 404
        if self.users(name):
            return 403
        self.networks.remove(name)
        for box in self.boxes.values():
            box.networks.pop(name, None)
        return 204

    def create(self, name: str, network: str, wish: int, port: int) -> int:
        if name in self.boxes:
            return 409
        if network not in self.networks:
            return 400
        self.boxes[name] = Box({network: wish}, port)
        return 201

    def start(self, name: str) -> int:
        box = self.boxes.get(name)
        if box is None:
            return 404
        if box.running:
            return 304
        if any(self._address_taken(network, wish, name) for network, wish in box.networks.items()):
            return 403
        if self.published(box) and box.port in self.ports():
            return 500
        box.status = "running"
        return 204

    def stop(self, name: str) -> int:
        box = self.boxes.get(name)
        if box is None:
            return 404
        if not box.running:
            return 304
        box.status = "exited"
        return 204

    def remove(self, name: str, force: bool) -> int:
        box = self.boxes.get(name)
        if box is None:
            return 404
        if box.running and not force:
            return 409
        del self.boxes[name]
        return 204

    def rename(self, name: str, new: str) -> int:
        if name not in self.boxes:
            return 404
        if new in self.boxes:
            return 400 if new == name else 409
        self.boxes[new] = self.boxes.pop(name)
        return 204

    def connect(self, name: str, network: str, wish: int) -> int:
        if network not in self.networks or name not in self.boxes:
            return 404
        box = self.boxes[name]
        if box.running:
            if network in box.networks or self._address_taken(network, wish, name):
                return 403
            gains = not self.published(box) and network not in INTERNAL
            if gains and box.port and box.port in self.ports():
                return 500
        box.networks[network] = wish
        return 200

    def disconnect(self, name: str, network: str) -> int:
        if network not in self.networks or name not in self.boxes:
            return 404
        if network not in self.boxes[name].networks:
            return 403
        del self.boxes[name].networks[network]
        return 200
