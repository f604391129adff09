"""Stream: lines, text, peeking and what a sequential stream does not have. On TCP sockets, which fill it in."""

from __future__ import annotations

import pytest

from peers import make_tcp_pair
from sslsock import OpenMode, Stream, TcpSocket


@pytest.fixture
def pair(host):
    pair = make_tcp_pair(host, reads=False)
    yield pair
    pair.client.abort()
    pair.server.abort()


def send(pair, data):
    """Have the server's socket hold so many bytes more."""
    size = pair.server.bytes_available + len(data)
    pair.client.write(data)
    pair.host.wait_for(lambda: pair.server.bytes_available == size)


def test_a_stream_is_abstract(own_host):
    with pytest.raises(TypeError):
        Stream()


def test_a_sequential_stream_has_no_positions(own_host):
    sock = TcpSocket()
    assert sock.sequential is True
    assert sock.pos == 0
    assert sock.seek(0) is False
    assert sock.reset() is False


def test_peeking_takes_nothing(pair):
    send(pair, b"abcdef")
    assert pair.server.peek() == pair.server.peek_bytes() == b"abcdef"
    assert pair.server.peek(2) == pair.server.peek_bytes(2) == b"ab"
    assert pair.server.peek_string(3) == "abc"
    assert pair.server.bytes_available == 6


def test_reading_takes_at_most_what_is_asked(pair):
    send(pair, b"abcdefgh")
    assert not pair.server.at_end
    assert pair.server.read(0) == b""
    assert pair.server.read(2) == b"ab"
    assert pair.server.read_bytes(1) == b"c"
    assert pair.server.read_string(1) == "d"
    assert pair.server.read(100) == b"efgh"
    assert pair.server.at_end
    assert pair.server.read() == pair.server.read_all() == pair.server.read_bytes() == b""


def test_reading_into_a_buffer_fills_it(pair):
    send(pair, b"abcdef")
    buffer = bytearray(b"....")
    assert pair.server.read_into(buffer) == 4
    assert buffer == b"abcd"
    assert pair.server.read_into(memoryview(buffer)[1:]) == 2
    assert buffer == b"aefd"
    assert pair.server.read_into(buffer) == 0
    with pytest.raises((TypeError, BufferError)):
        pair.server.read_into(b"read only")


def test_lines(pair):
    send(pair, b"one\ntwo\r\n\nlast")
    assert pair.server.can_read_line
    assert pair.server.read_line() == b"one\n"
    assert pair.server.read_line(2) == b"tw"
    assert pair.server.read_line_bytes() == b"o\r\n"
    assert pair.server.read_line_string() == "\n"
    assert not pair.server.can_read_line
    assert pair.server.read_line() == b"last"
    assert pair.server.read_line() == b""


def test_lines_of_text(pair):
    send(pair, "größe\nmaß\nüber".encode())
    assert pair.server.read_line_string(4) == "größ"
    assert pair.server.read_line_string() == "e\n"
    assert pair.server.read_line_string(100) == "maß\n"
    assert pair.server.read_line_string() == "über"


def test_a_character_that_is_not_complete_waits(pair):
    euro = "€".encode()
    send(pair, b"1" + euro[:1])
    assert pair.server.read_string() == "1"
    assert pair.server.read_all_string() == pair.server.peek_string() == pair.server.read_line_string() == ""
    assert pair.server.bytes_available == 1
    send(pair, euro[1:2])
    assert pair.server.read_string(5) == ""
    send(pair, euro[2:] + b"2")
    assert pair.server.peek_string() == "€2"
    assert pair.server.read_string(1) == "€"
    assert pair.server.read_all_string() == "2"


def test_at_the_end_an_incomplete_character_is_replaced(pair):
    send(pair, b"1" + "€".encode()[:2])
    pair.client.disconnect()
    pair.host.wait_for(lambda: pair.right.has("disconnected"))
    assert pair.server.read_all_string() == "1\ufffd"
    assert pair.server.bytes_available == 0


def test_bytes_that_are_no_text_do_not_raise(pair):
    send(pair, b"a\xff\xfeb")
    assert pair.server.read_string() == "a\ufffd\ufffdb"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le", "utf-16", "cp1252", "utf-32"])
def test_text_in_other_encodings(pair, encoding):
    pair.client.encoding = pair.server.encoding = encoding
    assert pair.server.encoding == encoding
    first = pair.client.write_string("zwölf\n")
    second = pair.client.write_string("Boxkämpfer")
    assert first + second == len("zwölf\nBoxkämpfer".encode(encoding))
    pair.host.wait_for(lambda: pair.server.bytes_available == first + second)
    assert pair.server.read_line_string() == "zwölf\n"
    assert pair.server.read_string(3) == "Box"
    assert pair.server.read_all_string() == "kämpfer"


@pytest.mark.parametrize(("name", "error"), [("klingon", LookupError), ("hex", LookupError), (8, TypeError)])
def test_an_encoding_has_to_exist(own_host, name, error):
    sock = TcpSocket()
    with pytest.raises(error):
        sock.encoding = name
    assert sock.encoding == "utf-8"


