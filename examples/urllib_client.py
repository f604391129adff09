"""`from sslsock import ssl` in the place of `import ssl`: urllib over sslsock's TLS.

Run it:

    python urllib_client.py https://www.python.org/
    python urllib_client.py https://localhost:8443/ ca.pem

The last line is for a server of these examples, such as tls_proxy.py.
"""

import sys
import urllib.error
import urllib.request

from sslsock import ssl

context = ssl.create_default_context(cafile=sys.argv[2] if len(sys.argv) > 2 else None)
print(type(context).__module__, ssl.OPENSSL_VERSION)
try:
    with urllib.request.urlopen(sys.argv[1], context=context, timeout=30) as answer:
        print(answer.status, answer.read(200))
except urllib.error.URLError as exc:
    sys.exit(f"failed: {exc.reason}")
