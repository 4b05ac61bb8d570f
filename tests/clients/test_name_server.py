"""The name server as a process: it outlives the daemon, comes back when killed, keeps up with change, and can be asked why."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dns.rcode
import pytest

from tests.clients.lab import OUTSIDE, Lab, eventually
from tests.clients.nameserver import EMBEDDED, Upstream, ask, look_up
from tests.daemons import Client
from tests.hosts import Namespace, wait_until
from tests.patience import promised


@pytest.fixture
def box(lab: Lab, docker: Client) -> Namespace:
    """A sandbox at 10.20.0.2 beside `web`, 10.20.0.3."""
    docker("network", "create", "--subnet", "10.20.0.0/24", "blue")
    for name in ("box", "web"):
        docker("run", "-d", "--name", name, "--network", "blue", "sandbox")
    return lab.sandbox("box")


# ---------------------------------------------------------------------- its place


def test_it_is_nobody_and_may_do_nothing(lab: Lab, box: Namespace):
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{lab.name_server()}/status").read_text().splitlines())
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"65534"}
    assert status["Groups"].strip() == ""
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


def test_its_way_into_a_sandbox_tracks_no_connection(lab: Lab, docker: Client, box: Namespace):
    for tcp in (False, True):
        assert ask(box, "web", tcp=tcp).rcode() == dns.rcode.NOERROR
    rules = lab.here.run(["ip", "netns", "exec", "box", "nft", "list", "ruleset"], check=True).stdout
    assert "table ip netengine-dns" in rules
    assert "nat" not in rules
    listening = lab.here.run(["ip", "netns", "exec", "box", "ss", "-Hlntu"], check=True).stdout
    assert {line.split()[4].split(":")[0] for line in listening.splitlines()} == {EMBEDDED}
    assert ":53 " not in listening, "port 53 is free"


# ---------------------------------------------------------------------- deaths


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_answers_go_on_while_the_daemon_is_away(lab: Lab, docker: Client, box: Namespace, end: signal.Signals):
    server = lab.name_server()
    with Upstream(lab.outside, OUTSIDE, {"www.example.": "198.51.100.1"}):
        lab.daemon.stop(end)
        for _ in range(20):
            assert look_up(box, "web") == ["10.20.0.3"]
        assert look_up(box, "web", tcp=True) == ["10.20.0.3"]
        assert look_up(box, "www.example") == ["198.51.100.1"]
        with _Asking(box, "web") as asking:
            lab.daemon.start()
        assert asking.answers == {("10.20.0.3",)}, "no gap while the two find each other again"
    assert lab.name_server() == server, "it is the same process"
    docker("run", "-d", "--name", "late", "--network", "blue", "sandbox")
    assert look_up(box, "late") == ["10.20.0.4"]
    docker("rm", "-f", "web")
    assert look_up(box, "web") == []


def test_a_daemon_that_comes_back_corrects_what_has_changed(lab: Lab, docker: Client, box: Namespace):
    docker("run", "-d", "--name", "brief", "--network", "blue", "host", "sleep", "infinity")
    assert look_up(box, "brief") == ["10.20.0.4"]
    pid = lab.state("brief")["Pid"]
    lab.daemon.kill9()
    lab.here.run(["kill", "-9", str(pid)], check=True)  # a PID of the host, not of the machine
    wait_until(lambda: not lab.here.path(f"/proc/{pid}").exists(), "its end")
    lab.daemon.start()
    eventually(lambda: look_up(box, "brief") == [], "its name is gone")
    assert look_up(box, "web") == ["10.20.0.3"]


def test_killed_it_is_back_within_a_second(lab: Lab, docker: Client, box: Namespace):
    docker("run", "-d", "--name", "other", "--network", "blue", "--network-alias", "alias", "sandbox")
    places = [box, lab.sandbox("web"), lab.sandbox("other")]
    server = lab.name_server()
    os.kill(server, signal.SIGKILL)
    killed = time.monotonic()

    def answers() -> bool:
        try:
            return all(look_up(place, "alias", timeout=0.3) == ["10.20.0.4"] for place in places)
        except OSError:
            return False

    wait_until(answers, "answers in every sandbox")
    took = time.monotonic() - killed
    assert took < 1 or took < promised(1), f"it took {took:.2f} s"
    assert look_up(box, "alias", tcp=True) == ["10.20.0.4"]
    assert lab.name_server() not in (0, server)
    docker("run", "-d", "--name", "late", "--network", "blue", "sandbox")
    assert look_up(box, "late") == ["10.20.0.5"]


def test_killed_with_the_daemon_away_it_is_back_with_the_daemon(lab: Lab, docker: Client, box: Namespace):
    lab.daemon.kill9()
    os.kill(lab.name_server(), signal.SIGKILL)
    lab.daemon.start()
    eventually(lambda: look_up(box, "web", timeout=0.2) == ["10.20.0.3"])


def test_one_that_hangs_is_replaced(lab: Lab, docker: Client, box: Namespace):
    """Stopped by a signal, not dead: no API call fails, and later all is well."""
    server = lab.name_server()
    os.kill(server, signal.SIGSTOP)
    docker("run", "-d", "--name", "late", "--network", "blue", "sandbox")
    eventually(lambda: look_up(box, "late", timeout=0.5) == ["10.20.0.4"])
    assert look_up(lab.sandbox("late"), "box") == ["10.20.0.2"]
    assert lab.name_server() not in (0, server)


def test_one_that_hangs_costs_the_api_its_patience_once(lab: Lab, docker: Client, box: Namespace):
    os.kill(lab.name_server(), signal.SIGSTOP)
    web, times = docker("inspect", "-f", "{{.Id}}", "web"), []
    for n in range(4):
        began = time.monotonic()
        assert lab.api("POST", f"/containers/{web}/rename?name=web{n}").status == 204
        times.append(time.monotonic() - began)
    assert sorted(times)[-2] < 1.5 or sorted(times)[-2] < promised(1.5), times
    eventually(lambda: look_up(box, "web3", timeout=0.5) == ["10.20.0.3"])


def test_one_that_hangs_is_found_out_without_any_call(lab: Lab, box: Namespace):
    server = lab.name_server()
    os.kill(server, signal.SIGSTOP)
    wait_until(lambda: lab.name_server() not in (0, server), "another name server", 30)
    wait_until(lambda: _answers(box, "web", "10.20.0.3"), "an answer", 10)
    assert b"does not answer as it should; it is replaced" in lab.daemon.log.read_bytes()


def _answers(place: Namespace, name: str, address: str) -> bool:
    try:
        return look_up(place, name, timeout=0.5) == [address]
    except OSError:
        return False


@pytest.mark.parametrize("command", ["flush ruleset", "flush table ip netengine-dns", "delete table ip netengine-dns"])
def test_rules_taken_away_in_a_sandbox_are_put_back(lab: Lab, box: Namespace, command: str):
    lab.here.run(["ip", "netns", "exec", "box", "nft", *command.split()], check=True)
    wait_until(lambda: _answers(box, "web", "10.20.0.3"), "the rules healed", 10)


def test_rules_taken_away_in_a_sandbox_are_put_back_at_the_next_start(lab: Lab, docker: Client, box: Namespace):
    lab.daemon.stop()
    lab.here.run(["ip", "netns", "exec", "box", "nft", "flush", "ruleset"], check=True)
    with pytest.raises(OSError):
        ask(box, "web", timeout=0.3)
    lab.daemon.start()
    eventually(lambda: look_up(box, "web", timeout=0.5) == ["10.20.0.3"])


# ---------------------------------------------------------------------- change under load


class _Asking:
    """Asks for one name over and over on a thread; `answers` is the set of what came, () for nothing within a second."""

    def __init__(self, place: Namespace, name: str) -> None:
        self.answers: set[tuple[str, ...]] = set()
        self._place, self._name = place, name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_Asking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            try:
                self.answers.add(tuple(look_up(self._place, self._name, timeout=1)))
            except OSError:
                self.answers.add(())


class _Names:
    """1,000 names on 20 sandboxes, and which of them must, must not or may resolve now."""

    def __init__(self) -> None:
        self.holders = {f"n{number}": number % 20 for number in range(1000)}
        self.there: list[bool | None] = [False] * 20  # None: in between
        self.moves = [0] * 20

    def move(self, holder: int, there: bool | None) -> None:
        self.moves[holder] += 1
        self.there[holder] = there

    def of(self, holder: int) -> list[str]:
        return [name for name, its in self.holders.items() if its == holder]


def test_a_thousand_names_come_and_go_without_one_wrong_answer(lab: Lab, docker: Client, box: Namespace):
    names, wrong, asked = _Names(), [], 0
    docker("network", "create", "--subnet", "10.30.0.0/24", "green")
    for holder in range(20):
        body = {"Image": "sandbox", "HostConfig": {"NetworkMode": "green"}}
        assert lab.api("POST", f"/containers/create?name=h{holder}", body).status == 201
        assert lab.api("POST", f"/containers/h{holder}/start").status == 204
    stop = threading.Event()

    def load(seed: int) -> None:
        nonlocal asked
        chance = random.Random(seed)
        every = list(names.holders)
        while not stop.is_set():
            name = chance.choice(every)
            holder = names.holders[name]
            before = names.moves[holder], names.there[holder]
            try:
                found = look_up(box, name, timeout=2)
            except OSError as error:
                wrong.append(f"{name}: {error!r}")
                continue
            after = names.moves[holder], names.there[holder]
            asked += 1
            right = [f"10.20.0.{100 + holder}"]
            if found not in ([], right):
                wrong.append(f"{name} is {found}, not {right}")
            elif before == after and before[1] is not None and bool(found) != before[1]:
                wrong.append(f"{name} resolves to {found}, but {'is' if before[1] else 'is not'} there")

    def change(method: str, holder: int, body: dict[str, object], there: bool) -> None:
        names.move(holder, None)
        answer = lab.api("POST", f"/networks/blue/{method}", {"Container": f"h{holder}", **body})
        assert answer.status == 200, answer.body
        names.move(holder, there)

    threads = [threading.Thread(target=load, args=(seed,), daemon=True) for seed in range(2)]
    with Upstream(lab.outside, OUTSIDE):
        for thread in threads:
            thread.start()
        try:
            deadline = time.monotonic() + 12
            for _ in range(20):
                for holder in range(20):
                    endpoint = {
                        "Aliases": names.of(holder),
                        "IPAMConfig": {"IPv4Address": f"10.20.0.{100 + holder}"},
                    }
                    change("connect", holder, {"EndpointConfig": endpoint}, True)
                for holder in range(20):
                    change("disconnect", holder, {}, False)
                if time.monotonic() > deadline:
                    break
        finally:
            stop.set()
            for thread in threads:
                thread.join(10)
    assert wrong == []
    assert asked > 500


# ---------------------------------------------------------------------- what it tells


@pytest.fixture
def world(lab: Lab, box: Namespace) -> Iterator[Upstream]:
    with Upstream(lab.outside, OUTSIDE, {"www.example.": "198.51.100.1"}) as upstream:
        yield upstream


def test_stats_count_by_container(lab: Lab, netengine: Client, box: Namespace, world: Upstream):
    for _ in range(5):
        look_up(box, "web")
    look_up(box, "www.example")
    lines = [line.split() for line in netengine("dns", "stats").splitlines()]
    assert lines[0] == ["CONTAINER", "ASKED", "ANSWERED", "FORWARDED", "FAILED", "REFUSED", "DROPPED", "P50", "P99"]
    rows = {line[0]: line[1:] for line in lines[1:]}
    assert set(rows) == {"box", "web"}
    assert rows["box"][:6] == ["6", "5", "1", "0", "0", "0"]
    assert rows["web"][0] == "0"
    form = "{{.Container}} {{.Asked}}"
    assert netengine("dns", "stats", "--format", form).splitlines() == ["box 6", "web 0"]


def test_who_leaves_the_last_network_with_names_is_let_go(lab: Lab, docker: Client, netengine: Client, box: Namespace):
    """A socket that the name server kept would keep the namespace of a container that is long removed."""
    docker("run", "-d", "--name", "guest", "sandbox")
    docker("network", "connect", "blue", "guest")
    sandboxes = {line.split()[0] for line in netengine("dns", "stats").splitlines()[1:]}
    assert sandboxes == {"box", "web", "guest"}
    docker("network", "disconnect", "blue", "guest")
    sandboxes = {line.split()[0] for line in netengine("dns", "stats").splitlines()[1:]}
    assert sandboxes == {"box", "web"}


def test_query_shows_the_answer_and_why(lab: Lab, netengine: Client, box: Namespace, world: Upstream):
    known = netengine("dns", "query", "web", "--from", "box").splitlines()
    assert "10.20.0.3" in known[0]
    assert any("blue" in line for line in known[1:]), known
    foreign = netengine("dns", "query", "www.example", "--from", "box").splitlines()
    assert "198.51.100.1" in foreign[0]
    assert any(OUTSIDE in line for line in foreign[1:]), foreign
    nothing = netengine.run("dns", "query", "nobody.example", "--from", "box")
    assert nothing.returncode == 1
    assert nothing.stdout.startswith("NXDOMAIN")
    empty = netengine("dns", "query", "web", "--from", "box", "--type", "AAAA").splitlines()
    assert empty[0] == "NOERROR, no records"
    assert len(empty) > 1
    assert "web.blue." in netengine("dns", "query", "10.20.0.3", "--from", "box").splitlines()[0]


def test_query_refuses_what_cannot_be_asked(lab: Lab, netengine: Client, box: Namespace):
    assert "No such container: nobody" in netengine.refused("dns", "query", "web", "--from", "nobody").text
    lab.idle("plain")
    assert "no name server" in netengine.refused("dns", "query", "web", "--from", "plain").text
    assert netengine.refused("dns", "query", "web", "--from", "box", "--type", "NONSENSE").code == 1
    assert netengine.refused("dns", "query", "a" * 70, "--from", "box").code == 1


# ---------------------------------------------------------------------- the end


def test_it_ends_with_cleanup(lab: Lab, docker: Client, box: Namespace):
    server = lab.name_server()
    lab.daemon.cleanup()
    wait_until(lambda: not Path(f"/proc/{server}").exists(), "the end of the name server")
    assert lab.name_server() == 0
    lab.daemon.start()
