"""`version`: what is installed, for a report of a bug."""

from __future__ import annotations

import argparse
import platform

from .. import __version__, openssl_version


def run(arguments: argparse.Namespace) -> int:
    print(f"sslsock   {__version__}")
    print(f"OpenSSL   {openssl_version()}")
    print(f"Python    {platform.python_implementation()} {platform.python_version()}")
    print(f"platform  {platform.platform()}")
    return 0
