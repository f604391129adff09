"""TextCodec: `str` over a stream of bytes that come in any pieces.

Holds what a decoder has to remember between reads (a byte order mark, a shift state), but no bytes: those of
a character that is not complete stay in the stream. Bytes that are no text become U+FFFD, for the network
must not raise.
"""

import codecs

__all__ = ["TextCodec"]

REPLACEMENT = "\ufffd"


class TextCodec:
    """Text of one stream in one encoding."""

    __slots__ = ("_decoder", "_encoder", "_is_utf8")

    def __init__(self, encoding: str) -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._encoder = codecs.getincrementalencoder(encoding)("strict")
        self._is_utf8 = codecs.lookup(encoding).name == "utf-8"

    def encode(self, text: str) -> bytes:
        """UnicodeEncodeError for characters that the encoding does not have."""
        return self._encoder.encode(text)

    def decode(self, data: bytes, limit: int, final: bool, consume: bool = True) -> "tuple[str, int]":
        """The text at the front of `data`, at most `limit` characters (-1: all), and how many bytes it takes.
        `final`: no more bytes will come. `consume` False: look only, the next call decodes the same again."""
        if limit < 0 and self._is_utf8:
            return codecs.utf_8_decode(data, "replace", final)
        decoder = self._decoder
        before = decoder.getstate()
        if limit < 0:
            text, taken = decoder.decode(data, final), len(data)
        else:
            text, taken = self._decode_some(data, limit, final)
        pending, flags = decoder.getstate()
        decoder.setstate((b"", flags) if consume else before)
        return text, taken - len(pending)

    def _decode_some(self, data: bytes, limit: int, final: bool) -> "tuple[str, int]":
        """Feeds no more bytes than characters are wanted, so that none is decoded too many."""
        decoder = self._decoder
        text, place = "", 0
        while len(text) < limit and place < len(data):
            before = decoder.getstate()
            wanted = limit - len(text)
            chunk = data[place : place + max(1, wanted - (1 if before[0] else 0))]
            more = decoder.decode(chunk)
            if len(more) > wanted and more.startswith(REPLACEMENT):
                # This byte has proved those before it wrong, and is a character itself: leave it for the next
                # time.
                decoder.setstate(before)
                return text + decoder.decode(b"", True), place
            text += more
            place += len(chunk)
        if final and place == len(data) and len(text) < limit:
            text += decoder.decode(b"", True)
        return text, place


def ends_lines_in_ascii(encoding: str) -> bool:
    """True when a line feed is one byte of value 10, and that byte is nothing else."""
    return not codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))
