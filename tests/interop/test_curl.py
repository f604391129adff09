"""curl as the client of a small HTTP server written with our sockets."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from sslsock import SocketError, SslConfiguration

from .ours import PAYLOAD, OurServer, ended, server_configuration
from .pki import NAME, Pki, issue
from .programs import Program, program

OPTIONS = {"TLS_1_2": ["--tlsv1.2", "--tls-max", "1.2"], "TLS_1_3": ["--tlsv1.3"]}


class HttpServer(OurServer):
    """GET /: the payload, its length before it. /until-close: without. /cut: half of it. PUT: what came, back."""

    def __init__(self, configuration: SslConfiguration) -> None:
        self.requests: list[bytes] = []
        super().__init__(configuration, self._attend)

    def _attend(self, recorder: Any) -> None:
        request = bytearray()

        def on_ready(sock: Any) -> None:
            request.extend(sock.read_all())
            head, found, body = bytes(request).partition(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            if found and len(body) == int(fields.get(b"content-length", b"0")):
                request.clear()
                self.requests.append(head)
                self._answer(sock, head.split(b" ")[:2], body)

        recorder.socket.ready_read_handler = on_ready

    @staticmethod
    def _answer(sock: Any, question: list[bytes], body: bytes) -> None:
        method, path = question
        if method == b"PUT" or path == b"/":
            answer = body if method == b"PUT" else PAYLOAD
            sock.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer))
            sock.write(answer)
            return
        if path == b"/until-close":
            sock.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            sock.write(PAYLOAD)
            sock.disconnect()
            return

        def cut(sock: Any, count: int) -> None:
            if not sock.bytes_to_write:
                sock.bytes_written_handler = None
                sock.abort()

        sock.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PAYLOAD))
        sock.bytes_written_handler = cut
        sock.write(PAYLOAD[: len(PAYLOAD) // 2])


def curl(start: Callable[..., Program], pki: Pki, port: int, path: str, *arguments: str) -> Program:
    return start(
        *(program("curl", "curl"), "--silent", "--show-error", "--max-time", "30", "--noproxy", "*", "--http1.1"),
        *(
            "--cacert",
            pki.root_file,
            "--resolve",
            f"{NAME}:{port}:127.0.0.1",
            *arguments,
            f"https://{NAME}:{port}{path}",
        ),
        env={"PATH": "/usr/bin:/bin", "CURL_HOME": str(pki.folder)},
    )


def wait_for_end(host: Any, running: Program) -> None:
    host.wait_for(lambda: running.ended, "curl's end", 30)


def test_curl_downloads(own_host, start, pki, version, algorithm):
    server = HttpServer(server_configuration(pki, identity=pki.servers[algorithm]))
    client = curl(start, pki, server.port, "/", *OPTIONS[version])
    wait_for_end(own_host, client)
    assert client.status == 0, client.err
    assert client.out == PAYLOAD
    taken = server.last(own_host)
    ended(own_host, taken)
    assert taken.socket.clean_close
    assert taken.socket.requested_server_name == NAME
    server.close()


def test_curl_uploads(host, start, pki, version, tmp_path):
    file = tmp_path / "payload"
    file.write_bytes(PAYLOAD)
    server = HttpServer(server_configuration(pki))
    client = curl(start, pki, server.port, "/up", *OPTIONS[version], "--upload-file", str(file), "-H", "Expect:")
    wait_for_end(host, client)
    assert client.status == 0, client.err
    assert client.out == PAYLOAD
    server.close()


def test_curl_asks_twice_on_one_connection(host, start, pki, version):
    server = HttpServer(server_configuration(pki))
    client = curl(start, pki, server.port, "/", *OPTIONS[version], f"https://{NAME}:{server.port}/")
    wait_for_end(host, client)
    assert client.status == 0, client.err
    assert client.out == PAYLOAD + PAYLOAD
    assert len(server.taken) == 1
    assert len(server.requests) == 2
    server.close()


def test_curl_takes_our_goodbye_for_the_end(host, start, pki, version):
    server = HttpServer(server_configuration(pki))
    client = curl(start, pki, server.port, "/until-close", *OPTIONS[version])
    wait_for_end(host, client)
    assert client.status == 0, client.err
    assert client.out == PAYLOAD
    server.close()


def test_curl_sees_that_a_download_was_cut(host, start, pki, version):
    """It goes by the length: of close_notify it takes no notice."""
    server = HttpServer(server_configuration(pki))
    client = curl(start, pki, server.port, "/cut", *OPTIONS[version])
    wait_for_end(host, client)
    assert client.status in (18, 56), client.err  # CURLE_PARTIAL_FILE, CURLE_RECV_ERROR
    server.close()


def test_curl_agrees_on_http_1_1(host, start, pki, version):
    configuration = server_configuration(pki)
    configuration.allowed_next_protocols = ["http/1.1"]
    server = HttpServer(configuration)
    client = curl(start, pki, server.port, "/", *OPTIONS[version])
    wait_for_end(host, client)
    assert client.status == 0, client.err
    assert server.last(host).socket.next_negotiated_protocol == "http/1.1"
    server.close()


def test_curl_shows_its_certificate(host, start, pki, version):
    configuration = server_configuration(pki)
    configuration.peer_verify_mode = configuration.VERIFY_PEER
    server = HttpServer(configuration)
    certificate, key = pki.files(pki.client)
    client = curl(start, pki, server.port, "/", *OPTIONS[version], "--cert", certificate, "--key", key)
    wait_for_end(host, client)
    assert client.status == 0, client.err
    assert server.last(host).socket.peer_certificate == pki.client.ours
    without = curl(start, pki, server.port, "/", *OPTIONS[version])
    wait_for_end(host, without)
    assert without.status in (35, 56), without.err  # TLS 1.3: the refusal comes when curl reads
    server.close()


@pytest.mark.parametrize(
    ("make", "words", "alert"),
    [
        (lambda pki: issue(NAME, NAME), "self.signed certificate", "unknown ca"),
        (lambda pki: issue(NAME, NAME, issuer=pki.middle, days=(-9, -1)), "has expired", "certificate expired"),
        (lambda pki: issue(NAME, NAME, issuer=pki.other_root), "unable to get local issuer", "unknown ca"),
    ],
    ids=["self-signed", "expired", "unknown authority"],
)
def test_curl_does_not_like_our_certificate(host, start, pki, version, make, words, alert):
    server = HttpServer(server_configuration(pki, identity=make(pki)))
    client = curl(start, pki, server.port, "/", *OPTIONS[version])
    wait_for_end(host, client)
    assert client.status == 60, client.err  # CURLE_PEER_FAILED_VERIFICATION
    assert client.said(words), client.err
    taken = server.last(host)
    ended(host, taken)
    if taken.has("encrypted"):  # curl 8.23 looks at the certificate when the handshake is done, and then sends no alert
        assert taken.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]
    else:
        assert taken.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
        assert f'the peer sent the alert "{alert}"' in taken.socket.error_string.lower()
    assert server.requests == []
    server.close()
