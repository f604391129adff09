"""Layer 3: `sslsock.ssl`, the interface of the standard library's `ssl` on this package's OpenSSL, as far as it is Python.

`stdlib_code` executes the interpreter's own `ssl.py` over `sslsock._ssl`, `shared` makes the result one family with the
interpreter's `ssl`, `sockets` has the classes that contexts hand out, `switch` puts all of it in the place of `ssl`.
"""
