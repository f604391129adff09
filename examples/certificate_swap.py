"""A renewed certificate without a restart: SIGHUP has the server read its files again.

Connections that are open go on as they are; those that come get the new certificate. If
the new files are no good, the old certificate stays.

Run it:

    python certificates.py
    python certificate_swap.py 4433
    kill -HUP PID    # when server.pem and server.key are new; it prints its PID
"""

import os
import signal
import sys
from pathlib import Path

import sslsock


def load():
    configuration = sslsock.SslConfiguration()
    configuration.set_identity(
        Path("server.pem").read_bytes(), Path("server.key").read_bytes()
    )
    return configuration


def reload():
    try:
        server.configuration = load()
    except (OSError, ValueError) as exc:
        print("the old certificate stays:", exc)
    else:
        print("valid until", server.configuration.local_certificate.not_after)


def accept(server):
    while (socket := server.next_pending_secure_connection()) is not None:
        socket.ready_read_handler = lambda socket: socket.write(socket.read_all())
        socket.error_handler = lambda socket, error: None  # clients come and go


server = sslsock.SslServer()
server.configuration = load()
server.new_connection_handler = accept
loop = sslsock.EventLoop.current()
signal.signal(signal.SIGHUP, lambda number, frame: loop.call_soon_threadsafe(reload))
if not server.listen(int(sys.argv[1]), "127.0.0.1"):
    sys.exit(server.error_string)
print(f"listening on 127.0.0.1:{server.port}, process {os.getpid()}")
try:
    sslsock.run()
except KeyboardInterrupt:
    print("stopped")
