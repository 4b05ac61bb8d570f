"""Docker's flag grammar."""

from __future__ import annotations

import pytest

from netengine.cli.flags import HelpWanted, many, number, parse, switch, text
from netengine.errors import Invalid

FLAGS = (
    switch("d detach", "x"),
    switch("i interactive", "x"),
    switch("t tty", "x"),
    many("p publish", "PORTS", "x"),
    text("name", "NAME", "x"),
    text("network net", "NAME", "x"),
    number("n last", "N", "x"),
)


def _parse(*words, wrapped=False):
    return parse(FLAGS, words, wrapped=wrapped, about="netengine x")


def test_every_spelling_of_a_value():
    options, rest = _parse("-p80", "-p", "81", "-p=82", "--publish", "83", "--publish=84", "x")
    assert (options.many("publish"), rest) == (["80", "81", "82", "83", "84"], ["x"])


def test_an_older_name_is_the_same_flag():
    assert _parse("--net", "app")[0].text("network") == "app"


def test_switches_join_and_take_a_value_only_after_an_equals_sign():
    options, rest = _parse("-it", "--detach=false", "true")
    assert (options.switch("interactive"), options.switch("tty"), options.switch("detach")) == (True, True, False)
    assert rest == ["true"]


def test_the_last_letter_of_a_group_may_take_the_value():
    options, _ = _parse("-itp", "80")
    assert options.many("publish") == ["80"]


def test_flags_after_arguments_count_unless_the_command_wraps_another():
    assert _parse("host", "-d")[0].switch("detach")
    options, rest = _parse("-i", "host", "ls", "-d", "--name", "--", "x", wrapped=True)
    assert not options.switch("detach")
    assert rest == ["host", "ls", "-d", "--name", "--", "x"]


def test_two_dashes_end_the_flags():
    assert _parse("--", "-d", "--")[1] == ["-d", "--"]


def test_a_value_may_begin_with_a_dash_and_a_lone_dash_is_an_argument():
    options, rest = _parse("--name", "-x", "-n", "-1", "-")
    assert (options.text("name"), options.number("last"), rest) == ("-x", -1, ["-"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nmae", "x"], "unknown flag: --nmae (did you mean --name?)"),
        (["-x"], "unknown shorthand flag: 'x' in -x"),
        (["--name"], "flag needs an argument: --name NAME"),
        (["--detach=perhaps"], "invalid argument 'perhaps' for --detach"),
        (["-n", "many"], "invalid argument 'many' for -n"),
        (["-n", "²"], "whole number"),
    ],
)
def test_mistakes(words, message):
    with pytest.raises(Invalid) as caught:
        _parse(*words)
    assert message in caught.value.message
    assert "netengine x --help" in caught.value.message


def test_help_wins():
    for word in ("--help", "-h"):
        with pytest.raises(HelpWanted):
            _parse(word)
