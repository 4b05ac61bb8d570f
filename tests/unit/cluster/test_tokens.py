"""Join tokens: Docker's form, and what is said of one that is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netengine.cluster import tokens
from netengine.cluster.tokens import Token
from netengine.errors import Forbidden, Invalid

GOOD = str(Token(bytes(range(32)), tokens.make_secret()))


@given(st.binary(min_size=32, max_size=32))
def test_a_token_has_dockers_form_and_comes_back(digest: bytes) -> None:
    token = Token(digest, tokens.make_secret())
    prefix, version, first, second = str(token).split("-")
    assert (prefix, version, len(first), len(second)) == ("SWMTKN", "1", 50, 25)
    assert tokens.parse(f" {token}\n") == token


@given(st.text(max_size=120))
def test_whatever_is_typed_is_a_token_or_invalid(text: str) -> None:
    try:
        assert str(tokens.parse(text)) == text.strip()
    except Invalid:
        pass


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no join token is given"),
        ("secret", "has the form SWMTKN-1-DIGEST-SECRET"),
        (GOOD.replace("SWMTKN-1", "SWMTKN-2"), "version '2'"),
        (GOOD[:-1], "secret has 24 characters, not 25"),
        (GOOD.replace("SWMTKN-1-", "SWMTKN-1-0"), "digest has 51 characters, not 50"),
        (GOOD[:-1] + "Z", "characters other than 0-9 and a-z"),
        ("SWMTKN-1-" + "z" * 50 + "-" + "0" * 25, "no token that a manager made"),
    ],
    ids=["none", "a word", "version", "short", "long", "capital", "too large"],
)
def test_what_is_wrong_with_a_token_is_said_without_its_secret(text: str, words: str) -> None:
    with pytest.raises(Invalid, match="join token") as caught:
        tokens.parse(text)
    assert words in caught.value.message
    assert GOOD[-25:] not in caught.value.message and GOOD[-25:] not in repr(tokens.parse(GOOD))


def test_a_secret_says_the_role_and_an_old_one_is_refused() -> None:
    worker, manager, old = (tokens.make_secret() for _ in range(3))
    assert tokens.role_of(worker, worker, manager) == "worker"
    assert tokens.role_of(manager, worker, manager) == "manager"
    for wrong in (old, "", "ü", worker[:-1]):
        with pytest.raises(Forbidden, match="not, or no longer, one of this cluster"):
            tokens.role_of(wrong, worker, manager)
    with pytest.raises(Forbidden):
        tokens.role_of("", "", "")
