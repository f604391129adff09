"""ldap3 with OpenLDAP, whose TLS is GnuTLS's in Debian: LDAPS, StartTLS, a client's certificate."""

import ssl

from common import CA_FILE, CLIENT_FILE, NAME, PORTS, WRONG_NAME, report, switch
import ldap3

switch()

ROOT = "cn=me,dc=example"
NUMBER = 500


def connect(start_tls=False, name=NAME, certified=False, **options):
    files = {"local_certificate_file": CLIENT_FILE, "local_private_key_file": CLIENT_FILE} if certified else {}
    tls = ldap3.Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=CA_FILE, valid_names=[name], **files)
    port = PORTS[0] if start_tls else PORTS[1]
    server = ldap3.Server(name, port, use_ssl=not start_tls, tls=tls, get_info=ldap3.NONE, connect_timeout=10)
    connection = ldap3.Connection(server, **options)
    connection.open()
    if start_tls:
        assert connection.start_tls()
    return connection


def tree(connection):
    """Entries that fill many records, written and read back."""
    done = [connection.add("dc=example", ["dcObject", "organization"], {"o": "example"})]
    for number in range(NUMBER):
        done.append(connection.add(f"cn={number},dc=example", "device", {"description": f"{number} " + "d" * 1000}))
    assert connection.search("dc=example", "(objectClass=device)", attributes=["description"])
    sizes = [len(entry.description.value) for entry in connection.entries]
    return all(done), len(sizes), sum(sizes)


def one(**options):
    connection = connect(**options)
    bound = connection.bind()
    found = connection.search("dc=example", "(cn=7)", attributes=["description"])
    who = connection.extend.standard.who_am_i()
    connection.unbind()
    return bound, found, who


loader = connect(user=ROOT, password="secret")
loader.bind()
results = [tree(loader)]
simple = {"user": ROOT, "password": "secret"}
external = {"authentication": ldap3.SASL, "sasl_mechanism": ldap3.EXTERNAL, "sasl_credentials": "", "certified": True}
for start_tls in (False, True):
    results.append(one(start_tls=start_tls, **simple))
    results.append(one(start_tls=start_tls, **external))
threaded = connect(**simple, client_strategy=ldap3.ASYNC)
threaded.bind()
asked = [threaded.search("dc=example", f"(cn={number})", attributes=["description"]) for number in range(20)]
results.append([len(threaded.get_response(number)[0]) for number in asked])
threaded.unbind()
for number in range(NUMBER):
    loader.delete(f"cn={number},dc=example")
results.append(loader.delete("dc=example"))
loader.unbind()
try:
    wrong_name = connect(name=WRONG_NAME)
except ldap3.core.exceptions.LDAPSocketOpenError as exc:
    wrong_name = "doesn't match any name" in str(exc)  # it compares names itself
assert wrong_name is True
report(results=results)
