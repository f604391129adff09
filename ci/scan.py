"""What testssl.sh and sslyze find in the proxy as it is by default; `ci/scan` runs this.

Exit status: 0 nothing above "low" that is not excused below, 1 something, or a scan that did not come to its end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

SECONDS = 900  # for one scan
GRAVE = ("MEDIUM", "HIGH", "CRITICAL", "FATAL")
LEAST_FINDINGS = 80  # of testssl; fewer mean that it gave up

CERTIFICATE = "the certificate is a test's"
# The start of a finding's name: why it is not ours to mend.
EXCUSED = {
    "cert_validityPeriod": CERTIFICATE,
    "cert_revocation": CERTIFICATE,
    "security_headers": "headers are the back end's",
    "sslyze certificate_path_validation": CERTIFICATE,
    "sslyze maximum_certificate_lifespan": CERTIFICATE,
    "sslyze tls_curves: TLS curves {'secp521r1'}": "P-521 is there for client certificates with TLS 1.2 (docs/security.md)",
}


class Answer(BaseHTTPRequestHandler):
    """The back end: a proxy without one would fail the scans that want an answer."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def make_certificates(folder: Path, kind: str) -> tuple[Path, Path, Path]:
    """The authority's file, the certificate's and the key's."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType[kind])
    names = folder / "ca.pem", folder / "server.pem", folder / "server.key"
    authority.cert_pem.write_to_path(names[0])
    names[1].write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(names[2])
    return names


@contextlib.contextmanager
def proxy(target: int, certificate: Path, key: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "sslsock", "proxy", "--listen", "tls://127.0.0.1:0", "--to", f"tcp://127.0.0.1:{target}"]
    with subprocess.Popen([*command, "--cert", certificate, "--key", key], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"listening on tls://[^,]*:(\d+),", process.stdout.readline())
            if found is None:
                raise SystemExit("the proxy does not start")
            yield int(found[1])
        finally:
            process.terminate()


def testssl(port: int, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Severity, name and words of every finding."""
    results = folder / "testssl.json"
    command = ["testssl", "--quiet", "--warnings", "off", "--color", "0", "--ip", "one"]
    # Its own exit status counts findings; how far it came tells the file.
    subprocess.run(
        [*command, "--add-ca", folder / "ca.pem", "--jsonfile", results, f"https://localhost:{port}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=SECONDS,
    )  # fmt: skip
    found = json.loads(results.read_text()) if results.exists() else []
    if len(found) < LEAST_FINDINGS:
        yield "FATAL", "testssl", f"it came to {len(found)} results only"
    for finding in found:
        yield finding["severity"], finding["id"], finding["finding"]


def sslyze(program: str, port: int, folder: Path) -> Iterator[tuple[str, str, str]]:
    """What it finds against Mozilla's configuration "intermediate": it knows no severities, so each counts as high."""
    done = subprocess.run(
        [program, "--certinfo_ca_file", folder / "ca.pem", f"localhost:{port}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS,
    )  # fmt: skip
    _, begin, compliance = done.stdout.partition("COMPLIANCE AGAINST")
    if not begin or f"localhost:{port}: " not in compliance or "ERROR" in compliance:
        yield "FATAL", "sslyze", done.stdout[-500:]
    for line in done.stdout.splitlines():
        if "VULNERABLE -" in line and "Not vulnerable" not in line:
            yield "HIGH", "sslyze", line.strip()
    for name, words in re.findall(r"^ +\* (\w+): (.*)$", compliance, re.M):
        yield "HIGH", f"sslyze {name}", words


def excuse(name: str, words: str) -> str:
    """Why a finding does not count, "" when it does."""
    return next((why for start, why in EXCUSED.items() if f"{name}: {words}".startswith(start)), "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sslyze", metavar="PROGRAM", required=True)
    parser.add_argument("--only", choices=("testssl", "sslyze"))
    options = parser.parse_args()
    back = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=back.serve_forever, daemon=True).start()
    count = 0
    for kind in ("ECDSA", "RSA"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _, certificate, key = make_certificates(folder, kind)
            with proxy(back.server_address[1], certificate, key) as port:
                found = [] if options.only == "sslyze" else list(testssl(port, folder))
                found += [] if options.only == "testssl" else sslyze(options.sslyze, port, folder)
        print(f"{kind} certificate: {len(found)} results")
        for severity, name, words in found:
            if severity in GRAVE:
                why = excuse(name, words)
                count += not why
                print(f"  {severity}: {name}: {words}" + (f"   (excused: {why})" if why else ""))
    print(f"{count} findings to mend")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
