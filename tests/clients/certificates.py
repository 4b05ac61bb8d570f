"""Certificates for the tests of TLS: authorities, and what they signed, as PEM files."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Signed:
    """Paths of a certificate and of its key."""

    certificate: Path
    key: Path


class Authority:
    """One that signs. Its own certificate is in `directory`/NAME-ca.pem."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._name, self._key, days=30)
        made = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.certificate = directory / f"{name}-ca.pem"
        self.certificate.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
        # Not datetime.now(): a certificate that has expired must have begun before.
        now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)  # noqa: UP017
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 60 * _DAY)
            .not_valid_after(now + days * _DAY)
        )

    def sign(
        self,
        name: str,
        usage: x509.ObjectIdentifier,
        *addresses: str,
        days: int = 30,
        also: Sequence[x509.ObjectIdentifier] = (),
        has_name: bool = True,
    ) -> Signed:
        """A certificate for one who is called `name` (its CN, or only the file's); one with negative `days` has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "example")]
        if has_name:
            attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
        builder = self._builder(x509.Name(attributes), key, days)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage, *also]), critical=False)
        if addresses:
            names = [x509.IPAddress(ip_address(address)) for address in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = Signed(self._directory / f"{name}-cert.pem", self._directory / f"{name}-key.pem")
        signed.certificate.write_bytes(
            builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        signed.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        signed.key.chmod(0o400)
        return signed
