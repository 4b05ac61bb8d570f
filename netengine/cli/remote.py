"""The way to a daemon on another machine: `tcp://HOST[:PORT]`, always with TLS and certificates on both sides.

Imported when such a host is asked for, and only then: `ssl` costs as much start-up time as everything else here together.
`Secured` stands in for a socket. It is not ssl.SSLSocket, since that cannot be read by one thread while another writes, and has
no way to end one direction: a container's standard input must end while its output still comes.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading

from netengine.cli.transport import BLOCK, Unreachable
from netengine.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PORT = 2376
"""Docker's port for TLS."""

_PATIENCE = 15.0
"""Seconds for a connection and its handshake."""


class Certificates:
    """The files by which both sides know each other: `ca` signed the daemon's, `cert` and `key` are the client's own."""

    __slots__ = ("ca", "cert", "key")

    def __init__(self, ca: str, cert: str, key: str) -> None:
        self.ca, self.cert, self.key = ca, cert, key

    @classmethod
    def given(cls, ca: str, cert: str, key: str, environment: Mapping[str, str]) -> Certificates:
        """Those of the flags; for each that is "" the file in the directory that the environment names."""
        directory = environment.get("NETENGINE_CERT_PATH", "") or os.path.expanduser("~/.netengine")
        return cls(ca or f"{directory}/ca.pem", cert or f"{directory}/cert.pem", key or f"{directory}/key.pem")

    def context(self) -> ssl.SSLContext:
        for path, flag in ((self.ca, "tlscacert"), (self.cert, "tlscert"), (self.key, "tlskey")):
            try:
                with open(path, "rb"):
                    pass
            except OSError as e:
                raise Invalid(
                    f"cannot read {path} ({e.strerror}): name the file with --{flag}, or a directory with ca.pem, cert.pem and "
                    "key.pem in $NETENGINE_CERT_PATH"
                ) from None
        try:
            context = ssl.create_default_context(cafile=self.ca)
            context.load_cert_chain(self.cert, self.key)
        except ssl.SSLError as e:
            raise Invalid(
                f"{self.ca}, {self.cert} and {self.key} are no certificates with a key: {_words(e)}"
            ) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


class Remote:
    """A daemon at `host`, `tcp://HOST[:PORT]`. Raises Invalid for anything else."""

    __slots__ = ("_certificates", "address", "port")

    def __init__(self, host: str, certificates: Certificates) -> None:
        self.address, self.port = _split(host)
        self._certificates = certificates

    def __str__(self) -> str:
        return f"tcp://[{self.address}]:{self.port}" if ":" in self.address else f"tcp://{self.address}:{self.port}"

    def connect(self) -> Secured:
        """Raises Invalid for certificates that cannot be used, Unreachable for a daemon that cannot."""
        context = self._certificates.context()
        try:
            raw = socket.create_connection((self.address, self.port), timeout=_PATIENCE)
        except OSError as e:
            raise Unreachable(
                f"Cannot connect to the netengine daemon at {self}: {e.strerror or e}. Does it listen there? "
                f"Start it with: netengined --host {self} --tlsverify ..."
            ) from None
        try:
            secured = Secured(raw, context, self.address, self._certificates.cert)
            raw.settimeout(None)
            return secured
        except ssl.SSLCertVerificationError as e:
            raw.close()
            raise Unreachable(f"{self} is not to be trusted: {e.verify_message} (by {self._certificates.ca})") from None
        except OSError as e:  # ssl.SSLError is one
            raw.close()
            raise Unreachable(f"{self} does not speak TLS with us: {_words(e)}") from None


def _split(host: str) -> tuple[str, int]:
    _, _, rest = host.partition("://")
    rest = rest.rstrip("/")
    address, separator, port = rest.rpartition(":")
    if not separator or "]" in port or (":" in address and not address.endswith("]")):
        address, port = rest, str(PORT)
    if not address.strip("[]") or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise Invalid(f"invalid host {host!r}: write it as tcp://HOST:PORT, such as tcp://192.0.2.1:{PORT}")
    return address.strip("[]"), int(port)


class Secured:
    """One TLS connection, read by one thread and written by another. Has what is used of a socket."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext, name: str, certificate: str) -> None:
        self._raw = raw
        self._certificate = certificate
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._goes, server_hostname=name)
        self._state = threading.Lock()
        self._early = bytearray()
        """Output that was decrypted before it was asked for (see shutdown)."""
        self._order = threading.Lock()
        """Held while records go out: what was encrypted first must go first."""
        self._shake_hands()

    def recv(self, size: int) -> bytes:
        """Empty at the end."""
        while True:
            with self._state:
                if self._early:
                    found = bytes(self._early[:size])
                    del self._early[:size]
                    return found
                try:
                    return self._tls.read(size)
                except ssl.SSLWantReadError:
                    pass
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
                except ssl.SSLError as e:
                    # With TLS 1.3 the daemon looks at our certificate when the handshake is over for us.
                    raise Unreachable(f"the daemon refuses {self._certificate}: {_words(e)}") from None
            try:
                block = self._raw.recv(BLOCK)
            except ConnectionResetError:
                block = b""
            with self._state:
                self._came.write(block) if block else self._came.write_eof()

    def sendall(self, data: bytes) -> None:
        with self._order:
            with self._state:
                self._tls.write(data)
                records = self._goes.read()
            self._raw.sendall(records)

    def shutdown(self, how: int) -> None:
        """Of SHUT_WR: say that no more comes from us (close_notify), and read on."""
        with self._order:
            with self._state:
                try:
                    # OpenSSL throws away the records that it meets while it looks for the other side's close_notify.
                    while block := self._tls.read(BLOCK):
                        self._early += block
                except ssl.SSLError:  # all is read
                    pass
                try:
                    self._tls.unwrap()
                except ssl.SSLError:  # it "wants" the other side's word, which comes when that has ended
                    pass
                records = self._goes.read()
            self._raw.sendall(records)

    def close(self) -> None:
        self._raw.close()

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            finally:
                self._raw.sendall(self._goes.read())
            if done:
                return
            block = self._raw.recv(BLOCK)
            self._came.write(block) if block else self._came.write_eof()


def _words(error: OSError) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else error.strerror or str(error)
