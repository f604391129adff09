"""requests over sslsock's TLS: it makes its contexts itself, so `install()` puts ours
in the place of the interpreter's `ssl`.

Run it:

    pip install requests
    python requests_client.py https://www.python.org/
    python requests_client.py https://localhost:8443/ ca.pem

The last line is for a server of these examples, such as tls_proxy.py.
"""

import sslsock.ssl

sslsock.ssl.install()  # before the other imports

import ssl  # noqa: E402
import sys  # noqa: E402

import requests  # noqa: E402

print(ssl.SSLContext.__module__, ssl.OPENSSL_VERSION)
try:
    answer = requests.get(
        sys.argv[1], verify=sys.argv[2] if len(sys.argv) > 2 else True, timeout=30
    )
    print(answer.status_code, answer.content[:200])
except requests.exceptions.RequestException as exc:
    sys.exit(f"failed: {exc}")
