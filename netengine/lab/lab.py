"""What can be done with a lab: up, down, status, partition, heal."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import islice
from pathlib import Path

from netengine.errors import Conflict, Invalid, NetengineError
from netengine.lab import cluster, hosts, switch
from netengine.lab.record import DIRECTORY, Node, Record, load, locked, opened

MOST = 32
SUBNET = "192.168.99.0/24"
SUBNET6 = "fd00:99::/64"
"""A unique local network (RFC 4193)."""


@dataclass(frozen=True)
class HostStatus:
    """`serves`: its daemon answers. `cut_from`: hosts that it does not reach, by partition."""

    name: str
    address: str
    pid: int
    alive: bool
    serves: bool
    socket: Path
    cut_from: tuple[str, ...]


def up(count: int, subnet: str = SUBNET, directory: Path = DIRECTORY, managers: int = 0) -> Record:
    """A lab of `count` hosts, h1 and on, each with a daemon that answers. All or nothing.

    With `managers` the hosts are one cluster, the first so many of them its managers.
    """
    network = _subnet(subnet, count)
    if not 0 <= managers <= count:
        raise Invalid(f"a cluster of {count} hosts has 1 to {count} managers, not {managers}")
    hosts.check_programs()
    with locked(directory):
        if load(directory) is not None:
            raise Conflict("a lab is up already: see netengine lab status, or end it with netengine lab down")
        record = Record(directory, str(network), Node("switch", 0, 0))
        try:
            _build(record, count, network)
            if managers:
                cluster.form(record, managers)
        except BaseException:
            _clear(record)
            raise
    return record


def _build(record: Record, count: int, network: IPv4Network | IPv6Network) -> None:
    record.switch = hosts.start("switch", record.directory)
    record.save()
    switch.make(record.switch)
    for number, address in enumerate(islice(network.hosts(), count), start=1):
        node = replace(hosts.start(f"h{number}", record.directory), address=str(address))
        name = node.name
        record.hosts[name] = node
        record.save()
        switch.plug(record.switch, node, network)
    daemons = {name: hosts.start_daemon(record, name) for name in record.hosts}
    with ThreadPoolExecutor(len(daemons)) as pool:
        for waiting in [pool.submit(hosts.await_daemon, record, name, daemon) for name, daemon in daemons.items()]:
            waiting.result()


def _subnet(text: str, count: int) -> IPv4Network | IPv6Network:
    if not 1 <= count <= MOST:
        raise Invalid(f"a lab has 1 to {MOST} hosts, not {count}")
    try:
        network = ip_network(text)
    except ValueError as e:
        raise Invalid(f"invalid subnet {text!r}: {e}; give it in CIDR, such as {SUBNET} or {SUBNET6}") from None
    if network.is_multicast or network.is_link_local or network.is_loopback:
        raise Invalid(f"invalid subnet {network}: hosts cannot have its addresses as their own on the switch")
    if network.num_addresses - 2 < count:
        raise Invalid(f"subnet {network} has no room for {count} hosts")
    return network


def down(directory: Path = DIRECTORY) -> list[str]:
    """End the lab and all that runs in it; the names of its hosts. What an interrupted `up` has left is ended too."""
    with locked(directory):
        record = load(directory)
        if record is not None:
            _clear(record)
        elif not any(directory.iterdir()):
            directory.rmdir()
    return list(record.hosts) if record else []


def _clear(record: Record) -> None:
    problems = []
    for node in (*record.hosts.values(), record.switch):
        try:
            hosts.end(node)
        except NetengineError as e:
            problems.append(e.message)
    if problems:
        raise Conflict("; ".join(problems))
    shutil.rmtree(record.directory, ignore_errors=True)


def status(directory: Path = DIRECTORY) -> list[HostStatus]:
    with opened(directory) as record:
        return [_status(record, node) for node in record.hosts.values()]


def _status(record: Record, node: Node) -> HostStatus:
    cut_from = tuple(b if a == node.name else a for a, b in record.cuts if node.name in (a, b))
    path = record.socket(node.name)
    return HostStatus(node.name, node.address, node.pid, node.is_alive, hosts.answers(path), path, cut_from)


def partition(a: str, b: str, directory: Path = DIRECTORY) -> None:
    """Cut two hosts off from each other."""
    with opened(directory) as record:
        pair = _pair(record, a, b)
        if pair in record.cuts:
            raise Conflict(f"{a} and {b} are cut off from each other already: netengine lab heal {a} {b}")
        switch.cut(record.switch, *pair)
        record.cuts.append(pair)
        record.save()


def heal(a: str = "", b: str = "", directory: Path = DIRECTORY) -> list[tuple[str, str]]:
    """Join two hosts again, or with no names all; the pairs that were joined."""
    with opened(directory) as record:
        pairs = [_pair(record, a, b)] if a else list(record.cuts)
        for pair in pairs:
            if pair not in record.cuts:
                raise Conflict(f"{a} and {b} are not cut off from each other")
            switch.mend(record.switch, *pair)
            record.cuts.remove(pair)
            record.save()
        return pairs


def _pair(record: Record, a: str, b: str) -> tuple[str, str]:
    if a == b:
        raise Invalid(f"{a} cannot be cut off from itself: name two hosts")
    for name in (a, b):
        record.host(name)
    return (a, b) if a < b else (b, a)
