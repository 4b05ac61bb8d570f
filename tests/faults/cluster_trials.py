"""What is done to managers and to the disks below their stores while a cluster is under load: `scripts/soak --cluster`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.clients.swarms import ADDRESS, RUN
from tests.faults.clusters import NET, Deed, Trial
from tests.hosts import wait_until

# -- what is done to managers -----------------------------------------------------------------------------------------


def managers(directory: Path, rounds: int, seed: int) -> dict[str, Deed]:
    """Five managers: roles change, the leader is killed, two of five are lost and back."""
    with Trial(directory, 5, 5, seed) as trial:
        return trial.run(MANAGERS, rounds)


def _demote_the_leader_and_promote_it(trial: Trial) -> None:
    leader = trial.leader()
    other = trial.random.choice([m for m in trial.managers() if m != leader])
    trial.docker(other, "node", "demote", leader)
    wait_until(lambda: leader not in trial.managers(), "it is a worker", 30)
    wait_until(lambda: not trial.swarm.info(leader)["ControlAvailable"], "it knows", 30)
    trial.changes_go_on()
    trial.docker(other, "node", "promote", leader)
    wait_until(lambda: leader in trial.managers(), "it is a manager", 60)


def _down_to_three_and_back(trial: Trial) -> None:
    two = trial.random.sample([m for m in trial.managers() if m != trial.leader()], 2)
    trial.docker(trial.leader(), "node", "demote", *two)
    wait_until(lambda: len(trial.managers()) == 3, "three managers", 30)
    wait_until(lambda: not any(trial.swarm.info(h)["ControlAvailable"] for h in two), "they know", 30)
    trial.changes_go_on()
    trial.docker(trial.leader(), "node", "promote", *two)
    wait_until(lambda: len(trial.managers()) == 5, "five managers", 90)


def _kill_the_leader(trial: Trial) -> None:
    leader = trial.leader()
    with trial.away(leader):
        trial.changes_go_on()


def _kill_every_etcd(trial: Trial) -> None:
    for host in trial.managers():
        trial.swarm.kill_etcd(host)


def _kill_every_daemon(trial: Trial) -> None:
    """At once, and each is started again: within its lease."""

    def again(host: str) -> None:
        trial.kill_daemon(host)
        trial.swarm.start_daemon(host)

    with ThreadPoolExecutor() as pool:
        list(pool.map(again, trial.swarm.hosts))


def _lose_two_of_five(trial: Trial) -> None:
    """Their etcd and their daemons, for longer than a lease: they are Down, and everything goes on but the way to them."""
    two = trial.random.sample(trial.managers(), 2)
    with trial.away(*two):
        trial.withdrawn = set(two)
        wait_until(lambda: trial.down() == set(two), lambda: str(trial.shown()), 60)
        trial.changes_go_on()


def _lose_three_of_five(trial: Trial) -> None:
    """The majority, which hangs: changes are refused at once, and go on with it."""
    three = trial.random.sample(trial.managers(), 3)
    for host in three:
        trial.swarm.kill_etcd(host, "STOP")
    try:
        (left, *_) = (h for h in trial.swarm.hosts if h not in three)
        wait_until(
            lambda: "majority" in trial.swarm._docker(left, "network", "create", "-d", "overlay", "x").stderr, "503", 60
        )
        began = time.monotonic()
        trial.swarm.refused(left, "network", "create", "-d", "overlay", "x")
        assert time.monotonic() - began < 5, f"a refusal took {time.monotonic() - began:.1f} s"
    finally:
        for host in three:
            trial.swarm.kill_etcd(host, "CONT")


MANAGERS: dict[str, Callable[[Trial], None]] = {
    "the leader demoted and promoted": _demote_the_leader_and_promote_it,
    "five managers, three, five": _down_to_three_and_back,
    "the leader killed": _kill_the_leader,
    "every etcd killed": _kill_every_etcd,
    "every daemon killed": _kill_every_daemon,
    "two of five lost and back": _lose_two_of_five,
    "three of five hang": _lose_three_of_five,
}

# -- what is done to the disks below their stores ---------------------------------------------------------------------

_IMAGE, _DISK = "/run/disk.img", "/run/disk"
_FREEZE = """
import fcntl, os, sys, time
path, frozen, free, times = sys.argv[1], *map(float, sys.argv[2:])
at = os.open(path, os.O_RDONLY)
for number in range(int(times)):
    fcntl.ioctl(at, 0xC0045877, 0)  # FIFREEZE
    try:
        print("frozen" if not number else "", flush=True)
        time.sleep(frozen)
    finally:
        fcntl.ioctl(at, 0xC0045878, 0)  # FITHAW
    time.sleep(free)
