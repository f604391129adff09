"""Certificates that the proxy obtains and renews by itself (ACME, RFC 8555).

    storage     where account, certificates and questions under way are kept, for all who share it
    challenges  what the authority is answered that looks whether a name leads here (RFC 8737; RFC 8555, 8.3)
    client      what is said to the authority, and by which account
    order       one certificate, from the order to the download
    plan        when: ARI's window (RFC 9773) or two thirds of a lifetime, and after failures
    manager     the thread that does all this, and what the rest of the proxy gets of it
    http        the listener of http-01

Only `client` and `order` import the package `acme`, and only who asks for certificates imports them.
"""
