"""Fixtures of the client tests: the shared lab and the clients in it. See lab.py."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker as docker_py
import pytest

from tests.clients.lab import Lab
from tests.daemons import Client


class _Labs:
    """The lab of the session; a new one after a test that left something behind."""

    def __init__(self) -> None:
        # Not pytest's tmp_path: `/proc/PID/root` and the data directory must not hang on what pytest keeps around.
        self.directory = Path(tempfile.mkdtemp(prefix="netengine-lab-"))
        self.lab: Lab | None = None
        self.count = 0

    def get(self) -> Lab:
        if self.lab is None:
            self.count += 1
            directory = self.directory / str(self.count)
            directory.mkdir()
            self.lab = Lab(directory)
        return self.lab

    def discard(self) -> None:
        lab, self.lab = self.lab, None
        if lab is not None:
            lab.close(check=False)


@pytest.fixture(scope="session")
def _labs() -> Iterator[_Labs]:
    labs = _Labs()
    yield labs
    try:
        if labs.lab is not None:
            labs.lab.close()
    finally:
        shutil.rmtree(labs.directory, ignore_errors=True)


@pytest.fixture
def lab(_labs: _Labs) -> Iterator[Lab]:
    """The shared machine; whatever the test makes in it is removed afterwards, and must be removable without a trace."""
    found = _labs.get()
    yield found
    try:
        found.reset()
    except BaseException:
        _labs.discard()
        raise


@pytest.fixture
def docker(lab: Lab) -> Client:
    """The real docker CLI."""
    return lab.docker


@pytest.fixture
def netengine(lab: Lab) -> Client:
    """The netengine command."""
    return lab.netengine


@pytest.fixture
def py(lab: Lab) -> Iterator[docker_py.DockerClient]:
    """docker-py."""
    client = docker_py.DockerClient(base_url=lab.daemon.url, timeout=30)
    yield client
    client.close()
