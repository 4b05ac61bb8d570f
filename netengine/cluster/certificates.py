"""Certificates of a cluster: its root, those of its nodes, and how one root follows another.

A node's certificate says who it is (CN), what it may be (OU) and of which cluster (O); its key is made by the node and never
leaves it. Pure but for randomness: no files, no sockets; what TLS connections demand is in tls.py. Certificates and keys are
PEM text everywhere. Import this late: `cryptography` takes some 5 MB that only members of a cluster should pay.

While a root is rotated its successor carries a second certificate that the old root has signed (RFC 4210, 4.4), and every node
shows it along with its own. So those who trust only the old root and those who trust only the new one both accept every node,
in any order of events, and nothing has to happen at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from netengine.cluster.pem import (
    PrivateKey,
    PublicKey,
    first_words,
    is_authority,
    key_pem,
    load,
    load_all,
    load_key,
    load_request,
    pem,
    public_bytes,
    public_of,
    request_pem,
    signed_by,
    validity,
)
from netengine.cluster.records import MANAGER, WORKER
from netengine.errors import Forbidden, Invalid, Unavailable

ROOT_LIFE: Final = timedelta(days=20 * 365)
NODE_LIFE: Final = timedelta(days=90)
BACKDATED: Final = timedelta(hours=1)
"""A certificate is valid from that long before it was made, so that clocks may differ."""

UNITS: Final = {MANAGER: "swarm-manager", WORKER: "swarm-worker"}
"""The OU of a role's certificates, and a DNS name in them: who connects to a manager demands the name `swarm-manager`."""

REQUEST_LIMIT: Final = 16 << 10  # bytes; a request with a P-256 key has 400


class Authority(msgspec.Struct, frozen=True):
    """A root with its key. `previous` and `cross` are set while it takes over from another: see `succeed`."""

    certificate: str
    key: str
    previous: str = ""
    """The root before, still trusted."""
    cross: str = ""
    """This root's name and key in a certificate that `previous` has signed."""

    @property
    def is_rotating(self) -> bool:
        return bool(self.previous)

    @property
    def trust(self) -> str:
        """All roots that are trusted now, one after the other."""
        return self.certificate + self.previous

    def __repr__(self) -> str:
        return f"<Authority {digest(self.certificate).hex()[:12]}>"


class Certificate(msgspec.Struct, frozen=True):
    """What a node's certificate says."""

    node: str
    role: str
    cluster: str
    serial: str
    """Hexadecimal."""
    not_before: datetime
    not_after: datetime

    def renewal(self) -> datetime:
        """When it is to be renewed: a third of its life before it ends."""
        return self.not_after - (self.not_after - self.not_before) / 3


# -- roots ----------------------------------------------------------------------------------------------------------------


def create_authority(cluster: str, now: datetime | None = None) -> Authority:
    """A new root for the cluster of that id: ECDSA on P-256, for 20 years."""
    key = ec.generate_private_key(ec.SECP256R1())
    # The name holds part of the key's digest: two roots of one cluster are told apart by their names alone.
    label = hashlib.sha256(public_bytes(key.public_key())).hexdigest()[:8]
    name = x509.Name(
        [_attribute(NameOID.ORGANIZATION_NAME, cluster), _attribute(NameOID.COMMON_NAME, f"swarm-ca-{label}")]
    )
    made = _root(name, key.public_key(), name, key, None, now or _now())
    return Authority(pem(made), key_pem(key))


def adopt_authority(certificate: str, key: str, now: datetime | None = None) -> Authority:
    """A root that the user brings (`swarm ca --rotate --ca-cert --ca-key`). Raises Invalid."""
    root, private = load(certificate, "the CA certificate"), load_key(key, "the CA key")
    now = now or _now()
    if public_bytes(root.public_key()) != public_bytes(private.public_key()):
        raise Invalid("the CA key is not the key of the CA certificate")
    if not signed_by(root, root):
        raise Invalid("the CA certificate is not signed by itself: only a root can be the CA of a cluster")
    try:
        basic = root.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        basic = None
    if basic is None or not basic.ca:
        raise Invalid("the CA certificate is not one of a CA: its basic constraints do not say CA:TRUE")
    if basic.path_length == 0:
        raise Invalid("the CA certificate has a path length of 0: it could not be followed by another root later")
    begin, end = validity(root)
    if now < begin or now + NODE_LIFE > end:
        raise Invalid(
            f"the CA certificate is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}: it must be valid now and for 90 days more"
        )
    return Authority(pem(root), key_pem(private))


