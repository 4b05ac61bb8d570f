"""Certificates: who a node is, whom it trusts, and how one root follows another."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from netengine.cluster import certificates, pem
from netengine.cluster.certificates import Authority
from netengine.errors import Forbidden, Invalid, Unavailable

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ROOT = certificates.create_authority("c1", NOW)
KEY = certificates.make_key()
BEGIN = "-----BEGIN CERTIFICATE-----"


def node(authority: Authority = ROOT, role: str = "worker", now: datetime = NOW, key: str = KEY) -> str:
    request = certificates.make_request(key)
    return certificates.issue(authority, request, "n1", role, "c1", ["192.0.2.1", "2001:db8::1"], now)


def accepts(tmp_path: Path, trust: str, chain: str, at: datetime = NOW, purpose: str = "sslclient") -> bool:
    """What OpenSSL says, as in a TLS handshake."""
    _, leaf, *rest = chain.split(BEGIN)
    for name, text in (("trust", trust), ("leaf", BEGIN + leaf), ("rest", "".join(BEGIN + r for r in rest))):
        (tmp_path / name).write_text(text)
    argv = ["openssl", "verify", "-purpose", purpose, "-attime", str(int(at.timestamp())), "-no-CApath"]
    argv += ["-no-CAstore", "-CAfile", str(tmp_path / "trust")]
    argv += ["-untrusted", str(tmp_path / "rest")] if rest else []
    return subprocess.run([*argv, str(tmp_path / "leaf")], capture_output=True, timeout=20).returncode == 0


@pytest.mark.parametrize(("role", "unit"), [("worker", "swarm-worker"), ("manager", "swarm-manager")])
def test_a_certificate_says_who_what_and_of_which_cluster(role: str, unit: str) -> None:
    cert = pem.load(node(role=role), "it")
    assert cert.subject.rfc4514_string() == f"CN=n1,OU={unit},O=c1"
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [unit, "n1"]
    addresses = ["192.0.2.1", "2001:db8::1"] if role == "manager" else []
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == addresses
    said = certificates.verify(node(role=role), ROOT.trust, NOW)
    assert (said.node, said.role, said.cluster) == ("n1", role, "c1")
    assert said.not_before == NOW - timedelta(hours=1) and said.not_after == NOW + timedelta(days=90)
    assert timedelta(days=59) < said.renewal() - NOW < timedelta(days=61)


def test_a_root_lasts_twenty_years_and_openssl_agrees(tmp_path: Path) -> None:
    begin, end = pem.validity(pem.load(ROOT.certificate, "it"))
    assert end - begin > timedelta(days=20 * 365)
    assert accepts(tmp_path, ROOT.trust, node())
    assert not accepts(tmp_path, certificates.create_authority("c1", NOW).trust, node())
    assert not accepts(tmp_path, ROOT.trust, node(), NOW + timedelta(days=91))


def test_only_a_manager_is_good_for_a_server(tmp_path: Path) -> None:
    assert accepts(tmp_path, ROOT.trust, node(role="manager"), purpose="sslserver")
    assert not accepts(tmp_path, ROOT.trust, node(role="worker"), purpose="sslserver")


def test_a_request_decides_nothing_but_the_key() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("swarm-manager")]), critical=False)
        .sign(private, hashes.SHA256())
    )
    issued = certificates.issue(ROOT, pem.request_pem(greedy), "n2", "worker", "c1", [], NOW)
    cert = pem.load(issued, "it")
    assert certificates.read(issued).node == "n2" and not pem.is_authority(cert)
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "swarm-manager" not in names.get_values_for_type(x509.DNSName)


def _request(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    hashed = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return pem.request_pem(x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashed))


def _forged() -> str:
    """A request with its signature damaged."""
    lines = certificates.make_request(KEY).splitlines()
    lines[-3] = lines[-3][:-8] + "A" * 8
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("request_text", "words"),
    [
        ("", "cannot be read"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "cannot be read"),
        ("x" * 20_000, "more than 16384"),
        (_request(ed25519.Ed25519PrivateKey.generate()), "not for an ECDSA key on P-256"),
        (_request(rsa.generate_private_key(65537, 1024)), "not for an ECDSA key on P-256"),
        (_request(ec.generate_private_key(ec.SECP384R1())), "not for an ECDSA key on P-256"),
        (_forged(), "certificate signing request"),
        ("ü" * 10, "cannot be read"),
    ],
    ids=["empty", "short", "long", "ed25519", "rsa", "p384", "forged", "text"],
)
def test_a_bad_request_is_invalid(request_text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        certificates.issue(ROOT, request_text, "n", "worker", "c1", [], NOW)


def test_another_clusters_certificate_is_forbidden_and_clocks_are_named() -> None:
    other = certificates.create_authority("c1", NOW)
    with pytest.raises(Forbidden, match="not signed by a root of this cluster"):
        certificates.verify(node(other), ROOT.trust, NOW)
    with pytest.raises(Unavailable, match=r"valid from 2026-05-01 11:00:00 UTC on, .* says 2026-05-01 10:59:59 UTC"):
        certificates.verify(node(), ROOT.trust, NOW - timedelta(seconds=3601))
    with pytest.raises(Unavailable, match=r"expired at 2026-07-30 12:00:00 UTC, .* 2026-08-01"):
        certificates.verify(node(), ROOT.trust, NOW + timedelta(days=92))
    certificates.verify(node(), ROOT.trust, NOW - timedelta(minutes=59))


def test_while_a_root_is_rotated_old_and_new_trust_accept_every_node(tmp_path: Path) -> None:
    new = certificates.succeed(ROOT, certificates.create_authority("c1", NOW), NOW)
    old_node, new_node = node(ROOT), node(new)
    assert new.is_rotating and new_node.count(BEGIN) == 2
    for trust, chain in ((ROOT.trust, old_node), (ROOT.trust, new_node), (new.trust, old_node), (new.trust, new_node)):
        assert accepts(tmp_path, trust, chain)
        certificates.verify(chain, trust, NOW)
    settled = certificates.settle(new)
    assert accepts(tmp_path, settled.trust, new_node) and accepts(tmp_path, settled.trust, node(settled))
    assert not accepts(tmp_path, settled.trust, old_node)
    with pytest.raises(Forbidden):
        certificates.verify(old_node, settled.trust, NOW)
    assert certificates.is_issued_by(new_node, new) and not certificates.is_issued_by(old_node, new)
    assert certificates.digest(new.certificate) == certificates.digest(settled.trust) != certificates.digest(ROOT.trust)


def test_a_node_cannot_issue_certificates(tmp_path: Path) -> None:
    """What a node signs with its own key leads to the root by way of no authority."""
    mine = Authority(node(), KEY)
    forged = certificates.issue(mine, certificates.make_request(KEY), "n9", "manager", "c1", [], NOW) + mine.certificate
    assert not accepts(tmp_path, ROOT.trust, forged)
    with pytest.raises(Forbidden):
        certificates.verify(forged, ROOT.trust, NOW)


def test_a_root_that_the_user_brings_must_be_one() -> None:
    assert certificates.adopt_authority(ROOT.certificate, ROOT.key, NOW).trust == ROOT.trust
    other = certificates.create_authority("c2", NOW)
    for certificate, key, words in (
        (ROOT.certificate, other.key, "not the key of the CA certificate"),
        (node(), KEY, "not signed by itself"),
        ("x", ROOT.key, "no PEM text"),
        (ROOT.certificate, "x", "the CA key cannot be read"),
    ):
        with pytest.raises(Invalid, match=words):
            certificates.adopt_authority(certificate, key, NOW)
    with pytest.raises(Invalid, match="it must be valid now and for 90 days more"):
        certificates.adopt_authority(ROOT.certificate, ROOT.key, NOW + timedelta(days=19.9 * 365))


def test_key_and_certificate_belong_together() -> None:
    assert certificates.matches(node(), KEY) and not certificates.matches(node(), certificates.make_key())
    assert ROOT.key not in repr(ROOT)
