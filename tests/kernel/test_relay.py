"""IPv6 ports of the host that the rules cannot translate: ::1, link-local clients, containers without IPv6. And who is in the
way of whom: a client that takes all it can get, a daemon that goes away, a relay that is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from netengine.kernel.host import Kernel
from netengine.kernel.resources import HostPort, Relay, Resource
from netengine.relay import protocol, streams
from tests.hosts import Namespace, wait_until
from tests.kernel.machine import RUN_DIR, Lan, Machine, link_local, port
from tests.kernel.packets import tcp, udp

Talk = Callable[..., str]
both = pytest.mark.parametrize(("protocol", "talk"), [("tcp", tcp), ("udp", udp)], ids=["tcp", "udp"])
SERVER = 80


def relays(machine: Machine) -> list[int]:
    """The relay's processes in the machine."""
    here = os.stat(f"/proc/self/task/{machine.tid}/ns/net").st_ino
    out = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            is_relay = entry.name.isdigit() and b"netengine.relay" in (entry / "cmdline").read_bytes()
            if is_relay and (entry / "ns/net").stat().st_ino == here:
                out.append(int(entry.name))
    return out


def publish(machine: Machine, *host_ips: str, protocol: str = "tcp", host_port: int = 8080, **lan: str) -> Namespace:
    ports = [port(host_port, SERVER, ip, protocol) for ip in host_ips]
    return Lan(machine, **lan).build().sandbox("web", 2, *ports)


@both
def test_to_a_container_without_ipv6(machine: Machine, outside: Machine, protocol: str, talk: Talk) -> None:
    web = publish(machine, "0.0.0.0", "::", protocol=protocol)
    assert talk(machine, "::1", 8080, web, SERVER, "0.0.0.0") == "10.1.0.1"
    assert talk(outside, "2001:db8::1", 8080, web, SERVER, "0.0.0.0") == "10.1.0.1", "the relay's own address"
    assert talk(outside, "192.0.2.1", 8080, web, SERVER) == "192.0.2.2"


@both
def test_to_a_container_with_ipv6(machine: Machine, outside: Machine, protocol: str, talk: Talk) -> None:
    web = publish(machine, "::", protocol=protocol, subnet6="fd00:1::/64")
    assert talk(outside, "2001:db8::1", 8080, web, SERVER) == "2001:db8::2", "by the rules: the client's own address"
    assert talk(machine, "2001:db8::1", 8080, web, SERVER)
    assert talk(machine, "::1", 8080, web, SERVER) == "fd00:1::1", "by the relay"


def test_from_a_link_local_address(machine: Machine, outside: Machine) -> None:
    """A packet from one is never forwarded."""
    web = publish(machine, "::", subnet6="fd00:1::/64")
    scope = outside.inside(lambda: socket.if_nametoindex("up0"))
    with web.listen(SERVER, "::") as server, outside.socket(family=socket.AF_INET6) as here:
        here.connect((link_local(machine), 8080, 0, scope))
        there, (seen, *_) = server.accept()
        there.close()
    assert seen == "fd00:1::1"


def test_datagrams_are_answered_from_the_address_that_was_asked(machine: Machine, outside: Machine) -> None:
    machine.run("ip", "address", "add", "2001:db8::77/64", "dev", "up0", "nodad")
    machine.keep_this()
    web = publish(machine, "::", protocol="udp")
    for address in ("2001:db8::1", "2001:db8::77", "::1"):
        client = machine if address == "::1" else outside
        udp(client, address, 8080, web, SERVER, "0.0.0.0")  # a connected socket: an answer from elsewhere is not heard


def test_a_port_on_one_address(machine: Machine, outside: Machine) -> None:
    web = publish(machine, "::1")
    tcp(machine, "::1", 8080, web, SERVER, "0.0.0.0")
    assert not outside.reaches("2001:db8::1", 8080, 0.3)


def test_each_direction_ends_by_itself(machine: Machine) -> None:
    """Half-close: the request ends, the answer comes after that."""
    web = publish(machine, "::")
    with web.listen(SERVER) as server, machine.connect("::1", 8080) as here:
        here.sendall(b"the whole request")
        here.shutdown(socket.SHUT_WR)
        there, _ = server.accept()
        there.settimeout(5)
        assert there.recv(64) == b"the whole request" and there.recv(64) == b""
        there.sendall(b"the whole answer")
        there.close()
        here.settimeout(5)
        assert here.recv(64) == b"the whole answer" and here.recv(64) == b""


def test_a_connection_that_the_container_refuses_is_reset(machine: Machine) -> None:
    publish(machine, "::")
    with pytest.raises(ConnectionResetError), machine.connect("::1", 8080, 5) as here:
        here.recv(1)


