"""Disks that are full or read-only, and a database that is damaged or gone: refused, said, and over when the cause is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from netengine.store.salvage import salvage
from netengine.store.sqlite import SCHEMA_VERSION
from tests.daemons import Daemon, Failed, netengine_cli
from tests.faults.harness import FaultLab, undo
from tests.hosts import Host, wait_until

MakeDaemon = Callable[..., Daemon]


def small_disk(host: Host, make_daemon: MakeDaemon, size: str = "512k") -> Daemon:
    """A daemon, not started, whose data directory is a file system of a few hundred kilobytes."""
    where = Path("/run/small")
    host.path(str(where)).mkdir()
    host.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "small", str(where)], check=True)
    daemon = make_daemon(host, start=False)
    daemon.data_root = where / "netengine"
    return daemon


def doctor(daemon: Daemon) -> list[str]:
    return [finding["What"] for finding in daemon.request("GET", "/netengine/doctor").json["Differences"]]


def test_a_full_disk_refuses_changes_and_takes_nothing_away(host: Host, make_daemon: MakeDaemon) -> None:
    daemon = small_disk(host, make_daemon).start()
    netengine = netengine_cli(daemon)
    netengine("network", "create", "before")
    netengine("run", "-d", "--name", "box", "--network", "before", "sandbox")
    links = host.links()
    host.run(["dd", "if=/dev/zero", "of=/run/small/ballast", "bs=4k"])
    refused: Failed | None = None
    for number in range(40):  # what SQLite has reserved in its log is used up first
        try:
            netengine("network", "create", f"n{number}")
        except Failed as failed:
            refused = failed
            break
    assert refused is not None and "full" in refused.text, refused
    assert doctor(daemon) == []
    assert links <= host.links()
    host.path("/run/small/ballast").unlink()
    netengine("network", "create", "after")
    netengine("network", "rm", "after")
    assert doctor(daemon) == []


def test_a_read_only_data_directory_is_named(host: Host, make_daemon: MakeDaemon) -> None:
    daemon = small_disk(host, make_daemon).start()
    daemon.stop()
    host.run(["mount", "-o", "remount,ro", "/run/small"], check=True)
    done = host.run(daemon.argv, env={"PYTHONPATH": str(Path(__file__).resolve().parents[2])})
    assert done.returncode == 1
    assert re.search(r"/run/small/netengine.*[Rr]ead-only file system", done.stderr), done.stderr
    host.run(["mount", "-o", "remount,rw", "/run/small"], check=True)
    daemon.start()


def lose_records(host: Host) -> None:
    """What is recorded of the database in the run directory."""
    host.run(["rm", "-r", "/run/netengine/records"], check=True)


@pytest.mark.parametrize("left", ["nothing", "a file of zeros", "garbage"])
def test_without_its_database_everything_goes_on(fault_lab: FaultLab, left: str) -> None:
    """Networks, containers that run and ones that do not, ports and policies, by their records; nobody loses a packet."""
    lab = fault_lab
    lab.ask("POST", "/networks/create", {"Name": "net", "EnableIPv6": True, "Labels": {"a": "b"}})
    ports = {"80/tcp": [{"HostPort": "8080"}]}
    sandbox = {"Image": "sandbox", "HostConfig": {"PortBindings": ports, "NetworkMode": "net"}}
    lab.ask("POST", "/containers/create?name=box", sandbox)
    lab.ask("POST", "/containers/box/start")
    lab.ask("POST", "/containers/create?name=idle", {"Image": "sandbox", "HostConfig": {"NetworkMode": "net"}})
    lab.ask("POST", "/netengine/policies", {"Action": "deny", "From": "idle", "To": "box"})

    def everything() -> Any:
        seen = [lab.ask("GET", f"/containers/{name}/json").json for name in ("bystander", "box", "idle")]
        networks = lab.ask("GET", "/networks").json
        return (
            seen,
            sorted(networks, key=str),
            lab.ask("GET", "/netengine/policies").json,
            lab.ask("GET", "/info").json["ID"],
        )

    try:
        before, facts, lost = everything(), lab.settled(), lab.flow.lost()
        lab.daemon.kill9()
        database = lab.here.path(str(lab.daemon.data_root / "state.db"))
        for file in database.parent.glob("state.db*"):
            file.unlink()
        if left != "nothing":
            database.write_bytes(bytes(8192) if left == "a file of zeros" else b"no database " * 999)
        lab.daemon.start()
        assert everything() == before
        assert lab.doctor() == []
        assert [line for line in lab.facts() if "state.db" not in line] == [f for f in facts if "state.db" not in f]
        assert lab.flow.lost() == lost
        assert re.search(r"the state in \S+ is (gone|damaged).*recorded in the run directory", lab.daemon.tail())
    finally:
        lab.daemon.request("DELETE", "/containers/idle?force=1")
        undo(lab)


def test_a_damaged_database_is_kept_aside_and_the_host_swept(host: Host, make_daemon: MakeDaemon) -> None:
    """Without records too: nothing is known."""
    daemon = make_daemon(host)
    netengine = netengine_cli(daemon)
    before = host.links()
    netengine("network", "create", "app")
    netengine("run", "-d", "--name", "box", "--network", "app", "-p", "8080:80", "sandbox")
    works = netengine("run", "-d", "--name", "works", "host", "sh", "-c", "echo to be kept; sleep 1000.25")
    wait_until(lambda: netengine("logs", "works") == "to be kept", "it works")
    process = str(one(netengine("inspect", "works"))["State"]["Pid"])
    assert host.run(["kill", "-0", process]).returncode == 0
    daemon.stop()
    database = host.path(str(daemon.data_root / "state.db"))
    for log in database.parent.glob("state.db-*"):
        log.unlink()
    damaged = b"not a database, for all one can tell " * 200
    database.write_bytes(damaged)
    lose_records(host)
    daemon.start()
    (aside,) = (path for path in database.parent.glob("state.db.corrupt-*") if path.is_file())
    assert aside.read_bytes() == damaged
    # Nothing says any more what that process may reach, so it does not go on; what it has written is kept.
    assert host.run(["kill", "-0", process]).returncode != 0
    assert re.search(rf"container {works[:12]} is not in the store: its processes were ended; its files", daemon.tail())
    kept = aside.with_name(f"{aside.name}-containers") / works
    assert any(b"to be kept" in path.read_bytes() for path in kept.rglob("*") if path.is_file())
    assert "damaged" in daemon.tail() and str(aside.name) in daemon.tail()
    assert doctor(daemon) == []
    wait_until(lambda: host.links() == before, lambda: f"links are left: {host.links() ^ before}")
    assert host.namespaces() == set()
    assert '"ip : drop"' in host.rules() or re.search(r"strangers \{[^}]*ip : drop", host.rules()), (
        "who turned forwarding on is still known, so strangers stay unforwarded"
    )
    netengine("network", "create", "app")
    netengine("run", "-d", "--name", "box", "--network", "app", "-p", "8080:80", "sandbox")
    assert doctor(daemon) == []


def test_a_database_damaged_in_the_middle_is_noticed(host: Host, make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(host)
    netengine = netengine_cli(daemon)
    for number in range(12):
        netengine("network", "create", f"n{number}")
    daemon.stop()
    database = host.path(str(daemon.data_root / "state.db"))
    body = bytearray(database.read_bytes())
    body[4096:] = b"\xff" * (len(body) - 4096)
    database.write_bytes(body)
    lose_records(host)
    daemon.start()
    assert list(database.parent.glob("state.db.corrupt-*"))
    assert doctor(daemon) == []


def test_what_can_be_read_of_a_damaged_database_goes_on(host: Host, make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """One page is hit, and with it a few networks. A container whose row is elsewhere does not notice."""
    daemon = make_daemon(host)
    netengine = netengine_cli(daemon)
    for number in range(12):
        netengine("network", "create", "--label", f"words={'x' * 900}", f"n{number}")
    netengine("run", "-d", "--name", "box", "-p", "8080:80", "--label", f"words={'y' * 900}", "host", "sleep", "1000.5")
    before = one(netengine("inspect", "box"))
    daemon.stop()
    database = host.path(str(daemon.data_root / "state.db"))
    whole = database.read_bytes()
    everything = names_in(whole, tmp_path)
    for page in range(2, len(whole) // 4096):  # the second is the root of the table: without it nothing is found
        damaged = whole[: page * 4096] + b"\xff" * 4096 + whole[(page + 1) * 4096 :]
        if {"box", "bridge", "host"} < (left := names_in(damaged, tmp_path)) < everything:
            database.write_bytes(damaged)
            lose_records(host)
            break
    else:
        pytest.fail("each page has the container or no network at all")
    daemon.start()
    names = {network["Name"] for network in daemon.request("GET", "/networks").json}
    assert names == (left - {"box"}) | {"none"} and len(names) > 6
    now = one(netengine("inspect", "box"))
    assert (now["State"], now["NetworkSettings"]) == (before["State"], before["NetworkSettings"])
    assert host.run(["kill", "-0", str(now["State"]["Pid"])]).returncode == 0
    assert doctor(daemon) == []
    netengine("rm", "-f", "box")


def names_in(database: bytes, directory: Path) -> set[str]:
    """Whose objects can be read. On a path of the test's own: SQLite would resolve one that leads through /proc."""
    copy = directory / "copy.db"
    copy.write_bytes(database)
    out = set()
    for body in salvage(copy, SCHEMA_VERSION).objects.values():
        with suppress(ValueError):
            out.add(json.loads(body)["name"])
    return out


def one(text: str) -> Any:
    (found,) = json.loads(text)
    return found
