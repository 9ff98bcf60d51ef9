"""A CONNECT proxy that can refuse, hang and cut, and a server of bare bytes behind TLS."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.raw_server import LoopbackServer, ReceivedRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

HOST_NAMES = ("api.vendor.test", "cdn.vendor.test", "localhost")


def make_certificate(folder: Path) -> Path:
    """Write, into one file, a certificate of `NAMES` and 127.0.0.1, its key, and the authority to trust."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = [x509.DNSName(host) for host in HOST_NAMES]
    alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    root = _signed("an authority", authority, authority, x509.BasicConstraints(ca=True, path_length=0))
    leaf = _signed("a server", key, authority, x509.SubjectAlternativeName(alternatives))
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + leaf.public_bytes(serialization.Encoding.PEM)
        + root.public_bytes(serialization.Encoding.PEM)
    )
    return path


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    authority: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        .add_extension(identifier, critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority, hashes.SHA256())
    )


def server_tls_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@dataclass
class ConnectProxy(LoopbackServer):
    """A proxy. Every name leads to `target` on this machine; `act` (if given) answers CONNECT instead.

    `user` is what it wants to hear, if anything. `inner` ends TLS within the tunnel, for a target that speaks
    plain http. `faults` come first, one a connection, until they are used up.
    """

    target: int
    connect_handler: Callable[[asyncio.StreamWriter], Awaitable[None]] | None = None
    inner_tls: ssl.SSLContext | None = None
    user: str = ""
    faults: list[Callable[[asyncio.StreamWriter], Awaitable[None]]] = field(default_factory=list)
    cut_after_bytes: int | None = None
    """End the tunnel once the client has sent so many bytes into it."""
    requests: list[ReceivedRequest] = field(default_factory=list)
    visible_bytes: bytearray = field(default_factory=bytearray)
    """All that a proxy could read: the bytes of every client, tunnels included."""

    @property
    def url(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"{'https' if self.tls else 'http'}://{user}127.0.0.1:{self.port}"

    @property
    def request_lines(self) -> list[str]:
        return [f"{head.request_line.split()[0]} {head.target}" for head in self.requests]

    async def handle_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.visible_bytes += head
        lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:] if line)
        heard = ReceivedRequest(lines[0], {name.lower(): value.strip() for name, _, value in pairs}, b"")
        self.requests.append(heard)
        wanted = f"Basic {base64.b64encode(self.user.encode()).decode()}"
        if self.user and heard.headers.get("proxy-authorization") != wanted:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        act = self.faults.pop(0) if self.faults else self.connect_handler
        if act is not None:
            await act(writer)
            return
        assert heard.request_line.startswith("CONNECT "), heard.request_line
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers.add(up_writer)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if self.inner_tls is not None:
            await writer.start_tls(self.inner_tls)
        await asyncio.gather(
            self._forward_to_target(reader, up_writer, writer), self._forward_to_client(up_reader, writer)
        )

    async def _forward_to_target(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        sent = 0
        while data := await reader.read(65536):
            self.visible_bytes += (
                b"" if self.inner_tls else data
            )  # it is the API's, not the proxy's, who can read this
            sent += len(data)
            if self.cut_after_bytes is not None and sent >= self.cut_after_bytes:
                back.transport.abort()
                break
            writer.write(data)
        writer.close()

    async def _forward_to_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()