def test_much_goes_through_and_arrives_whole_though_the_reader_is_slow(machine: Machine) -> None:
    web = publish(machine, "::")
    sent = os.urandom(1 << 20) * 8
    with web.listen(SERVER) as server, machine.connect("::1", 8080) as here:
        there, _ = server.accept()
        there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(sent))
        here.settimeout(20)
        sender = machine._thread.submit(there.sendall, sent)
        got = b"".join(_take(here, len(sent)))
        sender.result(20)
        there.close()
    assert got == sent


def _take(sock: socket.socket, count: int) -> Iterator[bytes]:
    while count:
        data = sock.recv(min(count, 1 << 16))
        assert data
        count -= len(data)
        yield data


def test_one_that_takes_all_it_can_get_is_stopped_and_others_are_served(machine: Machine) -> None:
    """Its connections wait in the queue of that one port; no other port, and not the daemon, is the poorer for them."""
    lan = Lan(machine).build()
    web = lan.sandbox("web", 2, port(8080, 80, "::"), port(8081, 81, "::"))
    crowd: list[socket.socket] = []
    with web.listen(80) as greedy, contextlib.ExitStack() as stack:
        greedy.listen(4096)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(streams.PER_DOOR + 40):
            sock = stack.enter_context(machine.socket(family=socket.AF_INET6))
            sock.setblocking(False)
            sock.connect_ex(("::1", 8080))
            crowd.append(sock)
        (pid,) = relays(machine)
        wait_until(lambda: _carried(machine) == streams.PER_DOOR, lambda: f"the door full: {_carried(machine)}", 20)
        assert len(os.listdir("/proc/self/fd")) - before <= len(crowd) + 8, "none of them is the daemon's"
        tcp(machine, "::1", 8081, web, 81, "0.0.0.0")
        assert _carried(machine) == streams.PER_DOOR
        greedy.setblocking(False)
        served: list[socket.socket] = []
        wait_until(lambda: _accept(greedy, served) == streams.PER_DOOR, "those who were let in", 20)
        for sock in crowd + served[:20]:
            sock.close() if sock in served else sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: _accept(greedy, served) > streams.PER_DOOR, "those who waited served", 20)
        for sock in served:
            sock.close()
        assert relays(machine) == [pid]


def _carried(machine: Machine) -> int:
    """Connections in the relay, as it says itself."""
    with machine.on_kernel(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as sock:
        sock.settimeout(5)
        machine.on_kernel(lambda: sock.connect(str(RUN_DIR.parent / "relay.sock")))
        sock.send(msgspec.json.encode(protocol.List()))
        while True:
            answer = msgspec.json.decode(sock.recv(protocol.LARGEST), type=protocol.Answer)
            if isinstance(answer, protocol.Done):
                return answer.connections


def _accept(server: socket.socket, accepted: list[socket.socket]) -> int:
    with contextlib.suppress(BlockingIOError):
        while True:
            accepted.append(server.accept()[0])
    return len(accepted)


def test_there_is_one_process_for_all_ports_and_none_without(machine: Machine) -> None:
    assert relays(machine) == []
    lan = Lan(machine).build()
    lan.sandbox("web", 2, *(port(8000 + n, 80 + n, "::") for n in range(20))).close()
    assert len(relays(machine)) == 1
    machine.undo_everything()
    wait_until(lambda: not relays(machine), "the end of the relay")


def test_hundreds_of_ports_at_once(machine: Machine) -> None:
    lan = Lan(machine).build()
    web = lan.sandbox("web", 2, *(port(8000 + n, 1000 + n, "::") for n in range(600)))
    tcp(machine, "::1", 8599, web, 1599, "0.0.0.0")


def test_it_has_no_privileges(machine: Machine) -> None:
    publish(machine, "::")
    (pid,) = relays(machine)

    def status() -> dict[str, str]:
        return dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":\t" in line)

    wait_until(lambda: status()["Uid"].split()[0] == "65534", "root given up", 10)
    assert set(status()["CapEff"]) == set(status()["CapBnd"]) == {"0"} and status()["NoNewPrivs"] == "1"


def test_the_port_is_free_when_it_is_taken_back(machine: Machine) -> None:
    lan = Lan(machine).build()
    lan.sandbox("web", 2, port(8080, 80, "::")).close()
    with machine.socket(family=socket.AF_INET6) as rival, pytest.raises(OSError, match="in use"):
        rival.bind(("::", 8080))
    machine.take(lan.plug("web", 2, port(8080, 80, "::")) - lan.plug("web", 2))
    with machine.socket(family=socket.AF_INET6) as next_one:
        next_one.bind(("::", 8080))


