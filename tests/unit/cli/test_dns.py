"""`netengine dns ...`: what it asks the daemon, and what it prints."""

from __future__ import annotations

import json

import pytest

from netengine.cli.dns import duration

STATS = {
    "Sandboxes": [
        {
            "Container": "web",
            "Sandbox": "b" * 64,
            "asked": 1200,
            "answered": 1000,
            "forwarded": 190,
            "failed": 4,
            "refused": 5,
            "dropped": 1,
            "latency_us": {"p50": 58, "p99": 1900},
        },
        {"Container": "db", "Sandbox": "a" * 64, "asked": 0, "answered": 0, "latency_us": {"p50": 0, "p99": 0}},
        {"Container": "", "Sandbox": "c" * 64},
    ],
    "MemoryKiB": 20000,
}


def test_stats_is_a_table_sorted_by_name(engine, cli):
    engine.on("GET /netengine/dns/stats", STATS)
    result = cli("dns", "stats")
    assert (result.status, result.err) == (0, "")
    assert [" ".join(line.split()) for line in result.out.splitlines()] == [
        "CONTAINER ASKED ANSWERED FORWARDED FAILED REFUSED DROPPED P50 P99",
        "cccccccccccc 0 0 0 0 0 0 - -",
        "db 0 0 0 0 0 0 - -",
        "web 1200 1000 190 4 5 1 58µs 1.9ms",
    ]


def test_stats_formats(engine, cli):
    engine.on("GET /netengine/dns/stats", STATS)
    assert cli("dns", "stats", "--format", "{{.Container}} {{.Failed}}").out == "cccccccccccc 0\ndb 0\nweb 4\n"
    rows = [json.loads(line) for line in cli("dns", "stats", "--format", "json").out.splitlines()]
    assert rows[2]["Container"] == "web"
    assert (rows[2]["Asked"], rows[2]["P50"]) == (1200, "58µs")
    table = cli("dns", "stats", "--format", "table {{.Container}}\\t{{.P99}}").out
    assert table.splitlines()[-1] == "web            1.9ms"


def test_stats_of_nobody_is_a_heading(engine, cli):
    engine.on("GET /netengine/dns/stats", {"Sandboxes": [], "MemoryKiB": 1})
    assert cli("dns", "stats").out.startswith("CONTAINER ")


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "-"),
        (7, "7µs"),
        (999, "999µs"),
        (1000, "1ms"),
        (1234, "1.23ms"),
        (45_678, "45.7ms"),
        (456_789, "457ms"),
        (2_500_000, "2.5s"),
    ],
)
def test_duration(microseconds, text):
    assert duration(microseconds) == text


def test_query_prints_the_answer_then_why(engine, cli):
    lines = ["web is on network app", "db is a name of endpoint 0123"]
    engine.on(
        "GET /netengine/dns/query",
        {"Rcode": "NOERROR", "Records": ["db. 600 IN A 10.1.0.2", "db. 600 IN A 10.1.0.3"], "Lines": lines},
    )
    result = cli("dns", "query", "db", "--from", "web")
    assert (result.status, result.err) == (0, "")
    assert result.out.splitlines() == [
        *("db. 600 IN A 10.1.0.2", "db. 600 IN A 10.1.0.3"),
        *("# web is on network app", "# db is a name of endpoint 0123"),
    ]
    (request,) = engine.asked("GET /netengine/dns/query")
    assert request.query == {"name": ["db"], "from": ["web"], "type": ["A"]}


@pytest.mark.parametrize(
    ("rcode", "first", "status"),
    [("NOERROR", "NOERROR, no records", 0), ("NXDOMAIN", "NXDOMAIN", 1), ("SERVFAIL", "SERVFAIL", 1)],
)
def test_query_without_records_says_the_response_code(engine, cli, rcode, first, status):
    engine.on("GET /netengine/dns/query", {"Rcode": rcode, "Records": [], "Lines": ["because"]})
    result = cli("dns", "query", "--type", "aaaa", "--from=web", "db")
    assert (result.out.splitlines(), result.status) == ([first, "# because"], status)
    assert engine.asked("GET /netengine/dns/query")[0].query["type"] == ["AAAA"]


@pytest.mark.parametrize(
    ("words", "name", "kind"),
    [
        (["172.18.0.2"], "2.0.18.172.in-addr.arpa", "PTR"),
        (["172.18.0.2", "--type", "ptr"], "2.0.18.172.in-addr.arpa", "PTR"),
        (["2.0.18.172.in-addr.arpa", "--type", "PTR"], "2.0.18.172.in-addr.arpa", "PTR"),
        (["172.18.0.2", "--type", "A"], "172.18.0.2", "A"),
        (["db"], "db", "A"),
    ],
)
def test_query_of_an_address_looks_up_its_name(engine, cli, words, name, kind):
    engine.on("GET /netengine/dns/query", {"Rcode": "NOERROR", "Records": ["x"], "Lines": []})
    assert cli("dns", "query", "--from", "web", *words).status == 0
    assert engine.asked("GET /netengine/dns/query")[0].query == {"name": [name], "from": ["web"], "type": [kind]}


def test_what_a_foreign_server_wrote_does_not_drive_the_terminal(engine, cli):
    engine.on("GET /netengine/dns/query", {"Rcode": "NOERROR", "Records": ["x TXT \x1b[2J"], "Lines": ["a\nb"]})
    assert cli("dns", "query", "x", "--from", "web").out == "x TXT \\x1b[2J\n# a\\nb\n"


def test_query_wants_to_know_who_asks(engine, cli):
    result = cli("dns", "query", "db")
    assert result.status == 1
    assert "--from CONTAINER" in result.err
    assert engine.requests == []


def test_refusals_are_the_daemons(engine, cli):
    engine.refuse("GET /netengine/dns/query", 404, "No such container: nope")
    result = cli("dns", "query", "db", "--from", "nope")
    assert result.status == 1
    assert "No such container: nope" in result.err
