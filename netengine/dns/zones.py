"""Networks with their names, and what one sandbox sees of them. Pure: no sockets, no clock.

A network's tables are shared by every sandbox that is on it, and sandboxes with the same networks and links share a view,
so one more name costs the same with 1 and with 300 sandboxes. A view keeps finished answers by the bytes of the question
(`hot`); a change of a network empties the views that look at it and nothing else.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from netengine.dns import wire
from netengine.dns.protocol import Entry, Settings

HOT_TOTAL = 32768  # finished answers kept, over all views
HOT_LEAST = 256  # per view, however many there are
HOT_QUESTION = 512  # bytes; longer packets are not kept, or one sandbox could make us hold 100 MB of padding
ROTATIONS = 8  # different orders of a name's addresses that are kept ready

Answer = bytes | deque[bytes]  # an answer without its first two bytes (the id); or several, taken in turn


class Records(NamedTuple):
    """What one endpoint contributes: its address records, the keys under which they are found, and SRV records by service."""

    v4: tuple[bytes, ...]
    v6: tuple[bytes, ...]
    keys: tuple[bytes, ...]
    reverse: tuple[bytes, ...]
    services: dict[bytes, bytes]


class Holders:
    """The endpoints that share one name on one network, in the order in which they came."""

    __slots__ = ("members", "turn")

    def __init__(self) -> None:
        self.members: tuple[tuple[str, Records], ...] = ()
        self.turn = 0

    def put(self, endpoint: str, records: Records) -> None:
        self.members = (*(m for m in self.members if m[0] != endpoint), (endpoint, records))

    def drop(self, endpoint: str) -> None:
        self.members = tuple(m for m in self.members if m[0] != endpoint)

    def records(self, qtype: int) -> list[bytes]:
        """The address records of a type, each once; of both families for ANY."""
        found: dict[bytes, None] = {}
        for _, records in self.members:
            if qtype in (wire.A, wire.ANY):
                found.update(dict.fromkeys(records.v4))
            if qtype in (wire.AAAA, wire.ANY):
                found.update(dict.fromkeys(records.v6))
        return list(found)

    def of_service(self, service: bytes) -> list[bytes]:
        """The SRV records of a service, `_http._tcp` in wire form without its end."""
        return [record for _, r in self.members if (record := r.services.get(service)) is not None]


class Network:
    """One network's names: `name`, `name.network` and the addresses back to names."""

    def __init__(self, ident: str, name: str) -> None:
        self.ident = ident
        self.name = name
        self.suffix = wire.encode_name(name) if name else None
        self.entries: dict[str, Entry] = {}
        self.records: dict[str, Records] = {}
        self.names: dict[bytes, Holders] = {}
        self.qualified: dict[bytes, Holders] = {}
        self.reverse: dict[bytes, tuple[str, bytes]] = {}
        self.views: weakref.WeakSet[View] = weakref.WeakSet()

    def put(self, endpoint: str, entry: Entry) -> bool:
        """Add or replace an endpoint's names. False if it is there already, the same. ValueError for a bad address."""
        if self.entries.get(endpoint) == entry:
            return False
        encoded = [n for n in map(wire.encode_name, entry.names) if n is not None]
        keys = tuple(dict.fromkeys(name.lower() for name in encoded))
        target = self._qualify(encoded[0]) if encoded else None
        records = Records(
            tuple(map(wire.address_record, entry.ipv4)),
            tuple(map(wire.address_record, entry.ipv6)),
            keys,
            tuple(wire.reverse_name(address) for address in (*entry.ipv4, *entry.ipv6)),
            _services(entry, target) if target is not None else {},
        )
        old = self.records.get(endpoint)
        if old is not None and old.keys != keys:
            self.delete(endpoint)
        self.entries[endpoint] = entry
        self.records[endpoint] = records
        for key in keys:
            self._holders(key).put(endpoint, records)
        for key in old.reverse if old else ():
            self._forget_address(endpoint, key)
        if target is not None:
            for key in records.reverse:
                self.reverse[key] = (endpoint, wire.pointer_record(target))
        return True

    def delete(self, endpoint: str) -> bool:
        """Take an endpoint's names away. False if there are none."""
        if self.entries.pop(endpoint, None) is None:
            return False
        records = self.records.pop(endpoint)
        for key in records.keys:
            holders = self.names[key]
            holders.drop(endpoint)
            if not holders.members:
                del self.names[key]
                qualified = self._qualify(key)
                if qualified is not None:
                    self.qualified.pop(qualified.lower(), None)
        for key in records.reverse:
            self._forget_address(endpoint, key)
        return True

    def _holders(self, key: bytes) -> Holders:
        holders = self.names.get(key)
        if holders is None:
            holders = self.names[key] = Holders()
            qualified = self._qualify(key)
            if qualified is not None:
                self.qualified[qualified.lower()] = holders
        return holders

    def _qualify(self, name: bytes) -> bytes | None:
        """`name.network` in wire form, or None where DNS cannot carry it."""
        if self.suffix is None or len(name) - 1 + len(self.suffix) > 255:
            return None
        return name[:-1] + self.suffix

    def _forget_address(self, endpoint: str, key: bytes) -> None:
        holder = self.reverse.get(key)
        if holder is not None and holder[0] == endpoint:
            del self.reverse[key]

    def changed(self) -> None:
        """Let no view answer from before a change."""
        for view in self.views:
            view.hot.clear()