def succeed(old: Authority, new: Authority, now: datetime | None = None) -> Authority:
    """`new`, with what makes those who trust `old` trust it as well. `old` may itself be taking over: that is given up."""
    root, key = load(new.certificate, "the new root"), load_key(old.key, "the old root's key")
    signer = load(old.certificate, "the old root")
    cross = _root(root.subject, public_of(root), signer.subject, key, signer, now or _now())
    return Authority(new.certificate, new.key, old.certificate, pem(cross))


def settle(authority: Authority) -> Authority:
    """The rotation is over, every node has a certificate of the new root: the old one is trusted no more."""
    return Authority(authority.certificate, authority.key)


def split(trust: str) -> list[str]:
    """The certificates of a PEM text, one by one. Raises Invalid."""
    return [pem(one) for one in load_all(trust, "the roots")]


def digest(certificate: str) -> bytes:
    """SHA-256 of the first certificate (its DER form): what join tokens hold."""
    return load(certificate, "the root certificate").fingerprint(hashes.SHA256())


class Issuer(msgspec.Struct, frozen=True):
    """What Docker's API says of a root: its name and its public key, both DER."""

    subject: bytes
    public_key: bytes


def issuer(certificate: str) -> Issuer:
    root = load(certificate, "the root certificate")
    return Issuer(root.subject.public_bytes(), public_bytes(root.public_key()))


# -- nodes ----------------------------------------------------------------------------------------------------------------


def make_key() -> str:
    """A node's own private key: ECDSA on P-256."""
    return key_pem(ec.generate_private_key(ec.SECP256R1()))


def make_request(key: str) -> str:
    """A certificate signing request. It says nothing but the key: who the node is, the manager decides."""
    private = load_key(key, "the node's key")
    return request_pem(
        x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(private, hashes.SHA256())
    )


def check_request(request: str) -> x509.CertificateSigningRequest:
    """Raises Invalid unless it is a signed request for a P-256 key."""
    if len(request) > REQUEST_LIMIT:
        raise Invalid(f"the certificate signing request has {len(request)} bytes, more than {REQUEST_LIMIT}")
    csr = load_request(request)
    try:
        public, sound = csr.public_key(), csr.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Invalid(f"the certificate signing request cannot be read: {first_words(error)}") from None
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise Invalid("the certificate signing request is not for an ECDSA key on P-256")
    if not sound:
        raise Invalid("the certificate signing request is not signed with its own key")
    return csr


def issue(
    authority: Authority,
    request: str,
    node: str,
    role: str,
    cluster: str,
    addresses: Sequence[str],
    now: datetime | None = None,
    life: timedelta = NODE_LIFE,
) -> str:
    """A node's certificate, followed by what leads from it to every trusted root. `addresses` are a manager's IP addresses.

    Nothing that the request says but its key is taken over. Raises Invalid.
    """
    csr, now = check_request(request), now or _now()
    root, key = load(authority.certificate, "the root"), load_key(authority.key, "the root's key")
    names: list[x509.GeneralName] = [x509.DNSName(UNITS[role]), x509.DNSName(node)]
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if role == MANAGER:
        # A worker serves nothing. Were its certificate good for a server at some address, it could stand between two members of
        # etcd: each knows the other by its address alone.
        names += [x509.IPAddress(ip_address(a)) for a in dict.fromkeys(addresses)]
        uses.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
    subject = x509.Name(
        [
            _attribute(NameOID.ORGANIZATION_NAME, cluster),
            _attribute(NameOID.ORGANIZATIONAL_UNIT_NAME, UNITS[role]),
            _attribute(NameOID.COMMON_NAME, node),
        ]
    )
    end = min(now + life, validity(root)[1])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(root.subject)
        .public_key(csr.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_naive(now - BACKDATED))
        .not_valid_after(_naive(end))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=False), critical=True)
        # A manager is both: etcd's gateway is a client of its own server, with the server's certificate.
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(csr.public_key()), critical=False)
        .add_extension(_authority_identifier(root), critical=False)
        .sign(key, hashes.SHA256())
    )
    return pem(made) + authority.cross


