"""The control port: who is let in and who is not, over real TLS on a host of the test; and what a stranger cannot do to it."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from netengine.cluster import certificates, control, doors, joining, tls
from netengine.cluster.control import Caller, Control
from netengine.cluster.identity import Files
from netengine.cluster.managers import Managers
from netengine.cluster.protocol import RenewRequest
from netengine.cluster.tokens import Token
from netengine.errors import Conflict, Forbidden, Invalid, NetengineError, NotFound, Unavailable
from tests.cluster.nodes import CLUSTER, Registry, node_files
from tests.hosts import Host
from tests.patience import patient

ROOT = certificates.create_authority(CLUSTER)


class Service:
    """A manager's control service, with calls that answer who has called."""

    def __init__(self, directory: Path, authority: certificates.Authority = ROOT) -> None:
        self.directory = directory
        self.registry = Registry(authority)
        self.registry.roles["m1"] = "manager"
        self.files = node_files(directory, authority, "m1", "manager")
        self.control = Control(self.files, CLUSTER, self.registry)
        self.control.calls["who"] = self._who
        self.control.calls["conflict"] = self._conflict
        self.control.calls["broken"] = self._broken
        self.control.manager_calls["rule"] = self._who

    async def _who(self, caller: Caller, payload: Any) -> Any:
        return {"node": caller.node, "role": caller.role, "address": caller.address, "said": payload}

    async def _conflict(self, caller: Caller, payload: Any) -> Any:
        raise Conflict("taken: choose another")

    async def _broken(self, caller: Caller, payload: Any) -> Any:
        raise RuntimeError("a bug")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.control.port}"

    def node(self, name: str, role: str = "worker", **how: Any) -> Managers:
        self.registry.roles.setdefault(name, role)
        return Managers(node_files(self.directory, self.registry.authority, name, role, **how), [self.address])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    host = Host("control", tmp_path_factory.mktemp("control"))
    yield host
    host.close()


Body = Callable[[Service], Awaitable[None]]


@pytest.fixture
def run(place: Host, tmp_path: Path) -> Callable[[Body], None]:
    """Run a story beside a service, on a thread in the host."""

    def runs(story: Body) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(patient(40)), serving(tmp_path) as service:
                await story(service)

        place.inside(lambda: asyncio.run(bounded()))

    return runs


@asynccontextmanager
async def serving(directory: Path, authority: certificates.Authority = ROOT) -> AsyncIterator[Service]:
    service = Service(directory, authority)
    await service.control.start("127.0.0.1", 0)
    try:
        yield service
    finally:
        await service.control.close()


async def join(service: Service, token: Token, **how: Any) -> joining.Joined:
    return await joining.join([service.address], token, "host2", "127.0.0.1", **how)


# -- joining ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["worker", "manager"])
def test_who_has_a_token_becomes_a_node_that_may_call(run: Any, tmp_path: Path, role: str) -> None:
    async def story(service: Service) -> None:
        joined = await join(service, service.registry.token(role), version="0.3")
        assert joined.admission.role == role and joined.manager == service.address
        files = Files(tmp_path / "joined")
        files.save(control_identity(joined), joined.key, joined.admission.certificate, joined.admission.trust)
        managers = Managers(files, [service.address])
        answer = await managers.call("who", {"n": 1})
        assert answer == {"node": joined.admission.node, "role": role, "address": "127.0.0.1", "said": {"n": 1}}
        await managers.close()

    run(story)


def control_identity(joined: joining.Joined) -> Any:
    from netengine.cluster.identity import Identity

    a = joined.admission
    return Identity(node=a.node, cluster=a.cluster, role=a.role, advertise_address="127.0.0.1")


def test_a_token_of_another_cluster_sends_nothing(run: Any) -> None:
    async def story(service: Service) -> None:
        other = certificates.create_authority("other")
        token = Token(certificates.digest(other.certificate), service.registry.secrets["manager"])
        with pytest.raises(Forbidden, match=r"is not the one that the join token was made for.*nothing was sent"):
            await join(service, token)
        assert not service.registry.admitted

    run(story)


