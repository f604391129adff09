"""`ci/benchmark-report`: the tables and the chart say what the benchmarks' files say."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from peers import needs_sources

pytestmark = needs_sources

ROOT = Path(__file__).resolve().parent.parent
PAGE = "Before.\n\n<!-- table proxy -->\nold\n<!-- end -->\n\nBetween.\n\n<!-- table application -->\n<!-- end -->\nAfter.\n"


def run_of(**measures: dict[str, list[Any]]) -> dict[str, Any]:
    """What a benchmark writes with --json. measures: by name, with "_" for " ", of each peer its rounds."""
    return {
        "rounds": 3,
        "versions": {"Python": "3.99.1", "haproxy": "HAProxy version 9.9"},
        "cipher": "TLS_X",
        "group": "Y",
        "congestion_control": "cubic",
        "measures": [{"name": name.replace("_", " "), "values": values} for name, values in measures.items()],
    }


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, which writes below tmp_path."""
    loader = importlib.machinery.SourceFileLoader("benchmark_report", str(ROOT / "ci" / "benchmark-report"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    page = tmp_path / "benchmarks.md"
    page.write_text(PAGE)
    monkeypatch.setattr(module, "PAGE", page)
    monkeypatch.setattr(module, "CHART", tmp_path / "images" / "benchmarks.svg")
    monkeypatch.setattr(sys, "argv", ["benchmark-report", str(tmp_path)])
    return module


def write(folder: Path, **runs: dict[str, Any]) -> None:
    for name, run in runs.items():
        (folder / f"{name}.json").write_text(json.dumps(run))


PROXY = run_of(
    GiB={"sslsock": [0.5, 0.4, 9.0], "haproxy": [1.0, 1.0, 1.0], "nginx stream": [2.0, None, 2.0]},
    request_of_1_KiB={"sslsock": [8.04, 8.06, 8.0], "haproxy": [10.0, 11.0, 9.0]},
    connection_with_one_request={"sslsock": [1234.0], "haproxy": [1000.0], "nginx stream": [None]},
)
APPLICATION = run_of(
    GiB_sent={"sslsock-aio": [0.5], "uvloop": [1.0], "asyncio": [1.5]},
    request_of_1_KiB={"sslsock-aio": [5.0], "uvloop": [10.0], "asyncio": [20.0]},
    connection_with_one_request={"sslsock-aio": [100.0], "uvloop": [400.0], "asyncio": [500.0]},
)


def test_a_table_has_medians_and_leaves_the_words_around_it(report: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, proxy=PROXY)
    report.main()
    text = report.PAGE.read_text()
    assert text.startswith("Before.\n\n<!-- table proxy -->\n| |")
    assert text.endswith("<!-- end -->\n\nBetween.\n\n<!-- table application -->\n<!-- end -->\nAfter.\n")
    assert "| **sslsock** | 0.50 | 8.04 | 1,234 | – | – |" in text
    assert "| HAProxy | 1.00 | 10.0 | 1,000 | – | – |" in text
    assert "| nginx | 2.00 | – | – | – | – |" in text
    assert "3 rounds. TLS 1.3, TLS_X, Y. Congestion control: cubic. Python: 3.99.1; haproxy: HAProxy version 9.9." in text
    assert "old" not in text
    assert not report.CHART.exists(), "a chart of half the figures"


def test_the_chart_has_the_ratios(report: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, proxy=PROXY, application=APPLICATION)
    report.main()
    words = [found.text for found in ElementTree.parse(report.CHART).iter("{http://www.w3.org/2000/svg}text")]
    for said in ("sslsock 0.50", "HAProxy 1.00", "nginx 2.00", "sslsock 0.80", "sslsock.aio 0.25", "asyncio 1.25"):
        assert said in words
    assert "aiofastnet 0.00" not in words


def test_a_page_without_a_place_is_an_error(report: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report.PAGE.write_text("nothing")
    write(tmp_path, proxy=PROXY)
    with pytest.raises(SystemExit):
        report.main()
    assert "no place for the table 'proxy'" in capsys.readouterr().err
    assert report.PAGE.read_text() == "nothing"
