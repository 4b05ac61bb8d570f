"""Join tokens, in Docker's form: SWMTKN-1-DIGEST-SECRET.

DIGEST is the SHA-256 of the cluster's root certificate, so that a joiner knows whom to trust before it sends anything; SECRET
says that it may join, and as what. Both are base 36, of fixed width. No I/O here, and no certificates.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field

from netengine.cluster.records import MANAGER, WORKER
from netengine.errors import Forbidden, Invalid

PREFIX, VERSION = "SWMTKN", "1"
DIGEST_LENGTH, SECRET_LENGTH = 50, 25
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_DIGEST_BYTES, _SECRET_BYTES = 32, 16
_WHERE = 'copy it whole from "docker swarm join-token worker" or "docker swarm join-token manager" on a manager'


@dataclass(frozen=True, slots=True)
class Token:
    """What a join token says: the SHA-256 of the root certificate (DER) and the secret, 25 digits of base 36."""

    digest: bytes
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"{PREFIX}-{VERSION}-{_encoded(self.digest, DIGEST_LENGTH)}-{self.secret}"


def make_secret() -> str:
    """16 random bytes as 25 digits. A cluster has two, one for workers and one for managers; a new one rotates the token."""
    return _encoded(secrets.token_bytes(_SECRET_BYTES), SECRET_LENGTH)


def parse(text: str) -> Token:
    """Raises Invalid, which never quotes the secret."""
    if not text.strip():
        raise Invalid(f"no join token is given: {_WHERE}")
    parts = text.strip().split("-")
    if parts[0] != PREFIX or len(parts) != 4:
        raise Invalid(f"this is no join token, which has the form {PREFIX}-{VERSION}-DIGEST-SECRET: {_WHERE}")
    _, version, digest, secret = parts
    if version != VERSION:
        raise Invalid(f"the join token is of version {version[:10]!a}; only version {VERSION} is understood")
    for name, digits, length in (("digest", digest, DIGEST_LENGTH), ("secret", secret, SECRET_LENGTH)):
        if len(digits) != length:
            raise Invalid(f"the join token's {name} has {len(digits)} characters, not {length}: {_WHERE}")
        if not set(digits) <= set(_DIGITS):
            raise Invalid(f"the join token's {name} has characters other than 0-9 and a-z: {_WHERE}")
    number = int(digest, 36)
    if number >= 1 << (8 * _DIGEST_BYTES) or int(secret, 36) >= 1 << (8 * _SECRET_BYTES):
        raise Invalid(f"the join token is no token that a manager made: {_WHERE}")
    return Token(number.to_bytes(_DIGEST_BYTES, "big"), secret)


def role_of(secret: str, worker: str, manager: str) -> str:
    """As what the secret lets its holder join. Raises Forbidden. Takes the same time whichever character is wrong."""
    given = secret.encode("utf-8", "replace")
    is_worker = hmac.compare_digest(given, worker.encode())
    is_manager = hmac.compare_digest(given, manager.encode())
    if is_manager and manager:
        return MANAGER
    if is_worker and worker:
        return WORKER
    raise Forbidden(
        "the join token's secret is not, or no longer, one of this cluster: ask a manager for the token of today"
    )


def _encoded(raw: bytes, width: int) -> str:
    number, digits = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits.rjust(width, "0")