def test_who_shows_the_right_ca_and_has_no_managers_certificate_is_sent_nothing(place: Host, tmp_path: Path) -> None:
    """A worker of the cluster plays the manager: its certificate is genuine, and is not a manager's."""

    async def story() -> None:
        service = Service(tmp_path)
        service.control._files = node_files(tmp_path, ROOT, "w1", "worker")
        await service.control.start("127.0.0.1", 0)
        try:
            with pytest.raises(Forbidden, match="cannot prove that it is one of its managers"):
                await join(service, service.registry.token("worker"))
            assert not service.registry.admitted
        finally:
            await service.control.close()

    place.inside(lambda: asyncio.run(story()))


def test_a_rotated_token_is_refused_and_that_is_logged(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def story(service: Service) -> None:
        old = service.registry.token("worker")
        service.registry.secrets["worker"] = "0" * 25
        with pytest.raises(Forbidden, match="not, or no longer, one of this cluster"):
            await join(service, old)
        with pytest.raises(Forbidden):
            await join(service, Token(old.digest, "x" * 25))

    with caplog.at_level(logging.WARNING):
        run(story)
    assert "refused /v1/join from 127.0.0.1" in caplog.text


@pytest.mark.parametrize(("age", "how"), [(timedelta(days=-1), "not valid yet"), (timedelta(days=200), "expired")])
def test_clocks_that_differ_are_both_named(place: Host, tmp_path: Path, age: timedelta, how: str) -> None:
    async def story() -> None:
        service = Service(tmp_path)
        service.control._files = node_files(tmp_path, ROOT, "m2", "manager", age=age)
        await service.control.start("127.0.0.1", 0)
        try:
            with pytest.raises(
                Unavailable, match=rf"is {how} by this host's clock, which says .* UTC; the manager's says .* UTC"
            ):
                await join(service, service.registry.token("worker"))
        finally:
            await service.control.close()

    place.inside(lambda: asyncio.run(story()))


def test_nobody_there_is_said_fast_and_the_next_manager_is_asked(run: Any) -> None:
    async def story(service: Service) -> None:
        token = service.registry.token("worker")
        with pytest.raises(Unavailable, match=r"no manager answers at 127.0.0.1:1: Connection refused"):
            await joining.join(["127.0.0.1:1"], token, "h", "127.0.0.1")
        joined = await joining.join(["127.0.0.1:1", service.address], token, "h", "127.0.0.1")
        assert joined.manager == service.address
        with pytest.raises(Invalid, match="no manager is named"):
            await joining.join([], token, "h", "127.0.0.1")

    run(story)


def test_what_answers_and_is_no_manager_is_said(run: Any) -> None:
    async def story(service: Service) -> None:
        token = service.registry.token("worker")

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as other:
            port = other.sockets[0].getsockname()[1]
            with pytest.raises(
                Unavailable, match=rf"what answers at 127\.0\.0\.1:{port} is not the control service.*port right"
            ):
                await joining.join([f"127.0.0.1:{port}"], token, "h", "127.0.0.1")
        with pytest.raises(Unavailable, match=r"no manager answers at no.such.host.invalid:2377: (?!Unknown)"):
            await joining.join(["no.such.host.invalid"], token, "h", "127.0.0.1")

    run(story)


def test_while_the_root_is_rotated_the_old_token_still_joins(place: Host, tmp_path: Path) -> None:
    async def story() -> None:
        rotating = certificates.succeed(ROOT, certificates.create_authority(CLUSTER))
        async with serving(tmp_path, rotating) as service:
            old = Token(certificates.digest(ROOT.certificate), service.registry.secrets["worker"])
            joined = await join(service, old)
            assert joined.admission.trust.count("BEGIN CERTIFICATE") == 2
            assert certificates.is_issued_by(joined.admission.certificate, rotating)

    place.inside(lambda: asyncio.run(story()))


# -- nodes --------------------------------------------------------------------------------------------------------------


def test_errors_arrive_as_what_they_are(run: Any) -> None:
    async def story(service: Service) -> None:
        managers = service.node("w1")
        with pytest.raises(Conflict, match=r"^taken: choose another$"):
            await managers.call("conflict", {})
        with pytest.raises(NotFound, match="knows no call 'nothing'"):
            await managers.call("nothing", {})
        with pytest.raises(NetengineError, match="its log says why"):
            await managers.call("broken", {})
        assert (await managers.call("who", {}))["node"] == "w1"
        await managers.close()

    run(story)


def test_a_worker_may_not_call_what_managers_may(run: Any) -> None:
    async def story(service: Service) -> None:
        worker, manager = service.node("w1"), service.node("m2", "manager")
        with pytest.raises(Forbidden, match="only managers may call 'rule'"):
            await worker.call("rule", {})
        assert (await manager.call("rule", {}))["role"] == "manager"
        service.registry.roles["m2"] = "worker"  # demoted: at once, whatever its certificate says
        with pytest.raises(Forbidden, match="only managers may call 'rule'"):
            await manager.call("rule", {})
        service.registry.roles["w1"] = "manager"  # promoted: not before it has a manager's certificate
        with pytest.raises(Forbidden, match="only managers may call 'rule'"):
            await worker.call("rule", {})
        await worker.close()
        await manager.close()

    run(story)


def test_a_node_that_was_removed_is_a_stranger(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def story(service: Service) -> None:
        managers = service.node("w1")
        await managers.call("who", {})
        del service.registry.roles["w1"]
        with pytest.raises(Forbidden, match="node w1 is not, or no longer, one of this cluster"):
            await managers.call("who", {})
        await managers.close()

    with caplog.at_level(logging.WARNING):
        run(story)
    assert "refused /v1/call/who from 127.0.0.1: node w1 is not" in caplog.text


@pytest.mark.parametrize("what", ["another root", "another cluster", "expired", "none"])
def test_who_has_no_certificate_of_the_cluster_is_refused(
    run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    async def story(service: Service) -> None:
        how: dict[str, Any] = {"trust": ROOT.trust}
        authority = certificates.create_authority(CLUSTER) if what == "another root" else ROOT
        if what == "expired":
            how |= {"age": timedelta(days=91)}
        if what == "another cluster":
            how |= {"cluster": "cluster2"}
        files = node_files(tmp_path / "stranger", authority, "m1", "manager", **how)
        managers = Managers(files, [service.address])
        if what == "none":
            managers._context = tls.joining_context(ROOT.trust)
        with pytest.raises(Forbidden) as caught:
            await managers.call("who", {})
        if what in ("another root", "expired"):
            words = "expired at" if what == "expired" else "not signed by a root of this cluster"
            assert "refuses this node" in caught.value.message and words in caught.value.message
        await managers.close()

    with caplog.at_level(logging.WARNING):
        run(story)
    assert "refused" in caplog.text and "127.0.0.1" in caplog.text


def test_a_certificate_is_renewed_over_a_connection_that_goes_on(run: Any) -> None:
    async def story(service: Service) -> None:
        managers = service.node("w1")
        service.registry.roles["w1"] = "manager"
        key = certificates.make_key()
        renewal = await managers.renew(RenewRequest(request=certificates.make_request(key), addresses=["127.0.0.1"]))
        assert renewal.role == "manager" and certificates.read(renewal.certificate).role == "manager"
        managers._files.replace_certificate(key, renewal.certificate)
        assert (await managers.call("who", {}))["role"] == "worker", "not before it is told"
        managers.renewed()
        assert (await managers.call("who", {}))["role"] == "manager"
        with pytest.raises(Invalid, match="no IP address"):
            await managers.renew(RenewRequest(request=certificates.make_request(key), addresses=["x"]))
        with pytest.raises(Invalid, match="signing request"):
            await managers.renew(RenewRequest(request="x"))
        await managers.close()

    run(story)


def test_a_root_follows_another_while_nodes_call(run: Any) -> None:
    """Every order of events: who has renewed speaks with who has not, both ways, until the old root is gone."""

    async def story(service: Service) -> None:
        old_worker = service.node("w1")
        new = certificates.succeed(ROOT, certificates.create_authority(CLUSTER))
        service.registry.authority = new
        service.files.replace_trust(new.trust)  # the manager trusts both, shows the old certificate
        service.control.renewed()
        new_worker = service.node("w2")
        for worker in (old_worker, new_worker):
            assert await worker.call("who", {})
        old_worker.renewed()
        key = certificates.make_key()
        chain = certificates.issue(new, certificates.make_request(key), "m1", "manager", CLUSTER, ["127.0.0.1"])
        service.files.replace_certificate(key, chain)  # and now the new one, to somebody who trusts only the old root
        service.control.renewed()
        new_worker.renewed()
        old_worker.renewed()
        for worker in (old_worker, new_worker):
            assert await worker.call("who", {})
        service.registry.authority = certificates.settle(new)
        service.files.replace_trust(service.registry.trust())
        service.control.renewed()
        new_worker.renewed()
        old_worker.renewed()
        assert await new_worker.call("who", {})
        with pytest.raises(Forbidden, match=r"refuses this node: .* not signed by a root"):
            await old_worker.call("who", {})
        await old_worker.close()
        await new_worker.close()

    run(story)


def test_managers_that_are_away_are_passed_over(run: Any) -> None:
    async def story(service: Service) -> None:
        managers = service.node("w1")
        managers.use(["127.0.0.1:1", "127.0.0.2:1", service.address])
        assert (await managers.call("who", {}))["node"] == "w1"
        managers.use(["127.0.0.1:1", "127.0.0.2:1"])
        with pytest.raises(Unavailable, match=r"no manager of the cluster answers \(127.0.0.1:1: .*; 127.0.0.2:1: "):
            await managers.call("who", {})
        await managers.close()

    run(story)


def test_a_manager_that_hangs_leaves_time_for_the_next(run: Any, tmp_path: Path) -> None:
    async def story(service: Service) -> None:
        async def hang(caller: Caller, payload: Any) -> Any:
            await asyncio.sleep(3600)

        hanging = Control(service.files, CLUSTER, service.registry)
        hanging.calls["who"] = hang
        await hanging.start("127.0.0.1", 0)
        managers = service.node("w1")
        managers.use([f"127.0.0.1:{hanging.port}"])
        managers.use([f"127.0.0.1:{hanging.port}", service.address])
        managers._time_limit = patient(4)
        assert (await managers.call("who", {}))["node"] == "w1"
        assert managers.addresses[0] == service.address, "who answered is asked first"
        await managers.close()
        await hanging.close()

    run(story)


def test_a_connection_that_ends_in_the_middle_of_a_call_is_made_anew(run: Any) -> None:
    """As when a manager is started anew and a connection to it was kept."""

    async def story(service: Service) -> None:
        calls = 0

        async def cut(caller: Caller, payload: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 1:
                assert service.control._doors is not None
                for visit in service.control._doors._visits.values():
                    assert visit._transport is not None
                    visit._transport.abort()
            return calls

        service.control.calls["cut"] = cut
        managers = service.node("w1")
        assert await managers.call("cut", {}) == 2
        await managers.close()

    run(story)


# -- strangers who mean harm ------------------------------------------------------------------------------------------------


async def raw(service: Service, data: bytes, *, node: Files | None = None, end: bool = False) -> tuple[int, Any]:
    """Send bytes after the TLS handshake; the status and the body that come back, (0, None) when the connection ends."""
    context = tls.client_context(node) if node else tls.joining_context(ROOT.trust)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", service.control.port, ssl=context, server_hostname=tls.MANAGER_NAME
    )
    try:
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        body = await reader.readexactly(length)
        return int(head.split()[1]), json.loads(body) if body.startswith(b"{") else body
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0, None
    finally:
        writer.transport.abort()


def _post(path: str, body: bytes, length: int | None = None) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: m\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n".encode()
        + body
    )


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (_post("/v1/join", b"{"), 400),
        (_post("/v1/join", b"[" * 60_000), 400),
        (_post("/v1/join", b'{"secret": 1}'), 400),
        (_post("/v1/join", b"\xff\xfe\x00"), 400),
        (_post("/v1/join", b"", 1 << 40), 413),
        (_post("/v1/join", b"x" * (65 << 10)), 413),
        (
            b"POST /v1/join HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"10000\r\n"
            + b"x" * 0x10000
            + b"\r\n"
            + b"1\r\nx\r\n",
            413,
        ),
        (_post("/v1/renew", b"{}"), 403),
        (_post("/v1/call/who", b"{}"), 403),
        (_post("/v1/call/..%2f..%2fca", b"{}"), 403),
        (b"GET /v2/keys HTTP/1.1\r\nHost: m\r\n\r\n", 404),
        (b"DELETE /v1/ca HTTP/1.1\r\nHost: m\r\n\r\n", 405),
        (b"GET /v1/ca HTTP/1.1\r\nHost: m\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 400),
        (b"\x16\x03\x01 not http\r\n\r\n", 400),
    ],
    ids=[
        "json",
        "deep",
        "types",
        "bytes",
        "declared",
        "large",
        "chunked",
        "renew",
        "call",
        "path",
        "route",
        "method",
        "header",
        "noise",
    ],
)
def test_what_a_stranger_sends_is_answered_with_an_error(run: Any, data: bytes, status: int) -> None:
    async def story(service: Service) -> None:
        answered, body = await raw(service, data)
        assert answered in (status, 0) if status == 413 else answered == status, body
        assert (await raw(service, b"GET /v1/ca HTTP/1.1\r\nHost: m\r\n\r\n"))[0] == 200

    run(story)


def test_a_request_for_a_certificate_that_is_none_makes_no_node(run: Any) -> None:
    async def story(service: Service) -> None:
        secret = service.registry.secrets["worker"]
        wanted = {"secret": secret, "request": "-----BEGIN", "name": "x", "advertise_address": "127.0.0.1"}
        status, body = await raw(service, _post("/v1/join", json.dumps(wanted).encode()))
        assert status == 400 and "signing request" in body["message"] and service.registry.roles == {"m1": "manager"}

    run(story)


def test_slow_and_silent_connections_end_and_do_not_keep_others_out(
    run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(doors, "FROM_ONE_ADDRESS", 4)
    monkeypatch.setattr(doors, "FIRST_SECONDS", 1.0)
    monkeypatch.setattr(doors, "HANDSHAKE_SECONDS", 1.0)

    async def story(service: Service) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", service.control.port) for _ in range(2)]
        context = tls.joining_context(ROOT.trust)
        slow = [
            await asyncio.open_connection(
                "127.0.0.1", service.control.port, ssl=context, server_hostname=tls.MANAGER_NAME
            )
            for _ in range(2)
        ]
        for _, writer in slow:
            writer.write(b"POST /v1/join HTTP/1.1\r\nHost: m\r\nContent-Le")
        with pytest.raises((OSError, ssl.SSLError, asyncio.IncompleteReadError)):
            await raw(service, b"GET /v1/ca HTTP/1.1\r\nHost: m\r\n\r\n")  # a fifth from this address
        for reader, writer in (*silent, *slow):
            try:
                assert await reader.read() == b""
            except (ConnectionError, ssl.SSLError):
                pass
            writer.transport.abort()
        while (await _tried(service)) != 200:
            await asyncio.sleep(0.05)

    with caplog.at_level(logging.WARNING):
        run(story)
    assert "too many are open" in caplog.text and "no TLS handshake within 1 s" in caplog.text


def test_nodes_behind_one_address_do_not_keep_each_other_out(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an IPv6 network, where all hosts of a cluster count as one address."""
    monkeypatch.setattr(doors, "FROM_ONE_ADDRESS", 2)

    async def story(service: Service) -> None:
        context = tls.client_context(service.files)
        writers = []
        for _ in range(6):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", service.control.port, ssl=context, server_hostname=tls.MANAGER_NAME
            )
            writers.append(writer)
            writer.write(b"GET /v1/ca HTTP/1.1\r\nHost: m\r\n\r\n")
            assert b" 200 " in await reader.readline()  # and is kept open
        assert await _tried(service) == 200
        for writer in writers:
            writer.transport.abort()

    run(story)


async def _tried(service: Service) -> int:
    try:
        return (await raw(service, b"GET /v1/ca HTTP/1.1\r\nHost: m\r\n\r\n"))[0]
    except (OSError, asyncio.IncompleteReadError):
        return 0


def test_noise_on_every_route_is_answered_and_makes_no_node(run: Any) -> None:
    """A few hundred requests that were damaged at random, of strangers and of a node (the seed is fixed)."""
    rng = random.Random(2377)
    secret_form = {"secret": "x" * 25, "request": "-----BEGIN", "name": "n", "advertise_address": "127.0.0.1"}
    values = [None, True, -1, 1e400, "", "\0", "ü" * 300, [], {}, [[]] * 50, {"a": {"b": 1}}, "../../etc", 1 << 70]

    def body() -> bytes:
        form: Any = rng.choice([secret_form, {"request": "x", "addresses": ["127.0.0.1"]}, {}, [], "x", None])
        if isinstance(form, dict):
            form = {**form, **{rng.choice([*form, "more"]): rng.choice(values) for _ in range(rng.randrange(3))}}
        raw = bytearray(json.dumps(form).encode())
        for _ in range(rng.choice([0, 0, 1, 5])):
            if raw:
                raw[rng.randrange(len(raw))] = rng.randrange(256)
        return bytes(raw)

    async def story(service: Service) -> None:
        node = node_files(service.directory, ROOT, "w1", "worker")
        service.registry.roles["w1"] = "worker"
        for number in range(300):
            route = rng.choice(["/v1/join", "/v1/renew", "/v1/call/who", "/v1/call/rule", "/v1/call/conflict"])
            status, _ = await raw(service, _post(route, body()), node=node if number % 2 else None)
            assert status in (0, 200, 400, 403, 404, 409, 413), (status, route)
            assert status != 200 or route == "/v1/call/who"
        assert set(service.registry.roles) == {"m1", "w1"}
        assert (await raw(service, b"GET /v1/ca HTTP/1.1\r\nHost: m\r\n\r\n"))[0] == 200

    run(story)


def test_a_stranger_writes_no_lines_of_the_log(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def story(service: Service) -> None:
        await raw(service, _post("/v1/call/x%0aWARNING%20forged", b"{}"))

    with caplog.at_level(logging.INFO):
        run(story)
    assert "forged" in caplog.text and "\nWARNING forged" not in caplog.text


def test_many_join_at_once(run: Any) -> None:
    async def story(service: Service) -> None:
        token = service.registry.token("worker")
        joined = await asyncio.gather(*(join(service, token) for _ in range(24)))
        assert len({j.admission.node for j in joined}) == 24

    run(story)


def test_a_body_that_never_ends_is_cut_off(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "BODY_SECONDS", 0.3)

    async def story(service: Service) -> None:
        status, body = await raw(service, _post("/v1/join", b"{", 100))
        assert status == 400 and "not come to an end" in body["message"]

    run(story)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_tls_is_refused(run: Any) -> None:
    async def story(service: Service) -> None:
        context = tls.blind_context()
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.open_connection("127.0.0.1", service.control.port, ssl=context)

    run(story)


def test_a_port_that_is_taken_and_an_address_that_is_not_ours(run: Any, tmp_path: Path) -> None:
    async def story(service: Service) -> None:
        other = Control(service.files, CLUSTER, service.registry)
        with pytest.raises(Conflict, match="the port is in use"):
            await other.start("127.0.0.1", service.control.port)
        with pytest.raises(Invalid, match=r"cannot listen on 203.0.113.9:2377: Cannot assign"):
            await other.start("203.0.113.9", 2377)
        with pytest.raises(Invalid, match="no IP address"):
            await other.start("host2", 2377)
        await other.close()

    run(story)
