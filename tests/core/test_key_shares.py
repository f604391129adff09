"""A connection holds nothing of its key shares after the handshake (include/key_shares.h)."""

import shutil
import subprocess
from pathlib import Path

import pytest

from .pairs import authority

HERE = Path(__file__).parent
INCLUDE = HERE.parent.parent / "include"


def headers():
    """Whether there are a compiler and OpenSSL's headers."""
    if shutil.which("gcc") is None:
        return False
    looked = subprocess.run(["gcc", "-E", "-xc", "-include", "openssl/ssl.h", "-"], input=b"", capture_output=True)
    return looked.returncode == 0


@pytest.mark.skipif(not INCLUDE.exists(), reason="the sources are not beside the tests")
@pytest.mark.skipif(not headers(), reason="no compiler with OpenSSL's headers")
def test_key_shares_are_forgotten(tmp_path):
    certificate = authority("first").issue_cert("localhost")
    (tmp_path / "chain.pem").write_bytes(certificate.cert_chain_pems[0].bytes())
    (tmp_path / "key.pem").write_bytes(certificate.private_key_pem.bytes())
    program = tmp_path / "check"
    flags = ["-O1", "-g", "-Wall", "-Werror", "-fsanitize=address,undefined", f"-I{INCLUDE}"]
    subprocess.run(["gcc", *flags, str(HERE / "key_shares_check.c"), "-o", str(program), "-lssl", "-lcrypto"], check=True)
    done = subprocess.run(
        [str(program), str(tmp_path / "chain.pem"), str(tmp_path / "key.pem")], capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