"""


class Disks:
    """The disks of a trial's three managers."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        for host in ("h1", "h2", "h3"):
            self._move(host)
            trial.swarm.start_daemon(host)
            trial.await_all_ready()

    def _move(self, host: str) -> None:
        """What etcd keeps, to a file system of its own, that can be frozen: whoever writes or syncs then waits, as for a slow
        disk."""
        swarm, kept = self._trial.swarm, self._path(host)
        swarm.lab("exec", host, "truncate", "-s", "500M", _IMAGE)
        swarm.lab("exec", host, "mkfs.ext4", "-q", _IMAGE)
        swarm.lab("exec", host, "mkdir", _DISK)
        swarm.lab("exec", host, "mount", "-o", "loop", _IMAGE, _DISK)
        self._trial.kill_daemon(host)
        swarm.kill_etcd(host)
        wait_until(lambda: not swarm.etcd_pid(host), "it has no etcd", 30)
        swarm.lab("exec", host, "cp", "-a", f"{kept}/.", _DISK)
        swarm.lab("exec", host, "chown", f"--reference={kept}", _DISK)
        swarm.lab("exec", host, "chmod", f"--reference={kept}", _DISK)
        swarm.lab("exec", host, "mount", "--move", _DISK, kept)

    def _path(self, host: str) -> str:
        return f"{RUN}/{host}/data/cluster/etcd"

    @contextmanager
    def hang(self, *hosts: str, frozen: float, free: float = 0.2, times: int = 1) -> Iterator[None]:
        """`times` for `frozen` seconds while the block lasts, and until that is over."""
        swarm, words = self._trial.swarm, (str(frozen), str(free), str(times))
        argv = [swarm.argv(host, "python3", "-c", _FREEZE, self._path(host), *words) for host in hosts]
        frost = [swarm.machine.popen(one) for one in argv]
        for one in frost:
            assert one.popen.stdout is not None and one.popen.stdout.readline() == b"frozen\n"
        try:
            yield
        finally:
            ended = [one.wait(frozen * times + 60) for one in frost]
        assert not any(ended), f"the freezing ended with {ended}"


def disks(directory: Path, rounds: int, seed: int) -> dict[str, Deed]:
    """Three managers whose stores wait for their disks, and a worker."""
    with Trial(directory, 4, 3, seed) as trial:
        return trial.run(DISKS, rounds, Disks(trial))


def _hang_the_leaders(trial: Trial, slow: Disks) -> None:
    with slow.hang(trial.leader(), frozen=3, times=4):
        pass


def _hang_all_in_turns(trial: Trial, slow: Disks) -> None:
    with slow.hang("h1", "h2", "h3", frozen=1, times=10):
        trial.changes_go_on()


def _hang_the_leaders_past_a_lease(trial: Trial, slow: Disks) -> None:
    """The others elect another and go on, with its host too. It does not hear of that before its disk is back."""
    leader = trial.leader()
    with slow.hang(leader, frozen=25):
        other = wait_until(lambda: trial.leader_beside(leader), "another leader", 30)
        trial.docker(other, "network", "create", "-d", "overlay", "--attachable", "beside")
        wait_until(
            lambda: "beside" in trial.docker(leader, "network", "ls", "--format", "{{.Name}}"),
            lambda: f"{leader} hears of what happens while its disk hangs{trial.swarm.log(leader)}",
            15,
        )
        trial.changes_go_on()
        trial.docker(other, "network", "rm", "beside")


def _hang_all_past_a_lease(trial: Trial, slow: Disks) -> None:
    with slow.hang("h1", "h2", "h3", frozen=25):
        _see_a_refusal(trial)
    trial.changes_go_on()
    trial.swarm._docker("h1", "network", "rm", "never")  # which the store may have done all the same


