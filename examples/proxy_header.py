"""A server behind a load balancer that sends PROXY headers: it sees the client's
address, not the balancer's.

HAProxy sends them with `send-proxy-v2`, nginx with `proxy_protocol on`, our proxy with
`--proxy-protocol-out v2`. Only the balancers in TRUSTED may: anybody else could claim
to be anybody.

Run it:

    python certificates.py
    python proxy_header.py 4433

and talk to it: `curl -k --haproxy-protocol https://localhost:4433/`. Ctrl-C ends it.
"""

import sys
from pathlib import Path

import sslsock

TRUSTED = ["127.0.0.1", "::1", "10.0.0.0/8"]


def accept(server):
    while (socket := server.next_pending_secure_connection()) is not None:
        socket.ready_read_handler = answer


def answer(socket):
    socket.read_all()
    body = f"your address is {socket.remote_address}\n"
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    socket.write((head + body).encode())
    socket.disconnect()


server = sslsock.SslServer()
server.configuration.set_identity(
    Path("server.pem").read_bytes(), Path("server.key").read_bytes()
)
server.trusted_proxies = TRUSTED
server.new_connection_handler = accept
if not server.listen(int(sys.argv[1]), "127.0.0.1"):
    sys.exit(server.error_string)
print(f"listening on 127.0.0.1:{server.port}")
try:
    sslsock.run()
except KeyboardInterrupt:
    print("stopped")
