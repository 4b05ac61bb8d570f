"""Churn: many clients at once that create, connect, disconnect and remove, and what is counted before and after.

`rounds` is the load; `Figures` is everything of a daemon and its host that could grow. Used with small numbers by the suite
and with large ones by `scripts/soak --churn`.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.faults.harness import FaultLab

PATIENCE = 30.0
"""Seconds after which a client gives up waiting for an answer."""


class Client:
    """A client that keeps its connection, as the docker CLI and SDKs do. Raises AssertionError for an answer >= 300."""

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self.slowest = 0.0
        """Seconds that an answer took."""
        self._connection: http.client.HTTPConnection | None = None

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
            self._connection.sock = socket.socket(socket.AF_UNIX)
            self._connection.sock.settimeout(PATIENCE)
            self._connection.sock.connect(self._path)
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        began = time.monotonic()
        self._connection.request(method, path, body=data, headers=headers)
        answer = self._connection.getresponse()
        words = answer.read()
        self.slowest = max(self.slowest, time.monotonic() - began)
        assert answer.status < 300, f"{method} {path}: {answer.status} {words.decode(errors='replace')}"
        return json.loads(words) if words.strip() else None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def sandbox(name: str, network: str, *ports: tuple[str, str]) -> tuple[str, dict[str, Any]]:
    """Path and body that create a sandbox without a process; `ports` are (port/protocol, port of the host, "" for any)."""
    bindings = {inner: [{"HostPort": outer}] for inner, outer in ports}
    body = {"Image": "sandbox", "HostConfig": {"NetworkMode": network, "PortBindings": bindings}}
    return f"/containers/create?name={name}", body


def one_round(client: Client, who: int, number: int) -> None:
    """Everything that comes and goes with a container; a network of its own in every fifth round."""
    name = f"c{who}-{number}"
    own = number % 5 == 0
    home = f"n{who}-{number}" if own else "churn-a"
    if own:
        client("POST", "/networks/create", {"Name": home})
    client("POST", *sandbox(name, home, ("80/tcp", ""), ("53/udp", "")))
    client("POST", f"/containers/{name}/start")
    client("POST", "/networks/churn-b/connect", {"Container": name})
    client("POST", "/networks/churn-b/disconnect", {"Container": name})
    client("DELETE", f"/containers/{name}?force=1")
    if own:
        client("DELETE", f"/networks/{home}")


def rounds(
    lab: FaultLab,
    many: int,
    clients: int,
    act: Callable[[Client, int, int], None] = one_round,
    seconds: float = 600,
    slowest: list[float] | None = None,
) -> list[str]:
    """`many` rounds in all by so many clients at once; answers what went wrong. Ends early after `seconds`. `slowest` gets the
    seconds that each client's slowest request took."""
    counter = itertools.count()
    wrong: list[str] = []
    late: list[int] = []
    deadline = time.monotonic() + seconds

    def work(who: int) -> None:
        client = Client(lab.daemon.socket_path)
        try:
            while (number := next(counter)) < many and len(wrong) < 20:
                if time.monotonic() > deadline:
                    if not late:
                        late.append(number)
                        wrong.append(f"{number} of {many} rounds were done after {seconds:g} s")
                    return
                act(client, who, number)
        except Exception as e:
            wrong.append(f"client {who}: {type(e).__name__}: {e}")
        finally:
            client.close()
            if slowest is not None:
                slowest.append(client.slowest)

    threads = [threading.Thread(target=work, args=(who,), name=f"client {who}") for who in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


@contextmanager
def networks(lab: FaultLab, *names: str, subnet: str = "") -> Iterator[None]:
    for name in names:
        ipam = {"IPAM": {"Config": [{"Subnet": subnet}]}} if subnet else {}
        lab.ask("POST", "/networks/create", {"Name": name, **ipam})
    try:
        yield
    finally:
        for name in names:
            lab.ask("DELETE", f"/networks/{name}")


@dataclass(frozen=True)
class Figures:
    """What must not grow. Memory is in KiB and may, a little: allocators keep what they have."""

    memory: int
    names_memory: int
    descriptors: int
    names_descriptors: int
    threads: int
    links: int
    elements: int
    routes: int
    mounts: int
    namespaces: int
    flows: int
    files: int
    rows: int

    def grown(self, since: Figures, memory: int, flows: int = 50) -> list[str]:
        """What is more than before; memory by more than so many KiB, tracked flows by more than `flows`."""
        room = {"memory": memory, "names_memory": memory, "flows": flows, "descriptors": 4, "threads": 8}
        before = asdict(since)
        return [f"{k}: {before[k]} -> {v}" for k, v in asdict(self).items() if v > before[k] + room.get(k, 0)]


def _status(pid: int, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found.group(1))


def name_server(lab: FaultLab) -> int:
    """The PID of the name server."""
    return next(pid for pid, command in lab.here.pids().items() if "netengine.dns" in command)


def figures(lab: FaultLab) -> Figures:
    assert lab.daemon.process is not None
    daemon, names = lab.daemon.process.pid, name_server(lab)
    here = lab.here
    elements = sum(
        table.count(" : ") + table.count(",") for table in re.findall(r"elements = \{([^}]*)\}", here.rules())
    )
    run = here.path("/run/netengine/netns")
    data = here.path(str(lab.daemon.data_root))
    return Figures(
        memory=_status(daemon, "VmRSS"),
        names_memory=_status(names, "VmRSS"),
        descriptors=len(os.listdir(f"/proc/{daemon}/fd")),
        names_descriptors=len(os.listdir(f"/proc/{names}/fd")),
        threads=_status(daemon, "Threads"),
        links=len(here.links()),
        elements=elements,
        routes=len(here.ip("route", "show", "table", "main").splitlines()),
        mounts=len(here.mounts()),
        namespaces=len(list(run.iterdir())),
        flows=int(here.sysctl("net.netfilter.nf_conntrack_count")),
        # The audit trail is kept in as many files as it takes, up to its limit.
        files=sum(not name.startswith("audit.log") for _, _, files in os.walk(data) for name in files),
        rows=_rows(lab),
    )


def _rows(lab: FaultLab) -> int:
    """Rows of all tables of the store; read inside the host, since SQLite would resolve a path through /proc."""
    tables = ("objects", "leases", "intents", "settings")
    select = " + ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    code = f"import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT {select}').fetchone()[0])"
    database = lab.daemon.data_root / "state.db"
    return int(lab.here.run([sys.executable, "-c", code, database], check=True).stdout)
