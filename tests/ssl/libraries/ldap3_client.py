"""ldap3 makes its own contexts: `install()`. LDAPS, and StartTLS."""

import ssl

from common import CA_FILE, NAME, outcome, read_exactly, report, scripted, switch
import ldap3

switch()

SUCCESS = b"\x0a\1\0\4\0\4\0"
ANSWERS = {0x60: 0x61, 0x77: 0x78}  # bind, extended


def serve(plain, start_tls):
    """Success to a bind and to StartTLS (RFC 4511)."""
    stream, heard = plain, []
    if plain.recv(1, 2)[0] == 0x16:  # MSG_PEEK: a TLS record
        stream = start_tls()
        heard.append("tls")
    while True:
        head = read_exactly(stream, 2)
        size = head[1]
        if size & 0x80:
            size = int.from_bytes(read_exactly(stream, size & 0x7F), "big")
        body = read_exactly(stream, size)
        number, operation = body[: 2 + body[1]], body[2 + body[1]]
        heard.append(hex(operation))
        if operation == 0x42:  # unbind
            return heard
        answer = bytes([ANSWERS[operation], len(SUCCESS)]) + SUCCESS
        stream.sendall(b"\x30" + bytes([len(number) + len(answer)]) + number + answer)
        if operation == 0x77:
            stream = start_tls()


def bind(name, port, start_tls):
    tls = ldap3.Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=CA_FILE, valid_names=[name])
    server = ldap3.Server(name, port, use_ssl=not start_tls, tls=tls, get_info=ldap3.NONE, connect_timeout=10)
    connection = ldap3.Connection(server, "cn=me", "secret")
    connection.open()
    if start_tls:
        connection.start_tls()
    done = connection.bind()
    connection.unbind()
    return done


with scripted(serve) as (port, served):
    results = [bind(NAME, port, False), bind(NAME, port, True)]
    wrong = outcome(lambda: bind("127.0.0.2", port, False))
report(results=results, served=served[:2], wrong_name=wrong[:1])
