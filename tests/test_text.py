"""Text over bytes that come in pieces."""

import encodings.aliases
import random
import sys

import pytest

from sslsock.sockets.text import TextCodec, check_encoding, ends_lines_in_ascii

SAMPLES = ["", "plain", "zwölf Boxkämpfer", "日本語テキスト", "a😀b", "line\nnext\n"]
ENCODINGS = ["utf-8", "utf-16", "utf-16-le", "utf-32", "latin-1", "shift_jis", "gb18030", "iso2022_jp", "utf-8-sig"]


def pieces(codec, data, step, limit):
    """What a stream does: offer all that has come, drop what was taken."""
    texts, buffer = [], b""
    for start in range(0, len(data), step):
        buffer += data[start : start + step]
        while True:
            text, taken = codec.decode(buffer, limit, False)
            assert limit < 0 or len(text) <= limit
            buffer = buffer[taken:]
            texts.append(text)
            if limit < 0 or not text:
                break
    text, taken = codec.decode(buffer, -1, True)
    assert taken == len(buffer)
    return "".join([*texts, text])


@pytest.mark.parametrize("limit", [-1, 1, 3])
@pytest.mark.parametrize("step", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("sample", "encoding"), [(s, e) for s in SAMPLES for e in ENCODINGS if "?" not in s.encode(e, "replace").decode(e)]
)
def test_text_survives_any_split(sample, encoding, step, limit):
    assert pieces(TextCodec(encoding), sample.encode(encoding), step, limit) == sample


@pytest.mark.parametrize("step", [1, 2, 1000])
@pytest.mark.parametrize("data", [b"\xff", b"a\xe2\x82A", b"\xf0\x9f\x98", b"\xc3(", b"ok\x80\x80ok", b"\xe2\x82\xe2\x82\xac"])
def test_bytes_that_are_no_text_are_replaced_as_python_does(data, step):
    for limit in (-1, 1, 2):
        assert pieces(TextCodec("utf-8"), data, step, limit) == data.decode("utf-8", "replace")


def test_looking_consumes_nothing():
    codec = TextCodec("utf-16")
    data = "abc".encode("utf-16")
    assert codec.decode(data, 1, False, consume=False)[0] == "a"
    assert codec.decode(data, -1, False)[0] == "abc"


def test_byte_order_mark_is_written_once():
    codec = TextCodec("utf-16")
    assert (codec.encode("a") + codec.encode("b")).decode("utf-16") == "ab"


# All of Python's encodings

ALL = sorted({*encodings.aliases.aliases.values(), *ENCODINGS, "unicode_escape", "raw_unicode_escape", "punycode", "idna"})
# Decoders that cannot go on where they have stopped, or that give no text. Python 3.9.8 and 3.10.1 mended two of them.
ESCAPES_GO_ON = sys.version_info >= (3, 9, 8) and sys.version_info[:3] != (3, 10, 0)
UNFIT = {"punycode", "idna", "undefined", *(() if ESCAPES_GO_ON else ("unicode_escape", "raw_unicode_escape"))}
TEXTS = [
    "plain\nand a second line\n",
    "zwölf Boxkämpfer jagen Viktor",
    "日本語のテキスト、and back",
    "\u00ca\u0304\u00ca か゚か ae\u0300 \u02e9\u02e5",  # in some encodings a letter and its mark are one unit
    "a😀b🐟c",
    "+-~{}~~\\u0041 \\ & - + ",
    "\ufeffmark",
    "ﾊﾝｶｸ full ＷＩＤＴＨ",
]


def is_text(name):
    try:
        "".encode(name)
    except (LookupError, UnicodeError):
        return False
    return True


FIT = [name for name in ALL if is_text(name) and name not in UNFIT]


def encodable(text, name):
    """What of `text` the encoding has, with what belongs together kept so."""
    codec = TextCodec(name)
    kept = ""
    for char in text:
        try:
            codec.encode(char)
        except UnicodeError:
            continue
        kept += char
    return kept


@pytest.mark.parametrize("name", ALL)
def test_an_encoding_works_or_is_refused_when_it_is_assigned(name):
    if name in FIT:
        check_encoding(name)
    else:
        with pytest.raises((LookupError, ValueError)):
            check_encoding(name)