def _hang_all_the_leaders_first(trial: Trial, slow: Disks) -> None:
    """So that there are two who believe that they lead."""
    leader = trial.leader()
    others = [h for h in ("h1", "h2", "h3") if h != leader]
    with slow.hang(leader, frozen=28):
        wait_until(lambda: trial.leader_beside(leader), "another leader", 30)
        with slow.hang(*others, frozen=25):
            _see_a_refusal(trial)
    trial.changes_go_on()
    trial.swarm._docker("h1", "network", "rm", "never")  # which the store may have done all the same


def _see_a_refusal(trial: Trial) -> None:
    """Of a change, in time."""
    began = time.monotonic()
    said = trial.swarm._docker("h1", "network", "create", "-d", "overlay", "never").stderr
    took = time.monotonic() - began
    assert "majority" in said and took < 10, f"while no disk writes: {said!r} after {took:.1f} s"


def _join_meanwhile(trial: Trial, slow: Disks) -> None:
    swarm = trial.swarm
    join = ("swarm", "join", "--token", swarm.token("h1"), ADDRESS.format(1))
    trial.withdrawn = trial.load.excused = {"h4"}

    def joined() -> bool:
        if swarm._docker("h4", *join).returncode == 0:
            return True
        assert swarm.is_alone("h4"), f"h4 is neither in nor out: {swarm.info('h4')} {swarm.files_of('h4')}"
        return False

    with slow.hang("h1", "h2", "h3", frozen=2, times=8):
        swarm.docker("h4", "swarm", "leave")
        wait_until(joined, lambda: f"it has joined{swarm.log('h4')}", 90)
    own = swarm.info("h4")["NodeID"]
    for line in swarm.docker("h1", "node", "ls", "--format", "{{.ID}} {{.Hostname}}").splitlines():
        node, name = line.split()
        if name == "h4" and node != own:  # what h4 was before
            swarm.docker("h1", "node", "rm", "--force", node)
    trial.connect_again("h4")
    trial.load.excused = set()


def _promote_and_demote_meanwhile(trial: Trial, slow: Disks) -> None:
    said: list[str] = []

    def done(*words: str) -> bool:
        answer = trial.swarm._docker("h1", "node", *words)
        said.append(answer.stderr.strip())
        return answer.returncode == 0

    with slow.hang("h1", "h2", "h3", frozen=1.5, times=12):
        wait_until(lambda: done("promote", "h4"), lambda: f"promoted: {said[-3:]}", 60)
        wait_until(lambda: "h4" in trial.managers(), "it is a manager", 90)
        wait_until(lambda: done("demote", "h4"), lambda: f"demoted: {said[-3:]}", 60)
        wait_until(lambda: "h4" not in trial.managers(), "it is a worker", 60)
    wait_until(lambda: not trial.swarm.etcd_pid("h4"), "it has no etcd", 30)


DISKS: dict[str, Callable[[Trial, Disks], None]] = {
    "the leader's disk hangs four times for 3 s": _hang_the_leaders,
    "the leader's disk hangs for 25 s": _hang_the_leaders_past_a_lease,
    "every disk hangs ten times for 1 s": _hang_all_in_turns,
    "every disk hangs for 25 s": _hang_all_past_a_lease,
    "every disk hangs for 25 s, the leader's first": _hang_all_the_leaders_first,
    "a worker leaves and joins while every disk hangs": _join_meanwhile,
    "a worker is promoted and demoted while every disk hangs": _promote_and_demote_meanwhile,
}

# -- what is done to cables and whole hosts ---------------------------------------------------------------------------


def cables(directory: Path, rounds: int, seed: int) -> dict[str, Deed]:
    """Three managers and two workers, cut off from each other, and one of them gone for good."""
    with Trial(directory, 5, 3, seed) as trial:
        return trial.run(CABLES, rounds)


def _cut_off_for_a_moment(trial: Trial) -> None:
    """For less than a lease: nobody withdraws it, and packets go on with the cable."""
    trial.unheard = {"h5"}
    with trial.cut("h5", trial.swarm.hosts[:4]):
        trial.changes_go_on()
    trial.await_reach("h5", seconds=5)


