"""TextCodec: `str` over a stream of bytes that come in any pieces.

Holds what a decoder has to remember between reads (a byte order mark, a shift state), but no bytes: those of
a character that is not complete stay in the stream. Bytes that are no text become U+FFFD, for the network
must not raise.

A *unit* is the least number of bytes that give characters by themselves. It may give several: a run of UTF-7, a Hong Kong
letter with its mark. When fewer are wanted than it gives, its bytes stay in the stream until the last of them is taken; how
many have been taken is remembered with the unit.
"""

from __future__ import annotations

import codecs
import sys
from encodings import utf_16, utf_32
from functools import lru_cache
from typing import Any, NamedTuple, Optional

__all__ = ["TextCodec", "check_encoding", "ends_lines_in_ascii"]

# Letters of several scripts, characters that encodings use to shift or escape, a letter with a mark, one beyond 16 bits.
SAMPLE = "Aa\n+~&\\u{-é日か゚\u00ca\u0304ж😀ﾊ-z"

# Multibyte encodings in which a byte of value 10 is a line feed and nothing else. Not hz, where it may end an escape.
MULTIBYTE = ("big5", "cp932", "cp949", "cp950", "euc", "gb", "iso2022", "johab", "shift")


class Utf16Decoder(utf_16.IncrementalDecoder):
    """Reads text without a byte order mark as `bytes.decode` does, in the machine's order: Python's raises."""

    def _buffer_decode(self, data: Any, errors: str, final: bool) -> tuple[str, int]:
        try:
            return super()._buffer_decode(data, errors, final)
        except UnicodeError:
            self.decoder = codecs.utf_16_le_decode if sys.byteorder == "little" else codecs.utf_16_be_decode
            return self.decoder(data, errors, final)


class Utf32Decoder(utf_32.IncrementalDecoder):
    """The same for UTF-32."""

    def _buffer_decode(self, data: Any, errors: str, final: bool) -> tuple[str, int]:
        try:
            return super()._buffer_decode(data, errors, final)
        except UnicodeError:
            self.decoder = codecs.utf_32_le_decode if sys.byteorder == "little" else codecs.utf_32_be_decode
            return self.decoder(data, errors, final)


DECODERS: dict[str, Any] = {"utf-16": Utf16Decoder, "utf-32": Utf32Decoder}


class Unit(NamedTuple):
    """A unit at the front of the stream of which only the first characters were taken."""

    data: bytes
    rest: str
    after: Any  # the decoder's state behind it