def test_written_text_has_to_be_text(pair):
    with pytest.raises(TypeError):
        pair.client.write_string(b"bytes")
    pair.client.encoding = "ascii"
    with pytest.raises(UnicodeEncodeError):
        pair.client.write_string("ä")
    assert pair.client.write_bytes(b"bytes") == 5


@pytest.mark.parametrize(("size", "error"), [(-1, ValueError), ("1", TypeError), (1.5, TypeError)])
def test_the_read_buffer_has_a_size(own_host, size, error):
    sock = TcpSocket()
    with pytest.raises(error):
        sock.read_buffer_size = size
    assert sock.read_buffer_size == 0


def test_opening(own_host):
    sock = TcpSocket()
    assert not sock.is_open
    assert sock.open_mode is OpenMode.NOT_OPEN_MODE
    assert sock.open(0) is False
    assert sock.open(OpenMode.READ_ONLY_MODE) is True
    assert sock.readable
    assert not sock.writeable
    assert sock.open(OpenMode.READ_WRITE_MODE) is False
    assert sock.open_mode is OpenMode.READ_ONLY_MODE
    sock.close()
    assert not sock.is_open
    for wrong, error in (("r", TypeError), (16, ValueError), (-1, ValueError)):
        with pytest.raises(error):
            sock.open(wrong)


def test_bytes_are_told_as_they_are_written(pair):
    told = []
    pair.client.bytes_written_handler = lambda s, count: told.append(count)
    pair.client.write(bytes(1000))
    pair.host.wait_for(lambda: sum(told) == 1000)
    pair.client.bytes_written_handler = None
    assert pair.client.bytes_written_handler is None
    pair.client.write(b"more")
    pair.host.wait_for(lambda: pair.server.bytes_available == 1004)
    assert sum(told) == 1000


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-7", "日本語のテキスト, and\nmore"),
        ("unicode_escape", "日本語\U0001f600"),
        ("raw_unicode_escape", "日本語"),
        ("utf-16", "日本😀"),
        ("big5hkscs", "\u00ca\u0304x"),
        ("iso2022_jp", "日本語 a 日本"),
        ("hz", "中文 ascii 中"),
    ],
)
def test_characters_are_read_one_by_one_in_every_encoding(pair, encoding, text):
    pair.server.encoding = encoding
    send(pair, text.encode(encoding))
    assert pair.server.peek_string(1) == text[0]
    assert pair.server.peek_string() == text
    assert [pair.server.read_string(1) for _ in text] == list(text)
    assert pair.server.read_string(1) == ""
    assert pair.server.at_end


def test_a_character_of_many_bytes_is_found_among_more_data(pair):
    """It takes more than the bytes that are looked at first."""
    pair.server.encoding = "utf-7"
    send(pair, b"+" + b"" + ("語" * 5000).encode("utf-7")[1:] + b"x" * 100)
    assert pair.server.read_string(3) == "語" * 3
    assert pair.server.read_string() == "語" * 4997 + "x" * 100
    pair.server.encoding = "unicode_escape"
    send(pair, b"\\N{LATIN SMALL LETTER A WITH DIAERESIS AND MACRON}bcdefghijklmnopqrstuvwxyz" * 2)
    assert pair.server.peek_string(2) == "\u01dfb"
    assert pair.server.read_string(2) == "\u01dfb"
    assert pair.server.read_string(26) == "cdefghijklmnopqrstuvwxyz\u01dfb"


def test_a_huge_number_of_characters_is_all_there_are(pair):
    send(pair, b"abc")
    assert pair.server.peek_string(2**62) == "abc"
    assert pair.server.read_string(2**62) == "abc"


@pytest.mark.parametrize("encoding", ["cp037", "hz", "utf-16-le", "utf-7", "unicode_escape"])
def test_lines_end_with_a_line_feed_whatever_its_bytes(pair, encoding):
    pair.server.encoding = encoding
    send(pair, "one\ntwo 中\nrest".encode(encoding, "ignore"))
    assert pair.server.read_line_string() == "one\n"
    assert pair.server.read_line_string().startswith("two")
    assert pair.server.read_line_string() == "rest"


def test_each_write_is_all_of_its_text(pair):
    """Nothing is kept back for what may follow, and nothing is left shifted."""
    for encoding, text in (("big5hkscs", "\u00ca"), ("iso2022_jp", "日本"), ("hz", "中")):
        pair.client.encoding = encoding
        before = pair.server.bytes_available
        written = pair.client.write_string(text)
        pair.host.wait_for(lambda before=before, written=written: pair.server.bytes_available == before + written)
        assert pair.server.read().decode(encoding) == text


@pytest.mark.parametrize("encoding", ["idna", "punycode", "undefined"])
def test_an_encoding_that_cannot_be_read_in_pieces_is_refused(own_host, encoding):
    sock = TcpSocket()
    with pytest.raises(ValueError):
        sock.encoding = encoding
    assert sock.encoding == "utf-8"
