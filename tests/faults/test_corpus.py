"""A store that was tampered with: whatever it holds, the daemon starts, says what it left out, and keeps the rest working."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tests.daemons import Daemon
from tests.hosts import Host

CORPUS = Path(__file__).parent.parent / "corpus" / "database.sql"


THINGS = (
    "/containers/box?force=1",
    "/containers/idle?force=1",
    "/networks/net-a",
    "/networks/net-b",
    "/networks/net-c",
)
_SQLITE = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute(sys.argv[2])"


def _execute(daemon: Daemon, statement: str) -> None:
    # Bodies are blobs, which SQLite's JSON functions do not take.
    words = statement.rstrip(";").replace("(body,", "(CAST(body AS TEXT),")
    daemon.host.run([sys.executable, "-c", _SQLITE, f"{daemon.data_root}/state.db", words], check=True)


def _prepare(daemon: Daemon) -> None:
    for number, name in enumerate(("net-a", "net-b", "net-c"), 51):
        pool = {"Config": [{"Subnet": f"10.{number}.0.0/24"}]}
        if daemon.request("GET", f"/networks/{name}").status == 404:
            assert daemon.request("POST", "/networks/create", {"Name": name, "IPAM": pool}).status == 201
    for name, network in (("box", "net-a"), ("idle", "net-b")):
        if daemon.request("GET", f"/containers/{name}/json").status == 404:
            body = {"Image": "sandbox", "HostConfig": {"NetworkMode": network}}
            assert daemon.request("POST", f"/containers/create?name={name}", body).status == 201
    assert daemon.request("POST", "/containers/box/start").status in (204, 304)


def test_whatever_the_store_holds_the_daemon_starts(host: Host, make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(host)
    wrong = []
    for group in CORPUS.read_text().split("\n\n"):
        statements = [line for line in group.splitlines() if line and not line.startswith("--")]
        _prepare(daemon)
        daemon.stop()
        _execute(daemon, "DELETE FROM objects WHERE length(id) < 64")  # of the statement before
        for statement in statements:
            _execute(daemon, statement)
        try:
            daemon.start()
        except AssertionError as error:
            wrong.append(f"{statements}\n{str(error)[-600:]}")
            _execute(daemon, "DELETE FROM objects")
            _execute(daemon, "DELETE FROM leases")
            daemon.start()
            continue
        for path in ("/networks", "/containers/json?all=1", "/netengine/doctor", "/info"):
            answer = daemon.request("GET", path)
            if answer.status != 200:
                wrong.append(f"{statements}\n{path}: {answer.status} {answer.body!r}")
        found = daemon.request("GET", "/netengine/doctor").json["Differences"]
        wrong += [f"{statements}\n{one}" for one in found]
        for path in THINGS:
            answer = daemon.request("DELETE", path)
            if answer.status not in (200, 204, 404):
                wrong.append(f"{statements}\nDELETE {path}: {answer.status} {answer.body!r}")
    assert not wrong, "\n\n".join(wrong)