def read(certificate: str) -> Certificate:
    """What the first certificate of a chain says. Raises Invalid when it is not one of a node."""
    cert = load(certificate, "the node's certificate")
    roles = {unit: role for role, unit in UNITS.items()}
    role = roles.get(_only(cert, NameOID.ORGANIZATIONAL_UNIT_NAME))
    node, cluster = _only(cert, NameOID.COMMON_NAME), _only(cert, NameOID.ORGANIZATION_NAME)
    if role is None or not node or not cluster:
        raise Invalid("the certificate is not one of a cluster's node: it names no node, role and cluster")
    begin, end = validity(cert)
    return Certificate(node, role, cluster, f"{cert.serial_number:x}", begin, end)


def verify(certificate: str, trust: str, now: datetime | None = None) -> Certificate:
    """Check a node's certificate chain as TLS does, and say clearly what is wrong.

    Raises Forbidden when no trusted root has signed it, Unavailable when this clock says that it is not valid yet or no longer.
    """
    said, now = read(certificate), now or _now()
    leaf, *chain = load_all(certificate, "the node's certificate")
    roots = load_all(trust, "the roots")
    known = roots + [c for c in chain if is_authority(c) and any(signed_by(c, r) for r in roots)]
    if not any(signed_by(leaf, issuer) for issuer in known):
        raise Forbidden(f"the certificate of node {said.node} is not signed by a root of this cluster")
    check_validity(said, now)
    return said


def check_validity(said: Certificate, now: datetime) -> None:
    """Raises Unavailable, naming both clocks."""
    if now < said.not_before:
        raise Unavailable(
            f"the certificate of node {said.node} is valid from {_clock(said.not_before)} on, and this host's clock says "
            f"{_clock(now)}: the clock here is behind the managers' by more than an hour; set it, then try again"
        )
    if now > said.not_after:
        raise Unavailable(
            f"the certificate of node {said.node} has expired at {_clock(said.not_after)}, and this host's clock says "
            f"{_clock(now)}: if the clock is right, leave the cluster and join again (docker swarm leave --force; "
            "docker swarm join-token worker, on a manager, shows how)"
        )


def is_issued_by(certificate: str, authority: Authority) -> bool:
    """Whether the node has a certificate of the present root, not of the one before."""
    return signed_by(load(certificate, "the certificate"), load(authority.certificate, "the root"))


def matches(certificate: str, key: str) -> bool:
    """Whether the key is that of the certificate."""
    mine = load_key(key, "the node's key").public_key()
    return public_bytes(load(certificate, "the node's certificate").public_key()) == public_bytes(mine)


# -- pieces -----------------------------------------------------------------------------------------------------------


def _root(
    subject: x509.Name,
    public: PublicKey,
    issuer: x509.Name,
    key: PrivateKey,
    signer: x509.Certificate | None,
    now: datetime,
) -> x509.Certificate:
    """A certificate of an authority: signed by itself, or by the one before it (`signer`)."""
    end = now + ROOT_LIFE if signer is None else min(now + ROOT_LIFE, validity(signer)[1])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_naive(now - BACKDATED))
        .not_valid_after(_naive(end))
        # One authority below: the next root, while it takes over.
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage(sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    if signer is not None:
        builder = builder.add_extension(_authority_identifier(signer), critical=False)
    return builder.sign(key, hashes.SHA256())


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The issuer's own name for its key: those who look for the issuer compare the two."""
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public_of(issuer))
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _attribute(oid: x509.ObjectIdentifier, value: str) -> x509.NameAttribute:
    return x509.NameAttribute(oid, value)


def _only(cert: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    found = cert.subject.get_attributes_for_oid(oid)
    return str(found[0].value) if len(found) == 1 else ""


def _now() -> datetime:
    return datetime.now(UTC)


def _naive(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(tzinfo=None, microsecond=0)


def _clock(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
