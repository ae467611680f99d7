"""An authority of one's own, as a user may run it: it issues certificates for nodes."""

import datetime as dt
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kinfolk import OwnCertificates

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


class Authority:
    """Issues certificates, and keeps all files in a directory.

    Args:
        directory: where.
        word: its name, and that of its file.
        above: the authority that vouches for it; None for one that is trusted for itself.
    """

    def __init__(self, directory: Path, word: str = "authority", above: "Authority | None" = None) -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._above = above
        name = _name(word)
        builder = _certificate(name, above._certificate.subject if above else name, self._key, above or self)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_usage(issues=True), critical=True)
        self._certificate: x509.Certificate = builder.sign(above._key if above else self._key, hashes.SHA256())
        self.file = directory / f"{word}.pem"
        """Its certificate."""
        self.file.write_bytes(self._pem())

    def issue(
        self,
        word: str,
        *uris: str,
        usage: Sequence[x509.ObjectIdentifier] = (SERVER, CLIENT),
        valid_until: dt.datetime = NOW + DAY,
        password: bytes | None = None,
        addresses: Sequence[str] = (),
    ) -> OwnCertificates:
        """A certificate with these URIs and IP addresses, and its key, in files that begin with this word."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _certificate(_name(word), self._certificate.subject, key, self, valid_until)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(issues=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.IPAddress(ip_address(address)) for address in addresses]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        leaf = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        certificate, secret = self.directory / f"{word}.crt", self.directory / f"{word}.key"
        root, chain = self, b""
        while root._above is not None:
            root, chain = root._above, chain + root._pem()
        certificate.write_bytes(leaf + chain)
        encryption: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
        secret.touch(mode=0o600)
        secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        return OwnCertificates(certificate, secret, root.file)

    def _pem(self) -> bytes:
        return self._certificate.public_bytes(Encoding.PEM)


def _certificate(
    name: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: Authority,
    valid_until: dt.datetime = NOW + DAY,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 2 * DAY)
        .not_valid_after(valid_until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer._key.public_key()), critical=False)
    )


def _name(word: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, word)])


def _usage(*, issues: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not issues,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=issues,
        encipher_only=False,
        decipher_only=False,
    )
