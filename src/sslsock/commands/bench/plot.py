"""The picture of a run: a panel for each group of measures, bars of the rates relative to the baseline."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from ..common import CommandError
from .measures import Results


def check() -> None:
    """CommandError when there is no matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        raise CommandError("--plot needs matplotlib, which is not installed: pip install 'sslsock[bench]'")


def draw(results: Results, path: str) -> None:
    """Write the picture; the ending of the path says in which format."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")  # no display is needed to write a file
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    groups: dict[str, list[Any]] = {}
    for measure in results.measures:
        groups.setdefault(measure.group, []).append(measure)
    peers = sorted({result.peer for result in results.all})
    colours = {peer: pyplot.get_cmap("tab10")(number % 10) for number, peer in enumerate(peers)}

    figure, panels = pyplot.subplots(len(groups), 1, figsize=(10, 3.2 * len(groups)), squeeze=False)
    for panel, (group, measures) in zip(panels[:, 0], groups.items()):
        labelled: set[str] = set()
        for place, measure in enumerate(measures):
            own = results.of(measure)
            base = next((result.rate for result in own if result.peer == measure.baseline), own[0].rate)
            width = 0.8 / len(own)
            for number, result in enumerate(own):
                left = place - 0.4 + (number + 0.5) * width
                low, high = min(result.rates), max(result.rates)
                label = "" if result.peer in labelled else result.peer
                labelled.add(result.peer)
                panel.bar(
                    left,
                    result.rate / base,
                    width,
                    yerr=[[(result.rate - low) / base], [(high - result.rate) / base]],
                    color=colours[result.peer],
                    label=label or None,
                    capsize=2,
                )
        panel.set_title(group)
        panel.set_xticks(range(len(measures)), [f"{measure.title}\n({measure.unit})" for measure in measures])
        panel.set_ylabel(f"rate, {measures[0].baseline} = 1")
        panel.axhline(1, color="black", linewidth=0.5)
        panel.legend(fontsize="small", ncols=4)
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as exc:
        raise CommandError(f"--plot: {path}: {exc}") from None
