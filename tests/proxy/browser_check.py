"""A browser fetches a page of 100 files through the proxy, from nginx. Not part of the suite, for it needs Chromium:

    apt-get install chromium
    python -m pytest tests/proxy/browser_check.py
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path as FilePath

import pytest

from command_helpers import Identity
from interop.programs import program

from .running import TIMEOUT
from .test_programs import FILES, Site, site

__all__ = ["site"]

PAGE = """<!doctype html>
<title>{count} files</title>
<p id="told">nothing</p>
<script>
let count = 0;
function loaded(number) {{ count += 1; document.getElementById("told").textContent = "loaded " + count; }}
</script>
{scripts}
"""


@pytest.mark.parametrize("options", [[], ["--disable-http2"]], ids=["HTTP/2", "HTTP/1.1"])
def test_a_page_of_many_files(site: Site, identity: Identity, tmp_path: FilePath, options: list[str]) -> None:
    scripts = "\n".join(f'<script src="{number}.js"></script>' for number in range(FILES))
    (site.folder / "www" / "page.html").write_text(PAGE.format(count=FILES, scripts=scripts))
    arguments = [
        program("chromium", "chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", "--dump-dom", *options,
        f"https://127.0.0.1:{site.proxy.port}/page.html",
    ]  # fmt: skip
    result = subprocess.run(
        arguments, capture_output=True, text=True, timeout=4 * TIMEOUT, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert f'<p id="told">loaded {FILES}</p>' in result.stdout, result.stderr[-2000:]
    expected = "http/1.1" if options else "h2"
    record = next(record for record in iter(site.proxy.record, None) if record["alpn"] == expected)
    assert record["reason"] in ("ended", "client_reset", "truncated"), record
