"""On which line of a TOML document each key and each member of an array stands; tomllib does not tell.

Only for documents that tomllib has taken: nothing is checked here. The grammar is that of https://toml.io/en/v1.0.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Union

__all__ = ["lines_of"]

Path = tuple[Union[str, int], ...]

TOKEN = re.compile(
    r"""
      (?P<string>  \"{3} (?: [^\\] | \\. )*? \"{3,5}   # as many quotes as come belong to it: two may be its last characters
               |   '{3} .*? '{3,5}
               |   " (?: [^"\\] | \\. )* "
               |   ' [^']* ' )
    | (?P<comment> \#[^\n]* )
    | (?P<newline> \n )
    | (?P<mark>    [][{}=,.] )
    | (?P<bare>    [^][{}=,.\s\#"']+ )
    | (?P<space>   [^\S\n]+ )
    """,
    re.VERBOSE | re.DOTALL,
)


class Tokens:
    """The tokens that count, with their lines. `text` is the next one, "" at the end of the document."""

    def __init__(self, document: str) -> None:
        self.stream = self.read(document)
        self.kind = self.text = ""
        self.line = 1
        self.advance()

    @staticmethod
    def read(document: str) -> Iterator[tuple[str, str, int]]:
        line = 1
        for match in TOKEN.finditer(document):
            kind = match.lastgroup or ""
            if kind not in ("space", "comment"):
                yield kind, match.group(), line
            line += match.group().count("\n")

    def advance(self) -> str:
        """Go past the next token; returns its text."""
        passed = self.text
        self.kind, self.text, self.line = next(self.stream, ("end", "", self.line))
        return passed

    def skip_newlines(self) -> None:
        while self.kind == "newline":
            self.advance()


def key_of(tokens: Tokens) -> list[str]:
    """A key with its dots."""
    key = [part_of(tokens)]
    while tokens.text == ".":
        tokens.advance()
        key.append(part_of(tokens))
    return key


def part_of(tokens: Tokens) -> str:
    if tokens.kind == "string":
        return tokens.advance()[1:-1]  # escapes stay: no name that means something needs one
    return tokens.advance()


def lines_of(document: str) -> dict[Path, int]:
    """The line, counted from 1, of every table, key and member of an array, by its path: ("listener", 0, "to", 1).

    RecursionError for arrays in arrays a thousand deep.
    """
    return Scanner(document).scan()


class Scanner:
    """Goes through a document once, statement by statement."""

    def __init__(self, document: str) -> None:
        self.tokens = Tokens(document)
        self.lines: dict[Path, int] = {}
        self.counts: dict[Path, int] = {}  # of the arrays of tables

    def scan(self) -> dict[Path, int]:
        tokens = self.tokens
        table: Path = ()
        while tokens.kind != "end":
            if tokens.kind == "newline":
                tokens.advance()
            elif tokens.text == "[":
                table = self.header()
            else:
                self.pair(table)
        return self.lines

    def header(self) -> Path:
        """[table] or [[array of tables]]; the path of what follows."""
        tokens, line = self.tokens, self.tokens.line
        tokens.advance()
        is_array = tokens.text == "["
        if is_array:
            tokens.advance()
        key = key_of(tokens)
        for _ in range(1 + is_array):
            tokens.advance()
        path: Path = ()
        for part in key[:-1]:
            path = self.within((*path, part), line)
        path = (*path, key[-1])
        if is_array:
            self.lines.setdefault(path, line)
            self.counts[path] = self.counts.get(path, -1) + 1
        path = self.within(path, line)
        self.lines[path] = line
        return path

    def within(self, path: Path, line: int) -> Path:
        """The table that a name in a header means: of an array of tables the last one."""
        self.lines.setdefault(path, line)
        return (*path, self.counts[path]) if path in self.counts else path

    def pair(self, table: Path) -> None:
        tokens, line = self.tokens, self.tokens.line
        path = table
        for part in key_of(tokens):
            path = (*path, part)
            self.lines.setdefault(path, line)
        tokens.advance()  # =
        self.value(path)

    def value(self, path: Path) -> None:
        tokens = self.tokens
        if tokens.text == "[" and tokens.kind == "mark":
            self.array(path)
        elif tokens.text == "{":
            self.inline_table(path)
        else:
            # A number or a time may be several tokens.
            while tokens.kind not in ("newline", "end") and tokens.text not in (",", "]", "}"):
                tokens.advance()

    def array(self, path: Path) -> None:
        tokens, index = self.tokens, 0
        tokens.advance()
        tokens.skip_newlines()
        while tokens.text != "]":
            self.lines[(*path, index)] = tokens.line
            self.value((*path, index))
            index += 1
            tokens.skip_newlines()
            if tokens.text == ",":
                tokens.advance()
                tokens.skip_newlines()
        tokens.advance()

    def inline_table(self, path: Path) -> None:
        tokens = self.tokens
        tokens.advance()
        tokens.skip_newlines()  # TOML 1.1 allows them
        while tokens.text != "}":
            self.pair(path)
            tokens.skip_newlines()
            if tokens.text == ",":
                tokens.advance()
                tokens.skip_newlines()
        tokens.advance()
