"""What the pages of the documentation take from the package: hooks of mkdocs.

A line `::: --help NAME` in a page becomes what the command prints for --help.
"""

from __future__ import annotations

import os
import re
from typing import Any

from sslsock.__main__ import make_parser
from sslsock._version import DOCUMENTATION

HELP = re.compile(r"^::: --help( \w+)?$", re.M)


def on_config(config: Any) -> Any:
    config.site_url = DOCUMENTATION
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    return HELP.sub(lambda found: f"```text\n{help_of(found[1])}```", markdown)


def help_of(command: str | None) -> str:
    os.environ["COLUMNS"] = "90"  # argparse folds to it
    parser = make_parser()
    if command is None:
        return parser.format_help()
    commands = next(action for action in parser._actions if action.dest == "command")
    return commands.choices[command.strip()].format_help()  # type: ignore[index]
