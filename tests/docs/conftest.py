"""The switch that writes generated text into the documents instead of comparing it."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-docs", action="store_true", help="write generated text into the documents (tests/docs)")


@pytest.fixture
def write_docs(pytestconfig: pytest.Config) -> bool:
    # Known only when tests/docs was named: pytest reads the options of a deeper conftest.py in no other case.
    return bool(pytestconfig.getoption("--write-docs", default=False))
