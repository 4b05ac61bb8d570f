"""A name server process answers on loopback: known names itself, others from a real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import os
import socket
import sys
import threading
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode

from netengine.dns.client import Entry, NameServer, NetworkChange, Settings

_spec = importlib.util.spec_from_file_location("dns_boxes", Path(__file__).with_name("boxes.py"))
assert _spec is not None and _spec.loader is not None
boxes = importlib.util.module_from_spec(_spec)
sys.modules["dns_boxes"] = boxes
_spec.loader.exec_module(boxes)

APP = NetworkChange("app", {"e1": Entry(("web",), ("172.18.0.2",)), "e2": Entry(("db",), ("172.18.0.3", "172.18.0.4"))})


class Upstream:
    """A server that answers every question NXDOMAIN (or with `code`), over UDP and TCP on one port. What is no question of one
    who waits for the answer stops nothing: the port may have been somebody else's a moment ago."""

    def __init__(self, code: int = dns.rcode.NXDOMAIN) -> None:
        self.tcp, self.udp = _pair()
        self.port = self.tcp.getsockname()[1]
        self.code = code
        for serve in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    def _reply(self, packet: bytes) -> bytes:
        response = dns.message.make_response(dns.message.from_wire(packet))
        response.set_rcode(self.code)
        return response.to_wire()

    def _serve_udp(self) -> None:
        while True:
            packet, sender = self.udp.recvfrom(4096)
            with contextlib.suppress(OSError, dns.exception.DNSException):
                self.udp.sendto(self._reply(packet), sender)

    def _serve_tcp(self) -> None:
        while True:
            sock, _ = self.tcp.accept()
            sock.settimeout(10)
            with sock, sock.makefile("rb") as stream, contextlib.suppress(OSError, dns.exception.DNSException):
                reply = self._reply(stream.read(int.from_bytes(stream.read(2), "big")))
                sock.sendall(len(reply).to_bytes(2, "big") + reply)


def _pair() -> tuple[socket.socket, socket.socket]:
    """A TCP and a UDP socket on one port. The kernel draws it for the first; somebody may have the other."""
    while True:
        tcp, udp = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError as error:
            tcp.close()
            udp.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return tcp, udp


async def ask(box, name: str, qtype: str = "A", tcp: bool = False) -> dns.message.Message:
    query = dns.message.make_query(name, qtype)
    send = dns.query.tcp if tcp else dns.query.udp
    return await asyncio.to_thread(send, query, "127.0.0.1", timeout=6, port=box.tcp if tcp else box.udp)


async def forwarded(box, name: str, tcp: bool) -> int:
    """The response code of a name that others are asked for. A server that gets no processor for the four seconds that it has
    makes SERVFAIL, rightly, and the question is asked again, until the story's time is up."""
    while True:
        try:
            code = (await ask(box, name, tcp=tcp)).rcode()
        except dns.exception.Timeout:
            continue
        if code != dns.rcode.SERVFAIL:
            return code


async def prepared(server: NameServer, settings: Settings, own: int = 0, hosts: tuple[str, ...] = ("127.0.0.1",)):
    box = await boxes.add_box(server, "sb", own)
    await server.update({"n": APP}, {"sb": settings}, hosts)
    return box


def told(folder: Path, story, code: int = dns.rcode.NXDOMAIN) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60), boxes.running(folder, Upstream(code).port) as server:
            await story(server)

    asyncio.run(whole())


def test_names_are_answered_over_udp_and_tcp_and_addresses_take_turns(tmp_path: Path) -> None:
    async def story(server: NameServer) -> None:
        box = await prepared(server, Settings(("n",)))
        for tcp in (False, True):
            assert "172.18.0.2" in (await ask(box, "WeB.app", tcp=tcp)).answer[0].to_text()
            assert not (await ask(box, "web", "AAAA", tcp=tcp)).answer
            assert "web.app." in (await ask(box, "2.0.18.172.in-addr.arpa", "PTR", tcp=tcp)).answer[0].to_text()
        firsts = {str(next(iter((await ask(box, "db")).answer[0]))) for _ in range(4)}
        assert firsts == {"172.18.0.3", "172.18.0.4"}
        await server.update({"n": NetworkChange(delete=("e1",), put={"e3": Entry(("web",), ("172.18.0.9",))})})
        assert "172.18.0.9" in (await ask(box, "web")).answer[0].to_text()

    told(tmp_path, story)


def test_unknown_names_are_asked_from_the_hosts_servers_over_the_askers_transport(tmp_path: Path) -> None:
    async def story(server: NameServer) -> None:
        box = await prepared(server, Settings(("n",)), hosts=("127.0.0.11", "127.0.0.1"))
        for tcp in (False, True):
            assert await forwarded(box, "example.com", tcp=tcp) == dns.rcode.NXDOMAIN
        while (told := await server.explain("sb", "example.com")).rcode == "SERVFAIL":
            pass
        assert told.rcode == "NXDOMAIN" and "127.0.0.1, asked from the host" in told.lines[-1]
        assert (await server.explain("sb", "web")).records == ("web. 600 IN A 172.18.0.2",)

    told(tmp_path, story)


def test_own_servers_are_asked_from_own_sockets(tmp_path: Path) -> None:
    async def story(server: NameServer) -> None:
        box = await prepared(server, Settings(("n",), servers=("127.0.0.1",), internal=True), own=2, hosts=())
        assert (await ask(box, "example.com")).rcode() == dns.rcode.NXDOMAIN
        assert "asked from the sandbox" in (await server.explain("sb", "example.com")).lines[-1]

    told(tmp_path, story)


def test_a_sandbox_on_internal_networks_never_reaches_the_hosts_servers(tmp_path: Path) -> None:
    async def story(server: NameServer) -> None:
        box = await prepared(server, Settings(("n",), internal=True))
        assert (await ask(box, "example.com")).rcode() == dns.rcode.SERVFAIL

    told(tmp_path, story)


def test_a_server_that_refuses_makes_servfail(tmp_path: Path) -> None:
    async def story(server: NameServer) -> None:
        box = await prepared(server, Settings(("n",)))
        assert (await ask(box, "example.com")).rcode() == dns.rcode.SERVFAIL

    told(tmp_path, story, dns.rcode.REFUSED)


def test_garbage_stops_nothing(tmp_path: Path) -> None:
    async def story(server: NameServer) -> None:
        box = await prepared(server, Settings(("n",)))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            header = b"\x00\x01\x01\x00\x00\x01" + bytes(6)
            for junk in (
                b"",
                b"\x00",
                header + b"\xc0\x0c",
                header + b"\x3fx" * 30000,
                os.urandom(5000),
                b"\xff" * 512,
            ):
                sock.sendto(junk, ("127.0.0.1", box.udp))
        assert (await ask(box, "web")).rcode() == dns.rcode.NOERROR

    told(tmp_path, story)
