"""`ssl=` may be an SslConfiguration: both roles, on our loop and on loops that exist."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest

from peers import DEADLINE, Certificates
from sslsock import SslConfiguration, aio


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


def run(host: Any, main: Any) -> Any:
    return host.run_until_complete(asyncio.wait_for(main, DEADLINE))


async def echo(reader: Any, writer: Any) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # a client that refuses the handshake's end
    finally:
        writer.close()


async def serving(server: SslConfiguration, **options: Any) -> Any:
    made = await aio.start_server(asyncio.get_running_loop(), echo, "127.0.0.1", 0, ssl=server, **options)
    return made, made.sockets[0].getsockname()[1]


async def exchange(port: int, client: Any, **options: Any) -> Any:
    """An echo. Returns `get_extra_info` of what was agreed on."""
    loop = asyncio.get_running_loop()
    reader, writer = await aio.open_connection(loop, "127.0.0.1", port, ssl=client, **options)
    data = b"x" * 200_000
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    names = ("sslcontext", "ssl_object", "peercert", "cipher", "tls_version", "group", "session_reused", "compression")
    found = {name: writer.get_extra_info(name) for name in names}
    writer.write_eof() if writer.can_write_eof() else writer.close()
    await writer.wait_closed()
    return found


@pytest.mark.parametrize("threads", [0, 2])
def test_echo_alpn_and_resumption(host: Any, certificates: Certificates, threads: int) -> None:
    server, client = certificates.server(), certificates.client()
    server.allowed_next_protocols = client.allowed_next_protocols = ["h2"]

    async def main() -> None:
        made, port = await serving(server, handshake_threads=threads)
        found = await exchange(port, client, server_hostname="localhost")
        assert found["sslcontext"] is client and found["compression"] is None and found["session_reused"] is False
        assert found["ssl_object"].selected_alpn_protocol() == "h2"
        assert found["tls_version"] == "TLSv1.3" and found["group"]
        assert found["cipher"][1] == "TLSv1.3" and found["cipher"][2] >= 128
        assert ("DNS", "localhost") in found["peercert"]["subjectAltName"]
        assert (await exchange(port, client, server_hostname="localhost"))["session_reused"] is True
        made.close()

    run(host, main())


def test_what_is_refused(host: Any, certificates: Certificates) -> None:
    async def main() -> None:
        made, port = await serving(certificates.server())
        with pytest.raises(ssl.SSLCertVerificationError) as refused:
            await exchange(port, certificates.client(), server_hostname="elsewhere.test")
        assert refused.value.verify_code == 62 and "is not for elsewhere.test" in refused.value.verify_message
        with pytest.raises(ssl.SSLCertVerificationError) as refused:
            await exchange(port, Certificates().client(), server_hostname="localhost")
        assert refused.value.verify_code in (19, 20) and refused.value.reason == "CERTIFICATE_VERIFY_FAILED"
        await exchange(port, certificates.client(), server_hostname="")
        made.close()
        for keyless in (SslConfiguration(), certificates.client()):
            with pytest.raises(ValueError, match="no certificate"):
                await serving(keyless)

    run(host, main())


def test_client_certificates(host: Any, certificates: Certificates) -> None:
    server = certificates.server()
    server.peer_verify_mode = server.peer_verify_mode.VERIFY_PEER

    async def main() -> None:
        made, port = await serving(server)
        await exchange(port, certificates.client(identity=True), server_hostname="localhost")
        with pytest.raises(OSError):
            await exchange(port, certificates.client(), server_hostname="localhost")
        made.close()

    run(host, main())


def test_with_the_interpreters_ssl(host: Any, certificates: Certificates) -> None:
    context = ssl.create_default_context(cadata=certificates.ca.cert_pem.bytes().decode())
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.ca.issue_cert("localhost").configure_cert(own)

    async def main() -> None:
        made, port = await serving(certificates.server())
        await exchange(port, context, server_hostname="localhost")
        made.set_ssl(own)
        await exchange(port, certificates.client(), server_hostname="localhost")
        with pytest.raises(ValueError, match="no certificate"):
            made.set_ssl(SslConfiguration())
        made.close()
        made, port = await serving(own, client_hello_handler=lambda hello, peer: certificates.server("chosen.test"))
        found = await exchange(port, certificates.client(), server_hostname="chosen.test")
        assert ("DNS", "chosen.test") in found["peercert"]["subjectAltName"]
        made.close()

    run(host, main())


def test_start_tls(host: Any, certificates: Certificates) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def upgraded(reader: Any, writer: Any) -> None:
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"go\n")
            protocol = writer.transport.get_protocol()
            transport = await aio.start_tls(loop, writer.transport, protocol, certificates.server(), server_side=True)
            transport.write(b"hidden")
            transport.close()

        made = await aio.start_server(loop, upgraded, "127.0.0.1", 0)
        reader, writer = await aio.open_connection(loop, *made.sockets[0].getsockname())
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go\n"
        protocol, client = writer.transport.get_protocol(), certificates.client()
        with pytest.raises(ValueError, match="server_hostname"):
            await aio.start_tls(loop, writer.transport, protocol, client)
        transport = await aio.start_tls(loop, writer.transport, protocol, client, server_hostname="localhost")
        assert await reader.read() == b"hidden"
        assert transport.get_extra_info("clean_close") is True
        transport.close()
        made.close()

    run(host, main())