def test_both_families_are_held_and_apart(machine: Machine) -> None:
    machine.build({HostPort("::", "tcp", 8080)})
    with machine.socket() as four:
        four.bind(("0.0.0.0", 8080))
    machine.build({HostPort("0.0.0.0", "tcp", 8080)})


def test_what_flows_outlives_the_daemon_and_the_next_one_has_the_port(machine: Machine) -> None:
    web = publish(machine, "::")
    (pid,) = relays(machine)
    with web.listen(SERVER) as server, machine.connect("::1", 8080) as here:
        there, _ = server.accept()
        _restart(machine)
        here.sendall(b"still here")
        there.settimeout(5)
        assert there.recv(64) == b"still here"
        there.close()
    machine.must_be_as_built()
    assert relays(machine) == [pid]
    tcp(machine, "::1", 8080, web, SERVER, "0.0.0.0")
    machine.take({r for r in machine.built if isinstance(r, Relay | HostPort)})
    with machine.socket(family=socket.AF_INET6) as next_one:
        next_one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what flowed is in TIME_WAIT
        next_one.bind(("::", 8080))


def _restart(machine: Machine) -> None:
    """A new kernel layer, as that of a new daemon: it knows what should be, and holds the ports."""
    machine.on_kernel(machine.kernel.close)
    machine.kernel = Kernel(machine.kernel.run_dir, machine.kernel.alias_dir)
    machine.on_kernel(machine.kernel.open)
    for r in machine.built:
        if isinstance(r, HostPort):
            machine.on_kernel(machine.kernel.reserve, r.address, r.protocol, r.port)


def test_doors_that_nobody_wants_any_more_are_shut(machine: Machine) -> None:
    """The container ended while no daemon was there."""
    publish(machine, "::")
    machine.built = frozenset(r for r in machine.built if not isinstance(r, Relay | HostPort))
    _restart(machine)
    machine.heal()
    with machine.socket(family=socket.AF_INET6) as next_one:
        next_one.bind(("::", 8080))


def test_a_door_is_not_lost_on_a_process_that_is_about_to_end_for_having_none(machine: Machine) -> None:
    """It ends a tenth of a second after its last door was shut; what it is sent meanwhile it may never read."""
    web = publish(machine, "::")
    tcp(machine, "::1", 8080, web, SERVER, "0.0.0.0")
    doors = {r for r in machine.built if isinstance(r, Relay | HostPort)}
    (pid,) = relays(machine)
    machine.take(doors)
    os.kill(pid, signal.SIGSTOP)
    end = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
    end.start()
    machine.build(doors)
    machine.must_be_as_built()
    end.join()
    tcp(machine, "::1", 8080, web, SERVER, "0.0.0.0")


def test_that_it_was_killed_is_told_also_when_a_question_finds_it_out(machine: Machine) -> None:
    publish(machine, "::")
    assert machine.on_kernel(machine.kernel.relays.doors) and not machine.kernel.relays.has_ended()
    (pid,) = relays(machine)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not machine.on_kernel(machine.kernel.relays.doors), "the doors gone")
    assert machine.kernel.relays.has_ended(), "so that healing opens them again"
    assert not machine.kernel.relays.has_ended()
    machine.heal()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_relay_that_was_killed_or_hangs_is_replaced(
    machine: Machine, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netengine.kernel.relays._ANSWER_SECONDS", 0.5)
    web = publish(machine, "::")
    tcp(machine, "::1", 8080, web, SERVER, "0.0.0.0")
    (pid,) = relays(machine)
    _restart(machine)
    os.kill(pid, number)
    if number == signal.SIGKILL:
        wait_until(machine.kernel.relays.has_ended, "the end of the connection")
    machine.heal()
    tcp(machine, "::1", 8080, web, SERVER, "0.0.0.0")
    (new,) = relays(machine)
    assert new != pid


@pytest.mark.parametrize("version", [1, protocol.VERSION])
def test_hundreds_of_doors(machine: Machine, version: int) -> None:
    """More than one message holds, also to a process that an earlier version of netengine left."""
    wanted: set[Resource] = set()
    for number in range(20000, 20300):
        wanted |= {HostPort("::1", "tcp", number), Relay("::1", "tcp", number, "127.0.0.1", 9)}
    first = {r for r in wanted if r.key[-1] == "20000"}
    machine.build(first)
    machine.on_kernel(setattr, machine.kernel.relays, "_version", version)
    machine.build(wanted)
    doors = {r for r in wanted if isinstance(r, Relay)}
    assert machine.on_kernel(machine.kernel.relays.doors) == doors
    machine.take(wanted)
    wait_until(lambda: not relays(machine), "the relay has ended")
