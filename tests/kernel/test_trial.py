"""The trials of kernel features, on the real kernel: they pass where netengine works, and leave the host as it was."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from netengine import trial


def surroundings() -> tuple[list[str], str, str]:
    links = sorted(os.listdir("/sys/class/net"))
    return links, Path("/proc/self/mountinfo").read_text(), os.readlink("/proc/self/ns/net")


def test_all_features_work_here_and_nothing_is_left() -> None:
    before = surroundings()
    assert trial.run(shutil.which("nft", path="/usr/sbin:/usr/bin")) == {}
    assert surroundings() == before


def test_a_feature_that_fails_is_named_with_the_kernel_s_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LINKS", ("bridge", "no-such-kind"))
    monkeypatch.setattr(trial, "NFT_RULES", {**trial.NFT_RULES, "nft_none": "table ip trial { flags no-such-flag; }"})
    failures = trial.run(shutil.which("nft", path="/usr/sbin:/usr/bin"))
    assert failures.keys() == {"no-such-kind", "nft_none"}
    assert failures["no-such-kind"] == "Operation not supported"


def test_a_trial_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "DEADLINE_SECONDS", 0.1)
    monkeypatch.setattr(trial, "_try_all", lambda nft: os.read(os.pipe()[0], 1))
    assert trial.run(None) == {"trial": "no answer within 0 s"}
