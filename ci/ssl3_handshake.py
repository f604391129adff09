"""SSL 3 in both roles: between our client and our server, and of each with the `openssl` command.

usage: ssl3_handshake.py OPENSSL, that program and this sslsock being built with SSL 3.
"""

import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import sslsock
from sslsock import SslCertificate, SslConfiguration, SslKey, SslProtocol, SslServer, SslSocket

DEADLINE = 20  # seconds for one exchange
LINE = b"a line over SSL 3\n"
# What the `openssl` command needs: SSL 3 is below every security level but 0. sslsock sees to that itself.
CIPHERS = "AES128-SHA:@SECLEVEL=0"


def make_certificate(openssl, folder):
    """A self-signed certificate for localhost, in cert.pem and key.pem."""
    (folder / "req.cnf").write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\n"
        "[ext]\nsubjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=critical,CA:TRUE\n"
    )
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2", "-config", "req.cnf"]
    command += ["-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def configuration(folder, *, server):
    result = SslConfiguration()
    result.minimum_protocol = result.maximum_protocol = SslProtocol.SSL_3
    certificate = SslCertificate((folder / "cert.pem").read_bytes())
    if server:
        result.local_certificate = certificate
        result.private_key = SslKey((folder / "key.pem").read_bytes(), SslKey.RSA)
    else:
        result.use_system_ca = False
        result.add_ca_certificate(certificate)
    return result


def run_until_stopped():
    """Runs the loop; True if `sslsock.stop()` ended it and not the deadline."""
    late = []
    timer = sslsock.EventLoop.current().call_later(DEADLINE, lambda: (late.append(1), sslsock.stop()))
    sslsock.run()
    timer.cancel()
    return not late


def start_server(folder):
    """Our server: sends each line back, then closes."""
    taken = []  # a connection lives as long as somebody holds it

    def echo(connection):
        if connection.can_read_line:
            connection.write(connection.read_line())
            connection.disconnect()

    def accept(server):
        connection = server.next_pending_secure_connection()
        connection.ready_read_handler = echo
        connection.error_handler = lambda s, error: print(f"  server: {error!r}: {s.error_string}")
        taken.append(connection)

    server = SslServer()
    server.configuration = configuration(folder, server=True)
    server.new_connection_handler = accept
    if not server.listen(0, "127.0.0.1"):
        sys.exit(f"listen: {server.error_string}")
    return server


def ask(folder, port):
    """Our client: sends LINE, returns the line that comes back and what was negotiated."""
    answer, seen = [], []

    def ready(s):
        if s.can_read_line:
            answer.append(s.read_line())
            s.disconnect()

    socket = SslSocket()
    socket.configuration = configuration(folder, server=False)
    socket.encrypted_handler = lambda s: seen.extend((s.session_protocol, s.session_cipher))
    socket.ready_read_handler = ready
    socket.error_handler = lambda s, error: print(f"  client: {error!r}: {s.error_string}")
    socket.disconnected_handler = lambda s: sslsock.stop()
    socket.connect_encrypted("127.0.0.1", port)
    socket.write(LINE)
    run_until_stopped()
    socket.abort()
    return b"".join(answer), seen


@contextmanager
def openssl_server(openssl, folder):
    """`openssl s_server`, which sends each line back reversed; yields its port."""
    command = [openssl, "s_server", "-ssl3", "-rev", "-accept", "127.0.0.1:0", "-cipher", CIPHERS]
    command += ["-cert", "cert.pem", "-key", "key.pem"]
    pipes = {"stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=folder, **pipes) as process:
        try:
            accept = next(line for line in process.stdout if line.startswith(b"ACCEPT"))
            yield int(accept.rsplit(b":", 1)[1])
        finally:
            process.kill()


def openssl_client(openssl, port):
    """`openssl s_client` sends LINE to our server, which runs meanwhile; returns what it printed."""
    command = [openssl, "s_client", "-ssl3", "-quiet", "-cipher", CIPHERS, "-connect", f"127.0.0.1:{port}"]
    printed = []

    def run():
        try:
            process = subprocess.run(command, input=LINE, capture_output=True, timeout=DEADLINE - 5)
            printed.append(process.stdout)
        except subprocess.TimeoutExpired as error:
            print(f"  client: {error}")
        loop.call_soon_threadsafe(sslsock.stop)

    loop = sslsock.EventLoop.current()
    thread = threading.Thread(target=run)
    thread.start()
    run_until_stopped()
    thread.join()
    return b"".join(printed)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    openssl = sys.argv[1]
    failures = 0

    def report(what, got, wanted, negotiated=None):
        nonlocal failures
        good = got == wanted and (negotiated is None or negotiated[:1] == [SslProtocol.SSL_3])
        failures += not good
        print(f"{'ok    ' if good else 'FAILED'} {what}: {got!r} {negotiated or ''}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificate(openssl, folder)

        server = start_server(folder)
        answer, negotiated = ask(folder, server.port)
        report("our client, our server", answer, LINE, negotiated)
        report("openssl s_client, our server", openssl_client(openssl, server.port), LINE)
        server.close()

        with openssl_server(openssl, folder) as port:
            answer, negotiated = ask(folder, port)
        report("our client, openssl s_server", answer, LINE.strip()[::-1] + b"\n", negotiated)

    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
