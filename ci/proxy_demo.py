"""The proxy at work on a machine that has nothing: an HTTP server of the standard library on loopback, the proxy in front of
it with a certificate made in memory, all in this process. `ci/demo` runs it when it is given no arguments; Ctrl-C ends it.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sslsock.__main__ import main

PORT = 8443  # or any free one, when somebody has this one
PAGE = """\
<!doctype html>
<title>sslsock</title>
<p>This page came from a plain HTTP server on {back}. TLS ended in the proxy before it.
"""


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # so that one connection serves several requests

    def do_GET(self) -> None:
        host, port = self.server.server_address[:2]
        body = PAGE.format(back=f"{host}:{port}").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the proxy says what passes."""


def free_port() -> int:
    for port in (PORT, 0):
        try:
            with socket.create_server(("127.0.0.1", port)) as found:
                return int(found.getsockname()[1])
        except OSError:
            continue
    raise SystemExit("no port of 127.0.0.1 is free")


def demonstrate() -> int:
    back = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    back.daemon_threads = True
    threading.Thread(target=back.serve_forever, daemon=True).start()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="sslsock-") as folder:
        authority = os.path.join(folder, "ca.pem")
        print("Ctrl-C ends this. In another terminal:")
        print(f"  curl -v --cacert {authority} https://localhost:{port}/")
        print(f"  curl -sZ --cacert {authority} 'https://localhost:{port}/?[1-100]'   # a hundred, many at once")
        sys.stdout.flush()
        arguments = ["--listen", f"tls://127.0.0.1:{port}", "--to", f"tcp://127.0.0.1:{back.server_address[1]}"]
        return main(["proxy", *arguments, "--ca-out", authority, "--log-format", "text"])


if __name__ == "__main__":
    sys.exit(demonstrate())
