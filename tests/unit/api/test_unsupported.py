"""Fields of Docker's that netengine does not have: refused or warned about, never silently dropped."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from netengine.api import unsupported
from netengine.api.unsupported import check
from netengine.errors import Invalid
from netengine.model import HostConfig


@pytest.mark.parametrize("name", sorted(unsupported._REFUSED_HOST))
def test_what_is_refused_says_why(name: str) -> None:
    with pytest.raises(Invalid, match=f"^HostConfig.{name} is not supported by netengine: "):
        check({"HostConfig": {name: ["something"]}})


@pytest.mark.parametrize("name", unsupported._WARNED_HOST)
def test_what_is_ignored_is_warned_about(name: str) -> None:
    assert check({"HostConfig": {name: 5}}) == [f"HostConfig.{name} is not supported by netengine and was ignored"]


@pytest.mark.parametrize("name", unsupported._WARNED_CONFIG)
def test_so_it_is_with_the_configuration(name: str) -> None:
    assert check({name: {"x": 1}}) == [f"Config.{name} is not supported by netengine and was ignored"]


@pytest.mark.parametrize("value", [None, "", 0, -1, False, [], {}])
def test_a_default_is_no_wish(value: Any) -> None:
    """docker sends every field."""
    fields = {*unsupported._REFUSED_HOST, *unsupported._WARNED_HOST}
    assert check({"HostConfig": dict.fromkeys(fields, value), **dict.fromkeys(unsupported._WARNED_CONFIG, value)}) == []


def test_without_a_host_configuration() -> None:
    assert check({}) == check({"HostConfig": None}) == []


def test_a_host_configuration_that_is_none() -> None:
    with pytest.raises(Invalid, match="HostConfig"):
        check({"HostConfig": [1]})


def test_the_host_s_user_namespace_is_what_there_is() -> None:
    assert check({"HostConfig": {"UsernsMode": "host"}}) == []


@pytest.mark.parametrize(
    ("host", "warned"),
    [
        ({"LogConfig": {"Type": "json-file", "Config": {}}}, False),
        ({"LogConfig": {"Type": "", "Config": None}}, False),
        ({"LogConfig": {"Type": "syslog"}}, True),
        ({"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}}, True),
    ],
)
def test_logs_are_kept_in_one_way(host: dict[str, Any], warned: bool) -> None:
    assert bool(check({"HostConfig": host})) is warned


def test_another_runtime_is_refused() -> None:
    with pytest.raises(Invalid, match=r"HostConfig.Runtime 'kata' is not supported by netengine: it has runc"):
        check({"HostConfig": {"Runtime": "kata"}})
    assert check({"HostConfig": {"Runtime": "runc"}}) == []


def test_control_group_namespaces() -> None:
    assert check({"HostConfig": {"CgroupnsMode": "private"}}) == []
    assert len(check({"HostConfig": {"CgroupnsMode": "host"}})) == 1
    with pytest.raises(Invalid, match=r"invalid HostConfig.CgroupnsMode 'x'"):
        check({"HostConfig": {"CgroupnsMode": "x"}})


def test_no_field_is_both_refused_and_warned_about_or_supported() -> None:
    known = {field.encode_name for field in msgspec.structs.fields(HostConfig)}
    lists = [set(unsupported._REFUSED_HOST), set(unsupported._WARNED_HOST), known]
    assert not lists[0] & lists[1] and not (lists[0] | lists[1]) & known
