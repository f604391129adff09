"""ldap3 makes its own contexts: `install()`. LDAPS, and StartTLS."""

import ssl

from common import CA_FILE, NAME, outcome, report, scripted, switch
from peers import serve_ldap
import ldap3

switch()


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


with scripted(serve_ldap) as (port, served):
    results = [bind(NAME, port, False), bind(NAME, port, True)]
    wrong = outcome(lambda: bind("127.0.0.2", port, False))
report(results=results, served=served[:2], wrong_name=wrong[:1])
