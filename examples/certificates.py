"""Makes the certificates that the other examples use, in the current folder:

    ca.pem                  the authority; clients of the servers trust this file
    server.pem, server.key  a certificate for localhost, and its private key
    client.pem, client.key  a certificate for the client "visitor", and its private key
    one.example.pem, …      for server_names.py; two.example as well

Run it:

    pip install trustme
    python certificates.py

They are for trying things out. A server that others use gets its certificate from a
real authority, such as Let's Encrypt.
"""

import os

import trustme


def write(issued: trustme.LeafCert, name: str) -> None:
    # The certificate first, then those that lead from it to the authority
    with open(f"{name}.pem", "wb") as file:
        file.write(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    with open(
        os.open(f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
    ) as file:
        file.write(issued.private_key_pem.bytes())
    print(f"{name}.pem and {name}.key")


authority = trustme.CA()
authority.cert_pem.write_to_path("ca.pem")
print("ca.pem")
write(
    authority.issue_cert("localhost", "127.0.0.1", "::1", common_name="localhost"), "server"
)
write(authority.issue_cert("visitor@example.org", common_name="visitor"), "client")
write(authority.issue_cert("one.example", common_name="one.example"), "one.example")
write(authority.issue_cert("two.example", common_name="two.example"), "two.example")
