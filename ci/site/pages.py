"""What the pages of the documentation take from the package, and what is looked at when they are made: hooks of mkdocs.

A line `::: --help NAME` in a page becomes what the command prints for --help. Links to other hosts have to be well-formed
(nothing is asked over the network), and no page may have a browser fetch anything from another host.
"""

from __future__ import annotations

import logging
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sslsock.__main__ import make_parser
from sslsock._version import DOCUMENTATION

HELP = re.compile(r"^::: --help( \w+)?$", re.M)
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "link": "href"}
NOT_FETCHED = {"canonical", "prev", "next", "alternate"}  # links of the head that only name a page
FOREIGN = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')]+)""")
HOST = re.compile(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}")

log = logging.getLogger("mkdocs.hooks.pages")  # a warning of mkdocs ends a strict build


def on_config(config: Any) -> Any:
    config.site_url = DOCUMENTATION
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    return HELP.sub(lambda found: f"```text\n{help_of(found[1])}```", markdown)


def help_of(command: str | None) -> str:
    os.environ["COLUMNS"] = "86"  # argparse folds to it
    os.environ["NO_COLOR"] = "1"  # argparse of CPython 3.14 colours what it prints
    parser = make_parser(name="sslsock")
    if command is None:
        return parser.format_help()
    commands = next(action for action in parser._actions if action.dest == "command")
    return commands.choices[command.strip()].format_help()  # type: ignore[index]


def on_post_build(config: Any) -> None:
    site = Path(config.site_dir)
    for page in site.rglob("*.html"):
        links = Links()
        links.feed(page.read_text())
        for url in links.fetched:
            if urlsplit(url).netloc:
                log.warning("%s is fetched from another host, in %s", url, page.relative_to(site))
        for url in links.followed:
            fault = fault_of(url)
            if fault:
                log.warning("%s: %s, in %s", url, fault, page.relative_to(site))
    for sheet in site.rglob("*.css"):
        for url in FOREIGN.findall(sheet.read_text()):
            log.warning("%s is fetched from another host, in %s", url, sheet.relative_to(site))


class Links(HTMLParser):
    """The addresses in a page: those that a browser fetches by itself, and those that a reader may follow."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.followed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        url = values.get(FETCHED.get(tag, ""))
        if url and not NOT_FETCHED & set(values.get("rel", "").split()):
            self.fetched.append(url)
        if tag == "a" and values.get("href"):
            self.followed.append(values["href"])


def fault_of(url: str) -> str | None:
    """What is wrong with the form of an address; None where nothing is, and for one of this site, which mkdocs looks at."""
    parts = urlsplit(url)
    if not parts.scheme and not parts.netloc:
        return None
    if parts.scheme == "mailto":
        return None if re.fullmatch(r"[^@\s]+@[^@\s]+", parts.path) else "no address"
    if parts.scheme != "https":
        return "https is needed"
    if parts.username is not None or not HOST.fullmatch(parts.hostname or ""):
        return "no name of a host"
    return "what stands behind it belongs to the sentence" if url[-1] in ".,;:)" else None
