"""A browser fetches a page of 100 files through the proxy, from nginx."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path as FilePath

import pytest

from command_helpers import Identity
from interop.programs import program

from .test_programs import FILES, Site, site

__all__ = ["site"]

LIMIT = 240.0  # seconds: a browser is large, and the machine may be slow
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--ignore-certificate-errors",
    "--virtual-time-budget=20000", "--dump-dom",
)  # fmt: skip
PAGE = """<!doctype html>
<title>{count} files</title>
<p id="told">nothing</p>
<script>
let count = 0;
function loaded(number) {{ count += 1; document.getElementById("told").textContent = "loaded " + count; }}
</script>
{scripts}
"""


@pytest.mark.parametrize(("options", "protocol"), [((), "h2"), (("--disable-http2",), "http/1.1")], ids=["HTTP/2", "HTTP/1.1"])
def test_a_page_of_many_files(
    site: Site, identity: Identity, tmp_path: FilePath, options: tuple[str, ...], protocol: str
) -> None:
    scripts = "\n".join(f'<script src="{number}.js"></script>' for number in range(FILES))
    (site.folder / "www" / "page.html").write_text(PAGE.format(count=FILES, scripts=scripts))
    arguments = [
        program("chromium", "chromium"), *FLAGS, *options, f"--user-data-dir={tmp_path / 'profile'}",
        f"https://127.0.0.1:{site.proxy.port}/page.html",
    ]  # fmt: skip
    environment = {**os.environ, "HOME": str(tmp_path)}
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=LIMIT, env=environment)
    assert f'<p id="told">loaded {FILES}</p>' in result.stdout, result.stderr[-2000:]
    record = next(record for record in iter(site.proxy.record, None) if record["alpn"] == protocol and record["bytes_back"])
    assert record["reason"] in ("ended", "client_reset", "truncated"), record
