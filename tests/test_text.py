"""Text over bytes that come in pieces."""

import pytest

from sslsock.sockets.text import TextCodec

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
@pytest.mark.parametrize(
    "data", [b"\xff", b"a\xe2\x82A", b"\xf0\x9f\x98", b"\xc3(", b"ok\x80\x80ok", b"\xe2\x82\xe2\x82\xac"]
)
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
