"""`version`: what is installed, for a report of a bug."""

from __future__ import annotations

import argparse
import platform

from .. import build_info


def run(arguments: argparse.Namespace) -> int:
    build = build_info()
    linked = {"static": "in the package", "shared": "the machine's"}[build["openssl_linked"]]
    rows = {
        "sslsock": build["version"],
        "OpenSSL": f"{build['openssl']}, {linked}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "build": f"{build['compiler']}, {build['c_library']}, {build['mode']}",
        "certificates": build["openssl_directory"],
        "openssl.cnf": build["openssl_configuration"],
        "processor": build["cpu"],
        "options": build["openssl_compiler"],
    }
    for name, value in rows.items():
        print(f"{name:<13} {value}")
    return 0
