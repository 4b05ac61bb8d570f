"""A newer daemon takes over what an older one left, and a reboot brings back what was there."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemons import Daemon
from tests.hosts import Host, Namespace, wait_until

MakeDaemon = Callable[..., Daemon]

OLDER = Path(__file__).parent / "older"
"""What the version before 0.1.0 (schema 1, rules version-8ec25d555f3d) had for a network `app` and a sandbox `web` with port
8080: its store, its table, and the commands that its `explain` printed."""

WEB = "54b9d60b3ff2ec9c45e37aef854b2930bb3125fa1abfc3eb86f1a3290094ba4d"

# The schema of that version, word for word.
SCHEMA = """
CREATE TABLE objects (kind TEXT NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE leases (pool TEXT NOT NULL, address TEXT NOT NULL, owner TEXT NOT NULL,
                     PRIMARY KEY (pool, address)) WITHOUT ROWID;
CREATE TABLE intents (id TEXT PRIMARY KEY, what TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


def write_older_store(path: Path) -> None:
    recorded = json.loads((OLDER / "state.json").read_text())
    database = sqlite3.connect(path)
    database.executescript(SCHEMA + f"PRAGMA user_version = {recorded['schema']};")
    for kind, identity, body in recorded["objects"]:
        database.execute("INSERT INTO objects VALUES (?, ?, ?)", (kind, identity, json.dumps(body).encode()))
    database.executemany("INSERT INTO leases VALUES (?, ?, ?)", recorded["leases"])
    database.executemany("INSERT INTO settings VALUES (?, ?)", recorded["settings"])
    database.commit()
    database.close()


def build_older_kernel(host: Host) -> None:
    """Make what the older daemon had made, without it."""
    host.sysctl("net.ipv4.ip_forward", "1")
    host.run(["nft", "-f", OLDER / "table.nft"], check=True)
    file = f"/run/netengine/netns/{WEB}"
    host.run(["mkdir", "-p", "/run/netengine/netns", "/run/netns"], check=True)
    host.run(["touch", file], check=True)
    host.run(["unshare", f"--net={file}", "true"], check=True)
    host.run(["ln", "-s", file, "/run/netns/web"], check=True)
    for line in (OLDER / "links.txt").read_text().splitlines():
        host.run(line.split(), check=True)


def indexes(host: Host) -> dict[str, int]:
    return {link["ifname"]: link["ifindex"] for link in json.loads(host.ip("-json", "link"))}


def doctor(daemon: Daemon) -> list[str]:
    return [finding["What"] for finding in daemon.request("GET", "/netengine/doctor").json["Differences"]]


@pytest.fixture
def older(host: Host, make_daemon: MakeDaemon) -> Daemon:
    """A daemon, not started, on a host where an older one was."""
    daemon = make_daemon(host, start=False)
    written = host.directory / "older.db"
    write_older_store(written)
    host.run(["install", "-D", "-m", "600", written, daemon.data_root / "state.db"], check=True)
    return daemon


def test_live_networks_of_an_older_version_are_taken_over(host: Host, neighbour: Host, older: Daemon) -> None:
    build_older_kernel(host)
    web = Namespace(host.path(f"/run/netengine/netns/{WEB}"), "web")
    server = web.listen(80)
    connection = neighbour.connect("192.0.2.1", 8080)
    inside, _ = server.accept()
    before = indexes(host)
    older.start()
    connection.sendall(b"still there")
    assert inside.recv(100) == b"still there", "a connection outlives the upgrade"
    assert neighbour.reaches("192.0.2.1", 8080, 2), "and so do ports"
    assert {name: before[name] for name in before} == {name: indexes(host).get(name) for name in before}, (
        "links are kept"
    )
    assert doctor(older) == []
    seen = older.request("GET", "/containers/web/json").json
    assert seen["State"]["Running"] and seen["NetworkSettings"]["Networks"]["app"]["IPAddress"] == "10.5.0.7"
    assert "shop" in seen["NetworkSettings"]["Networks"]["app"]["Aliases"]
    assert older.request("GET", "/networks/app").json["Labels"] == {"made": "by an older one"}
    assert "version-8ec25d555f3d" not in host.rules(), "the rules are the new ones"
    assert older.request("POST", "/networks/app/disconnect", {"Container": "web"}).status == 200
    assert older.request("POST", "/networks/app/connect", {"Container": "web"}).status == 200
    assert older.request("DELETE", "/containers/web?force=1").status == 204
    assert doctor(older) == []
    for one in (connection, inside, server):
        one.close()
    web.close()


def test_a_store_of_an_older_version_brings_its_networks_back_after_a_reboot(older: Daemon, host: Host) -> None:
    older.start()
    assert older.request("GET", "/networks/app").json["IPAM"]["Config"][0]["Subnet"] == "10.5.0.0/24"
    assert not older.request("GET", "/containers/web/json").json["State"]["Running"]
    assert older.request("POST", "/containers/web/start").status == 204
    assert doctor(older) == []


def test_a_store_of_a_newer_version_is_left_alone(older: Daemon, host: Host) -> None:
    path = host.path(str(older.data_root / "state.db"))
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA user_version = 999')"
    host.run(["python3", "-c", code, older.data_root / "state.db"], check=True)
    before = path.read_bytes()
    done = host.run(older.argv, env={"PYTHONPATH": str(Path(__file__).resolve().parents[2])})
    after = path.read_bytes()
    path.unlink()
    assert done.returncode == 1
    assert "written by a newer netengine (schema 999" in done.stderr, done.stderr
    assert after == before


def test_a_reboot_brings_networks_and_containers_back(make_host: Callable[..., Host], make_daemon: MakeDaemon) -> None:
    host = make_host("before")
    daemon = make_daemon(host)
    kept = host.directory / "kept"

    def ask(method: str, path: str, body: object = None) -> None:
        answer = daemon.request(method, path, body)
        assert answer.status < 300, answer.body

    ask("POST", "/networks/create", {"Name": "app"})
    for number, policy in enumerate(("always", "no", "unless-stopped", "on-failure")):
        body = {
            "Image": "host",
            "Cmd": ["sleep", "1000"],
            "HostConfig": {"NetworkMode": "app", "RestartPolicy": {"Name": policy}},
        }
        ask("POST", f"/containers/create?name=c{number}", body)
    for number in (2, 1, 3, 0):
        ask("POST", f"/containers/c{number}/start")

    def look(of: Daemon) -> dict[str, str]:
        """The addresses of the containers that run."""
        seen = (of.request("GET", f"/containers/c{number}/json").json for number in range(4))
        return {
            one["Name"]: one["NetworkSettings"]["Networks"]["app"]["IPAddress"]
            for one in seen
            if one["State"]["Running"]
        }

    before, network = look(daemon), daemon.request("GET", "/networks/app").json
    assert len(set(before.values())) == 4
    daemon.kill9()
    host.run(["cp", "-a", daemon.data_root, host.directory / "kept"], check=True)
    after = make_host("after")
    daemon.start()  # of the host before, so that it can be cleaned
    again = make_daemon(after, start=False)
    after.run(["cp", "-a", kept, again.data_root], check=True)
    again.start()
    wait_until(lambda: len(look(again)) == 3, lambda: f"containers run again: {look(again)}")
    assert look(again) == {name: address for name, address in before.items() if name != "/c1"}
    seen = again.request("GET", "/networks/app").json
    assert (seen["Id"], seen["IPAM"]["Config"]) == (network["Id"], network["IPAM"]["Config"])
    assert doctor(again) == []
    shutil.rmtree(kept)
