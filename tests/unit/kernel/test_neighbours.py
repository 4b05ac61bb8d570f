"""Asking the kernel how full its neighbour tables are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from netengine.kernel.surroundings import NeighbourTable, neighbours


def test_of_a_thousand_links_parts_of_the_table_none_is_read() -> None:
    """It is asked at each connect from some hundred endpoints on: what it costs must not grow with the links."""
    asked: list[Any] = []
    table = {"NDTA_THRESH3": 1024, "NDTA_CONFIG": {"entries": 7}}

    def dump(message: Any, most: int | None = None) -> list[Any]:
        asked.append(most)
        return [SimpleNamespace(get_attr=table.get)]

    kernel: Any = SimpleNamespace(socket_in=lambda ns: SimpleNamespace(dump=dump))
    assert neighbours(kernel, 4) == NeighbourTable(7, 1024)
    assert asked == [1]
