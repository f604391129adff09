"""ldap3 makes its own contexts: `install()`. LDAPS, and StartTLS."""

import ssl

from common import CA_FILE, NAME, WRONG_NAME, report, scripted, switch
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


def bind_with_a_wrong_name(port):
    try:
        return bind(WRONG_NAME, port, False)
    except ldap3.core.exceptions.LDAPSocketOpenError as exc:
        return "doesn't match any name" in str(exc)  # it compares names itself


with scripted(serve_ldap) as (port, served):
    results = [bind(NAME, port, False), bind(NAME, port, True)]
    refused = bind_with_a_wrong_name(port)
assert refused
report(results=results, served=served[:2])
