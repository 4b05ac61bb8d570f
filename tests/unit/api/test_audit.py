"""What a record says of a request, and which requests have one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from netengine.api import audit


@pytest.mark.parametrize(
    ("method", "path", "change"),
    [
        ("GET", "/networks", False),
        ("HEAD", "/_ping", False),
        ("POST", "/networks/create", True),
        ("DELETE", "/containers/web", True),
        ("POST", "/containers/web/wait", False),
        ("POST", "/exec/1/resize", False),
        ("POST", "/containers/web/attach", True),
    ],
)
def test_what_is_a_change(method: str, path: str, change: bool) -> None:
    assert audit.is_change(SimpleNamespace(method=method, path=path)) is change  # type: ignore[arg-type]


def test_secrets_of_the_environment_are_not_written_down() -> None:
    text = audit.asked({"Image": "app", "Env": ["TOKEN=s3cret", "DEBUG"]})
    assert text == '{"Image":"app","Env":["TOKEN=...","DEBUG=..."]}'
    assert audit.asked({"Env": "s3cret"}) == '{"Env":"..."}'
    assert audit.asked({"JoinToken": "s3cret", "RemoteAddrs": ["a"]}) == '{"JoinToken":"...","RemoteAddrs":["a"]}'
    assert "s3cret" not in audit.asked({"Spec": {"CAConfig": {"SigningCAKey": "s3cret"}}})
    assert len(audit.asked({"Cmd": ["x" * 5000]})) == 1024


def test_a_subject_is_shown_most_specific_first() -> None:
    certificate = {"subject": ((("organizationName", "example"),), (("commonName", "alice"),)), "serialNumber": "0A"}
    assert audit.remote(certificate, ("192.0.2.2", 4711)) == {
        "subject": "CN=alice, O=example",
        "serial": "0A",
        "from": "192.0.2.2 port 4711",
    }
    assert audit.subject({}) == "(no subject)"
