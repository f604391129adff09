"""The version of the package, in the one place that the build, `sslsock.__version__` and `python -m sslsock version` read.
And where its documentation is, in the one place that `--help` and the site read.
"""

__version__ = "0.1.0"

DOCUMENTATION = "https://sslsock.example/"  # a placeholder (RFC 2606) until the site has an address
