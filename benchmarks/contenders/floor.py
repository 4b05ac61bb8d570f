"""The floor: a C program that does by raw netlink what the kernel cannot be spared."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.contenders.base import FIRST_PORT, Contender, namespaces, run

SOURCE = Path(__file__).with_name("floor.c")


class Floor(Contender):
    """The program measures itself, so that getting to it is not in the figure."""

    name = "C floor"

    @staticmethod
    def missing() -> str:
        return "" if shutil.which("cc") else "C floor: no compiler (Debian: gcc and libc6-dev)"

    def prepare(self, count: int) -> None:
        namespaces(count)
        for words in ("link add br0 type bridge", "addr add 10.7.0.1/16 dev br0", "link set br0 up"):
            run(["ip", *words.split()])
        table = "add table ip t\nadd map ip t ports { type inet_proto . inet_service : ipv4_addr . inet_service; }\n"
        run(["nft", "-f", "-"], stdin=table.encode())
        with tempfile.TemporaryDirectory() as directory:
            program = str(Path(directory) / "floor")
            run(["cc", "-O2", "-o", program, str(SOURCE)])
            self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._ask("ports 0 0")  # it runs: the file is no longer needed

    def _ask(self, line: str) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        try:
            return float(answer)
        except ValueError:
            raise RuntimeError(f"{line}: {answer.decode(errors='replace')}") from None

    def attach(self, n: int) -> float:
        return self._ask(f"attach {n}")

    def detach(self, n: int) -> float:
        return self._ask(f"detach {n}")

    def port(self, n: int) -> float:
        return self._ask(f"port {n} {FIRST_PORT + n}")

    def ports(self, first: int, count: int) -> float:
        """Publish `count` ports from `first` on."""
        return self._ask(f"ports {first} {count}")