def _cut_off_past_its_lease(trial: Trial) -> None:
    trial.withdrawn = {"h5"}
    with trial.cut("h5", trial.swarm.hosts[:4]):
        wait_until(lambda: trial.down() == {"h5"}, lambda: str(trial.shown()), 60)
        trial.changes_go_on()
    trial.await_reach("h5", seconds=30)


def _cut_off_the_leader(trial: Trial) -> None:
    """From everybody, for longer than its lease: the others elect another."""
    leader = trial.leader()
    trial.withdrawn = {leader}
    with trial.cut(leader, [h for h in trial.swarm.hosts if h != leader]):
        wait_until(lambda: trial.leader_beside(leader), "another leader", 30)
        wait_until(lambda: trial.changes_at(leader) == 503, f"{leader} refuses changes", 30)
    trial.await_reach(leader, seconds=30)


def _cut_two_managers_from_each_other(trial: Trial) -> None:
    """Both reach the third, so that all three stay."""
    trial.unheard = {"h1", "h2"}
    with trial.cut("h1", ["h2"]):
        trial.changes_go_on()
        wait_until(lambda: not trial.down(), lambda: str(trial.shown()), 30)
    trial.await_reach("h1", seconds=10)


def _gone_for_good(trial: Trial) -> None:
    """A host dies and is forgotten: its addresses are others' to have. One of its name comes new."""
    swarm, old = trial.swarm, trial.addresses["h5"]
    trial.withdrawn = trial.load.excused = {"h5"}
    with trial.away("h5"):
        wait_until(lambda: trial.down() == {"h5"}, lambda: str(trial.shown()), 60)
        swarm.docker("h1", "node", "rm", "h5")
        wait_until(lambda: all(old not in trial.entries(h) for h in swarm.hosts[:4]), "its entries are gone", 30)
        wait_until(lambda: swarm._docker("h4", "run", "--rm", "--network", NET, "--ip", old, "host", "true").returncode == 0,
                   f"{old} is had by another", 60)  # fmt: skip
    wait_until(lambda: "was removed" in swarm.info("h5")["Error"], lambda: str(swarm.info("h5")), 60)
    swarm.docker("h5", "swarm", "leave", "--force")
    swarm.docker("h5", "swarm", "join", "--token", swarm.token("h1"), ADDRESS.format(1))
    trial.connect_again("h5")
    trial.load.excused = set()
    trial.await_reach("h5", seconds=30)


CABLES: dict[str, Callable[[Trial], None]] = {
    "a worker cut off for less than its lease": _cut_off_for_a_moment,
    "a worker cut off past its lease": _cut_off_past_its_lease,
    "the leader cut off past its lease": _cut_off_the_leader,
    "two managers cut off from each other": _cut_two_managers_from_each_other,
    "a host gone for good, and one of its name anew": _gone_for_good,
}

TRIALS: dict[str, Callable[[Path, int, int], dict[str, Deed]]] = {
    "managers": managers,
    "disks": disks,
    "cables": cables,
}


def main() -> int:
    words = argparse.ArgumentParser(description="Clusters under load while their managers, disks and cables fail.")
    words.add_argument("--cluster", action="store_true")
    words.add_argument("--rounds", type=int, default=1, help="how often each thing is done (default 1)")
    words.add_argument("--only", default="", metavar="TEXT", help="only trials with TEXT in their name")
    words.add_argument("--seed", type=int, default=1)
    given = words.parse_args()
    bad = 0
    for name, trial in TRIALS.items():
        if given.only not in name:
            continue
        directory = Path(tempfile.mkdtemp(prefix=f"soak-{name}-"))
        try:
            table = trial(directory, given.rounds, given.seed)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        print(f"\n| {name} | times | went wrong | changes went on after, longest |\n| --- | --- | --- | --- |")
        for deed in table.values():
            longest = f"{max(deed.seconds):.1f} s" if deed.seconds else ""
            print(f"| {deed.what} | {len(deed.seconds)} | {len(deed.wrong)} | {longest} |")
            bad += len(deed.wrong)
        for line in (f"{deed.what}: {line}" for deed in table.values() for line in deed.wrong):
            print(line)
    return min(bad, 99)


if __name__ == "__main__":
    sys.exit(main())
