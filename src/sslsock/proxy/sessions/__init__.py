"""One connection through the proxy.

    session             from accept to its last word
    attempt             its way to a back end
    header_out          the PROXY header that the back end gets
    client_address      the client's address as one to connect from
"""