class TextCodec:
    """Text of one stream in one encoding."""

    __slots__ = ("_decoder", "_encoder", "_is_utf8", "_unit")

    def __init__(self, encoding: str) -> None:
        name = codecs.lookup(encoding).name
        self._decoder: Any = (DECODERS.get(name) or codecs.getincrementaldecoder(encoding))("replace")
        self._encoder = codecs.getincrementalencoder(encoding)("strict")
        self._is_utf8 = name == "utf-8"
        self._unit: Optional[Unit] = None

    @property
    def least(self) -> int:
        """Bytes that `decode` has to see: those of a unit that it is in the middle of."""
        return 0 if self._unit is None else len(self._unit.data)

    def encode(self, text: str) -> bytes:
        """UnicodeEncodeError for characters that the encoding does not have. All of the text is in the result: nothing waits
        for more, and a shift state is left again."""
        before = self._encoder.getstate()
        try:
            return self._encoder.encode(text, True)
        except UnicodeError:
            self._encoder.setstate(before)
            raise

    def forget_decoded(self) -> None:
        """A new stream of bytes begins to be read."""
        self._decoder.reset()
        self._unit = None

    def decode(self, data: bytes, limit: int, final: bool, consume: bool = True) -> tuple[str, int]:
        """The text at the front of `data`, at most `limit` characters (-1: all), and how many bytes it takes.
        `final`: no more bytes will come. `consume` False: look only, the next call decodes the same again."""
        if limit < 0 and self._is_utf8 and self._unit is None:
            return codecs.utf_8_decode(data, "replace", final)
        decoder = self._decoder
        before, unit = decoder.getstate(), self._unit
        text, place = self._resume(data, limit)
        if self._unit is None:
            if limit < 0:
                text, place = text + decoder.decode(data[place:], final), len(data)
            elif len(text) < limit:
                text, place = self._decode_some(data, text, place, limit, final)
            pending, flags = decoder.getstate()
            decoder.setstate((b"", flags))
            place -= len(pending)
        if not consume:
            decoder.setstate(before)
            self._unit = unit
        return text, place

    def _resume(self, data: bytes, limit: int) -> tuple[str, int]:
        """The characters that are left of a unit, and its length if they are all taken."""
        unit, self._unit = self._unit, None
        if unit is None or not data.startswith(unit.data):  # its bytes were read by other means
            return "", 0
        if 0 <= limit < len(unit.rest):
            self._unit = unit._replace(rest=unit.rest[limit:])
            return unit.rest[:limit], 0
        self._decoder.setstate(unit.after)
        return unit.rest, len(unit.data)

    def _decode_some(self, data: bytes, text: str, place: int, limit: int, final: bool) -> tuple[str, int]:
        """Go on from `place` until there are `limit` characters. Bytes are fed in pieces that may give as many as are wanted;
        one that gives too many is taken back and halved, until a single byte does so: the last of a unit."""
        decoder = self._decoder
        while len(text) < limit:
            before = decoder.getstate()
            held, wanted = len(before[0]), limit - len(text)
            piece = data[place : place + max(1, wanted - (1 if held else 0), held)]
            ends = not piece
            if ends and not (final and held):
                break
            more = decoder.decode(piece, ends)
            while len(more) > wanted and len(piece) > 1:
                decoder.setstate(before)
                piece = piece[: len(piece) // 2]
                more = decoder.decode(piece)
            place += len(piece)
            if len(more) > wanted:
                pending, flags = decoder.getstate()
                self._unit = Unit(data[place - len(piece) - held : place - len(pending)], more[wanted:], (b"", flags))
                decoder.setstate((b"", before[1]))
                return text + more[:wanted], place - len(piece) - held
            text += more
        return text, place


@lru_cache(maxsize=64)
def check_encoding(encoding: str) -> None:
    """LookupError for an encoding that Python lacks, ValueError for one that cannot be read in pieces: what its decoder says
    must not depend on how the bytes were cut."""
    "".encode(encoding)  # LookupError also for codecs that are no text encodings, such as "hex"
    try:
        codec = TextCodec(encoding)
        data = b"".join(codec.encode(char) for char in SAMPLE if encodes(encoding, char))
        whole = codecs.getincrementaldecoder(encoding)("replace").decode(data, True)
        text, buffer = "", b""
        for number in range(len(data)):
            buffer += data[number : number + 1]
            more = "?"
            while more:
                more, taken = codec.decode(buffer, 1, number == len(data) - 1)
                buffer = buffer[taken:]
                text += more
        fits = text == whole and bool(whole)
    except Exception:  # whatever a codec raises, it would raise while reading
        fits = False
    if not fits:
        raise ValueError(f"text in {encoding!r} cannot be read in pieces, as a stream brings it")


def encodes(encoding: str, char: str) -> bool:
    try:
        return bool(char.encode(encoding))
    except UnicodeError:
        return False


@lru_cache(maxsize=64)
def ends_lines_in_ascii(encoding: str) -> bool:
    """True when a line feed is one byte of value 10, and that byte is nothing else."""
    name = codecs.lookup(encoding).name
    if name.startswith(("utf-8", "utf_8", *MULTIBYTE)):
        return True
    try:
        of_one = [bytes((number,)).decode(encoding, "replace") for number in range(256)]
        escapes = any("\n" in escape.decode(encoding, "replace") for escape in (b"\\n", b"\\u000a"))
    except UnicodeError:
        return False
    single = all(len(text) == 1 for text in of_one)
    return single and not escapes and name != "hz" and [number for number, text in enumerate(of_one) if text == "\n"] == [10]