@pytest.mark.parametrize("name", FIT)
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_every_encoding_survives_any_split_and_any_limit(name, text):
    data = TextCodec(name).encode(encodable(text, name))
    expected = data.decode(name)
    for step in (1, 2, 5, 1000):
        for limit in (-1, 1, 2, 7):
            assert pieces(TextCodec(name), data, step, limit) == expected, (step, limit)


@pytest.mark.parametrize("name", FIT)
def test_looking_first_changes_nothing(name):
    data = TextCodec(name).encode(encodable("".join(TEXTS), name))
    codec, text, buffer = TextCodec(name), "", data
    while buffer:
        for limit in (3, -1, 1):
            codec.decode(buffer, limit, True, consume=False)
        seen = codec.decode(buffer, 2, True, consume=False)
        taken = codec.decode(buffer, 2, True)
        assert seen == taken
        text += taken[0]
        buffer = buffer[taken[1] :]
    assert text == pieces(TextCodec(name), data, 1000, -1)


@pytest.mark.filterwarnings("ignore:.*invalid escape sequence")  # what Python says of some of them in unicode_escape
@pytest.mark.parametrize("name", FIT)
@pytest.mark.parametrize("seed", range(3))
def test_bytes_that_are_no_text_never_raise_and_all_are_taken(name, seed):
    data = random.Random(seed).randbytes(300) if seed else bytes(range(256))
    whole = pieces(TextCodec(name), data, 1000, -1)
    for step, limit in ((1, 1), (7, 2), (1000, 3)):
        assert pieces(TextCodec(name), data, step, limit) == whole, (step, limit)


@pytest.mark.parametrize("name", FIT)
def test_what_is_written_in_pieces_is_read_as_a_whole(name):
    """Each piece leaves at once and altogether: the last one is not kept back for what may follow."""
    for text in TEXTS:
        kept = encodable(text, name)
        codec = TextCodec(name)
        data = b"".join(codec.encode(char) for char in kept)
        assert pieces(TextCodec(name), data, 3, 2) == pieces(TextCodec(name), TextCodec(name).encode(kept), 1000, -1)


def test_what_cannot_be_encoded_leaves_the_encoder_as_it_was():
    codec = TextCodec("iso2022_jp")
    with pytest.raises(UnicodeEncodeError):
        codec.encode("日本\U0001f600")
    assert codec.encode("a") == b"a"


def test_a_long_unit_is_taken_in_pieces_without_being_decoded_for_each(monkeypatch):
    """A run of UTF-7 is as long as its sender likes."""
    text = "語" * 20_000
    data = text.encode("utf-7")
    codec, read, buffer = TextCodec("utf-7"), "", data
    count = 0
    while buffer:
        more, taken = codec.decode(buffer, 100, True)
        assert 0 < len(more) <= 100
        read += more
        buffer = buffer[taken:]
        count += 1
    assert read == text
    assert count == 200


def test_a_unit_whose_bytes_were_read_by_other_means_is_forgotten():
    codec = TextCodec("utf-7")
    data = "日本語".encode("utf-7")
    assert codec.decode(data, 1, True) == ("日", 0)
    assert codec.decode(b"plain", 2, True) == ("pl", 2)


@pytest.mark.parametrize("name", FIT)
def test_a_line_ends_where_python_says(name):
    """`ends_lines_in_ascii` says whether the byte 10 is as good as the line feed."""
    text = encodable("一\u010a\u0a0aaé\nsecond\n", name)
    data = TextCodec(name).encode(text)
    if ends_lines_in_ascii(name):
        assert data.count(b"\n") == text.count("\n")
        assert [TextCodec(name).decode(data[: data.index(b"\n") + 1], -1, True)[0]] == [text[: text.index("\n") + 1]]


@pytest.mark.parametrize("name", ["utf_7", "utf_16", "cp037", "hz", "unicode_escape", "punycode"])
def test_some_encodings_end_their_lines_otherwise(name):
    assert not ends_lines_in_ascii(name)