def _services(entry: Entry, target: bytes) -> dict[bytes, bytes]:
    """SRV records by service in wire form, without the zero at its end."""
    encoded = ((wire.encode_name(service), port) for service, port in entry.services.items())
    return {name[:-1].lower(): wire.service_record(port, target) for name, port in encoded if name is not None}


class Found(NamedTuple):
    """A known name: its records of the asked type (maybe none), and where it was found, for `explain`."""

    records: list[bytes]
    holders: Holders | None
    network: Network
    how: str


class View:
    """What sandboxes with these networks and links see. Build through `Zones.view`, which shares equal ones."""

    def __init__(self, networks: Sequence[Network], links: Iterable[tuple[str, str]]) -> None:
        self.networks = tuple(networks)
        self.links: dict[bytes, tuple[str, bytes]] = {}
        self.hot: dict[bytes, Answer] = {}
        self.hot_limit = HOT_LEAST
        for alias, target in links:
            key, to = wire.encode_name(alias), wire.encode_name(target)
            if key is not None and to is not None:
                self.links[key.lower()] = (target, to.lower())
        for network in self.networks:
            network.views.add(self)

    def find(self, name: bytes, qtype: int) -> Found | None:
        """A name in wire form, lower case: link, then name, then name.network; None if nobody here has it.

        Of several networks the sandbox's first that has an address of the family answers, as Docker's does.
        """
        if qtype == wire.PTR:
            for network in self.networks:
                back = network.reverse.get(name)
                if back is not None:
                    return Found([back[1]], None, network, f"address of endpoint {back[0]}")
        if qtype == wire.SRV and (split := wire.split_service(name)) is not None:
            found = self.find(split[1], wire.ANY)
            if found is not None and found.holders is not None:
                service = f"service of {wire.decode_name(split[1])}, {found.how}"
                return Found(found.holders.of_service(split[0]), found.holders, found.network, service)
        link = self._link(name)
        if link is not None:
            found = self._first(link[1], qtype, link[2], f"link to {link[0]}", "names")
            if found is not None:
                return found
        return self._first(name, qtype, self.networks, "name", "names") or self._first(
            name, qtype, self.networks, "name.network", "qualified"
        )

    def _link(self, name: bytes) -> tuple[str, bytes, tuple[Network, ...]] | None:
        """(target, its key, the networks to look in) of a link's alias, given as `alias` or `alias.network`."""
        if not self.links:
            return None
        direct = self.links.get(name)
        if direct is not None:
            return (*direct, self.networks)
        for network in self.networks:
            suffix = network.suffix.lower() if network.suffix else None
            if suffix is not None and name.endswith(suffix):
                qualified = self.links.get(name[: -len(suffix)] + b"\x00")
                if qualified is not None:
                    return (*qualified, (network,))
        return None

    @staticmethod
    def _first(name: bytes, qtype: int, networks: Iterable[Network], how: str, table: str) -> Found | None:
        empty: Found | None = None
        for network in networks:
            holders: Holders | None = (network.names if table == "names" else network.qualified).get(name)
            if holders is not None:
                records = holders.records(qtype)
                if records:
                    return Found(records, holders, network, how)
                empty = empty or Found(records, holders, network, how)
        return empty

    def answer(self, query: wire.Query, limit: int) -> bytes | None:
        """The answer of a known name, its addresses in turn; None for a name that nobody here has."""
        found = self.find(query.name, query.qtype)
        if found is None:
            return None
        records = found.records
        if len(records) > 1 and found.holders is not None:
            found.holders.turn += 1
            cut = found.holders.turn % len(records)
            records = records[cut:] + records[:cut]
        return wire.reply(query, wire.NOERROR, records, limit)

    def remember(self, packet: bytes, query: wire.Query) -> bytes | None:
        """As `answer`, and kept for the next packet that is the same but for its id."""
        found = self.find(query.name, query.qtype)
        if found is None:
            return None
        records, limit = found.records, query.limit
        first = wire.reply(query, wire.NOERROR, records, limit)
        if len(packet) > HOT_QUESTION:
            return first
        if len(self.hot) >= self.hot_limit:
            self.hot.clear()
        if len(records) < 2:
            self.hot[packet[2:]] = first[2:]
            return first
        step = max(1, len(records) // ROTATIONS)
        turns = [records[cut:] + records[:cut] for cut in range(0, len(records), step)]
        orders = deque(wire.reply(query, wire.NOERROR, turn, limit)[2:] for turn in turns[: ROTATIONS * 2])
        self.hot[packet[2:]] = orders
        return query.ident + orders[0]


class Zones:
    """All networks, and the views on them."""

    def __init__(self) -> None:
        self.networks: dict[str, Network] = {}
        self._views: weakref.WeakValueDictionary[tuple[object, ...], View] = weakref.WeakValueDictionary()

    def view(self, settings: Settings) -> View:
        """The view that goes with a sandbox's settings; the caller keeps it alive. Networks not known yet are left out."""
        networks = [self.networks[n] for n in settings.networks if n in self.networks]
        links = tuple(sorted(settings.links.items()))
        key = (*(id(network) for network in networks), links)
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = View(networks, links)
            share = max(HOT_LEAST, HOT_TOTAL // len(self._views))
            for one in self._views.values():
                one.hot_limit = share
        return view

    def put(self, ident: str, name: str | None, entries: Mapping[str, Entry], delete: Iterable[str]) -> bool:
        """Change a network, making it if it is new. True if views must be looked up anew (a new or renamed network)."""
        network = self.networks.get(ident)
        fresh = network is None or (name is not None and name != network.name)
        if network is None:
            network = self.networks[ident] = Network(ident, name or "")
        elif fresh:
            renamed = Network(ident, name or "")
            for endpoint, entry in network.entries.items():
                renamed.put(endpoint, entry)
            network.changed()
            network = self.networks[ident] = renamed
        changed = [network.delete(endpoint) for endpoint in delete]
        changed += [network.put(endpoint, entry) for endpoint, entry in entries.items()]
        if any(changed):
            network.changed()
        return fresh

    def remove(self, ident: str) -> bool:
        """Forget a network. True if there was one: then views must be looked up anew."""
        network = self.networks.pop(ident, None)
        if network is None:
            return False
        network.changed()
        return True
