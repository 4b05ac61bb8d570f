"""Certificates and keys between PEM text and objects, and who has signed whom. With certificates.py the only importer of
`cryptography`. Nothing here knows clusters.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from netengine.errors import Invalid

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def validity(cert: x509.Certificate) -> tuple[datetime, datetime]:
    """From when to when, in UTC."""
    # cryptography before 42 knows datetimes without a zone only; later versions warn of those.
    if hasattr(x509.Certificate, "not_valid_before_utc"):
        aware: Any = cert
        return aware.not_valid_before_utc, aware.not_valid_after_utc
    return cert.not_valid_before.replace(tzinfo=UTC), cert.not_valid_after.replace(tzinfo=UTC)


def signed_by(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    public, algorithm = issuer.public_key(), cert.signature_hash_algorithm
    if cert.issuer != issuer.subject or algorithm is None:
        return False
    try:
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(cert.signature, cert.tbs_certificate_bytes, ec.ECDSA(algorithm))
        elif isinstance(public, rsa.RSAPublicKey):
            public.verify(cert.signature, cert.tbs_certificate_bytes, padding.PKCS1v15(), algorithm)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def is_authority(cert: x509.Certificate) -> bool:
    try:
        return cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def load_all(text: str, what: str) -> list[x509.Certificate]:
    """Every certificate of a PEM text, at least one. Raises Invalid."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    found = [begin + part.partition(end)[0] + end + "\n" for part in text.split(begin)[1:]]
    if not found:
        raise Invalid(f"{what} is no PEM text with a certificate in it")
    try:
        return [x509.load_pem_x509_certificate(one.encode()) for one in found]
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid(f"{what} cannot be read: {first_words(error)}") from None


def load(text: str, what: str) -> x509.Certificate:
    return load_all(text, what)[0]


def load_key(text: str, what: str) -> PrivateKey:
    try:
        key = serialization.load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Invalid(f"{what} cannot be read: {first_words(error)}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise Invalid(f"{what} is of a kind that is not used here: it must be one of ECDSA or RSA")
    return key


def load_request(text: str) -> x509.CertificateSigningRequest:
    """Raises Invalid. Its signature is not looked at."""
    try:
        return x509.load_pem_x509_csr(text.encode("utf-8", "replace"))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Invalid(f"the certificate signing request cannot be read: {first_words(error)}") from None


def request_pem(request: x509.CertificateSigningRequest) -> str:
    return request.public_bytes(serialization.Encoding.PEM).decode()


def public_of(cert: x509.Certificate) -> PublicKey:
    public = cert.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    return public


def public_bytes(public: object) -> bytes:
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(public.public_bytes(encoding, form))  # type: ignore[attr-defined]


def pem(cert: x509.Certificate) -> str:
    return cert.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: PrivateKey) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def first_words(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
