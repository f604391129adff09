"""A TLS proxy: TLS from the clients, plain TCP to the server behind it. The bytes go
through in C.

Run it, with a server in another terminal (`python -m http.server 8080`):

    python certificates.py
    python tls_proxy.py 8443 127.0.0.1 8080

and ask it: `curl --cacert ca.pem https://localhost:8443/`. Ctrl-C ends it.

For a proxy that is ready (routes, reload, metrics, …) there is `python -m sslsock
proxy`.
"""

import sys
from pathlib import Path

import sslsock

port, back_host, back_port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])


def accept(server):
    while (front := server.next_pending_secure_connection()) is not None:
        connect_back(front)


def connect_back(front):
    def connected(back):
        sslsock.Relay(front, back, idle_timeout=300)  # from here on it is C alone

    def failed(back, error):
        print(back.error_string)
        front.abort()

    back = sslsock.TcpSocket()
    back.connected_handler = connected
    back.error_handler = failed
    front.disconnected_handler = lambda front: back.abort()  # it has left too early
    back.connect(back_host, back_port)


server = sslsock.SslServer()
server.configuration.set_identity(
    Path("server.pem").read_bytes(), Path("server.key").read_bytes()
)
server.new_connection_handler = accept
if not server.listen(port, "127.0.0.1"):
    sys.exit(server.error_string)
print(f"listening on 127.0.0.1:{server.port}")
try:
    sslsock.run()
except KeyboardInterrupt:
    print("stopped")
