"""The picture of a run: a row for each group of measures, rates on the left and processor time on the right.

Bars are medians relative to the baseline, lines on them reach from the lowest round to the highest.
"""

from __future__ import annotations

import importlib
import importlib.util
import textwrap
from statistics import median
from typing import Any, Callable

from ..common import CommandError
from .measures import Measure, Result, Results
from .report import suites_text, versions

WIDTH = 0.8  # of all bars of one measure
LINE = 0.18  # inches, of small text


def check() -> None:
    """CommandError when there is no matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        raise CommandError("--plot needs matplotlib, which is not installed: pip install 'sslsock[bench]'")


def draw_bars(
    panel: Any,
    measures: list[Measure],
    results: Results,
    values: Callable[[Result], list[float]],
    colours: dict[str, Any],
) -> None:
    """One panel. `values`: the figures of all rounds."""
    labelled: set[str] = set()
    for place, measure in enumerate(measures):
        own = results.of(measure)
        base = next((result for result in own if result.peer == measure.baseline), own[0])
        scale = median(values(base))
        width = WIDTH / len(own)
        for number, result in enumerate(own):
            figures = [value / scale for value in values(result)]
            height = median(figures)
            panel.bar(
                place - WIDTH / 2 + (number + 0.5) * width,
                height,
                width,
                yerr=[[height - min(figures)], [max(figures) - height]],
                color=colours[result.peer],
                label=None if result.peer in labelled else result.peer,
                capsize=2,
            )
            labelled.add(result.peer)
    panel.axhline(1, color="black", linewidth=0.5)


def draw(results: Results, path: str) -> None:
    """Write the picture; the ending of the path says in which format."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")  # no display is needed to write a file
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    groups: dict[str, list[Measure]] = {}
    for measure in results.measures:
        groups.setdefault(measure.group, []).append(measure)
    peers = sorted({result.peer for result in results.all})
    colours = {peer: pyplot.get_cmap("tab20")(number % 20) for number, peer in enumerate(peers)}

    figure, panels = pyplot.subplots(len(groups), 2, figsize=(16, 3.2 * len(groups)), squeeze=False)
    for (left, right), (group, measures) in zip(panels, groups.items()):
        draw_bars(left, measures, results, lambda result: result.rates, colours)
        draw_bars(right, measures, results, lambda result: result.costs, colours)
        left.set_title(f"{group}: rate, more is better")
        right.set_title("processor time for the same work, less is better")
        left.set_ylabel(f"{measures[0].baseline} = 1")
        for panel in (left, right):
            panel.set_xticks(range(len(measures)), [measure.title for measure in measures])
        right.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    parts = [f"{name}: {version}" for name, version in versions(results.peers).items()]
    figure.text(0.01, 0.01, "\n".join([suites_text(results), *textwrap.wrap("; ".join(parts), 220)]), fontsize="small")
    figure.tight_layout(rect=(0, (1 + len(parts) / 2) * LINE / figure.get_figheight(), 1, 1))
    try:
        figure.savefig(path, dpi=100)
    except (OSError, ValueError) as exc:
        raise CommandError(f"--plot: {path}: {exc}") from None
