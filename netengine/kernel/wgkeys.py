"""Key pairs of WireGuard: made, and read from the one file that holds the private half.

A private key is bytes on the way from its file to the link, and never text: not in a resource, a message, a log or the store.

Source: the WireGuard paper, section 5.4; RFC 7748, section 5 (any 32 bytes are a private key: X25519 clamps them); wg(8) for
the file's form.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

from netengine.errors import KernelRefused

_SIZE = 32


def make(path: Path) -> str:
    """Write a new private key to a file that root alone may read, in place of what it held; answer the public key in base64."""
    private = os.urandom(_SIZE)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, base64.b64encode(private) + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
    beside.replace(path)
    return public_of(private)


def read(path: Path) -> bytes:
    """The private key in a file, 32 bytes. Raises KernelRefused."""
    try:
        private = base64.b64decode(path.read_bytes().strip(), validate=True)
    except (OSError, binascii.Error) as e:
        raise KernelRefused(f"the host's WireGuard key cannot be read from {path}: {e}") from None
    if len(private) != _SIZE:
        raise KernelRefused(f"the host's WireGuard key cannot be read from {path}: it must be {_SIZE} bytes in base64")
    return private


def public_of(private: bytes) -> str:
    """The public key to a private one, in base64."""
    # Imported when the first encrypted network is made: it takes megabytes that other hosts need not spend.
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = X25519PrivateKey.from_private_bytes(private).public_key()
    return base64.b64encode(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
