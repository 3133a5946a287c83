from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.core.row_log import RowLog
from sftkit.sources.formats.jsonl import decode_object, parse_row


def is_same(left: Any, right: Any) -> bool:
    """Whether two values are equal in value, type, order of keys and sign of zero."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(is_same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(is_same, left, right))
    return repr(left) == repr(right)


def assert_read_like_json_loads(line: bytes) -> None:
    row = decode_object(line)
    if row is not None:
        assert is_same(row, parse_row(line, 1, RowLog())), line


NUMBERS = [
    *("0", "-0", "-0.0", "0e5", "-0e5", "1.0", "1e5", "1E+5", "1e-5", "0.1", "1e23", "8.5e22", "123456789012345678.0"),
    *("5e-324", "2e-324", "2.2250738585072011e-308", "1.7976931348623158e308", "1.7976931348623159e308", "1e400"),
    *("-1E400", "1e-400", "1e99999999999999999999", "1e-99999999999999999999", "0e99999999999999999999"),
    *("1e00000000000000000000001", "9007199254740993", "9007199254740993.0", "9223372036854775807"),
    *("9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551615"),
    *(
        "18446744073709551616",
        "19986011753283583372",
        "-19986011753283583372",
        "340282366920938463463374607431768211457",
    ),
    *("1" * 30, "-" + "9" * 30, "1" + "0" * 308, "1" * 4300, "1" * 400 + ".5", "0." + "0" * 400 + "1"),
]
TEXTS = [
    *(
        '""',
        '"\\u0000"',
        '"\\u001f\\u007f\\u0080"',
        '"\\/\\b\\f\\n\\r\\t\\"\\\\"',
        '"\\ud83d\\ude00"',
        '"\\uD83D\\uDE00"',
    ),
    *('"\\udbff\\udfff"', '"\\ud7ff\\ue000\\uffff\\ufeff"', '"é你😀\u2028\u0085\x7f\ufeff\U0010ffff"', '"\\\\ud83d"'),
]
REFUSED = [
    *("1" * 4301, "NaN", "Infinity", "-Infinity", "nan", "01", "-01", "1.", ".5", "+1", "1e", "-", "0x1", "1_000"),
    *(
        '"\\ud83d"',
        '"\\ude00"',
        '"\\ude00\\ud83d"',
        '"\\ud83d\\ud83d"',
        '"\\ud83d\\n"',
        '"\\ud83dx"',
        '"\\ud83d\\u0041"',
    ),
    *('"\t"', '"\x00"', '"\x1f"', '"\\x41"', '"\\u12g4"', '"\\u+123"', '"\\u 123"', '"\\u12"', "'a'", "[1,]", "{,}"),
    *('{"a":1,}', "{1:2}", "{'a':1}", "[1 2]", "tru", "True", "nulll", "1 2", "\x0b1", "1\x0c", "\u00a01", "/**/1", ""),
]
INVALID_UTF8 = [b"\xff", b"\x80", b"\xc3", b"\xc0\x80", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xed\xa0\xbd\xed\xb8\x80"]
INVALID_UTF8 += [b"\xf4\x90\x80\x80", b"\xf0\x9f\x98", b"\xf5\x80\x80\x80"]


@pytest.mark.parametrize("value", [*NUMBERS, *TEXTS, "[]", "{}", "[ ]", " [ 1 , 2 ] ", "null", "true", "false"])
def test_valid_json_is_decoded_like_json_loads(value: str) -> None:
    for line in (f'{{"x":{value}}}\n', f' {{ "a" : [ {value} , {value} ] , "x" : {{ "y" : {value} }} }}\r\n'):
        row = decode_object(line.encode())
        assert row is not None
        assert is_same(row, json.loads(line))


@pytest.mark.parametrize("value", REFUSED)
def test_text_that_json_loads_rejects_or_reads_differently_is_left_to_it(value: str) -> None:
    assert decode_object(f'{{"x":{value}}}'.encode()) is None
    assert decode_object(f'{{"x":[{{"y":{value}}}]}}'.encode()) is None


@pytest.mark.parametrize("data", INVALID_UTF8)
def test_invalid_utf8_is_left_to_json_loads(data: bytes) -> None:
    for line in (b'{"x":"%s"}', b'{"%s":1}', b'{"x":"\\n%s\\n"}', b'{"x":1}%s', b'{"a":"\\u00e9 %s"}'):
        assert decode_object(line % data) is None


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"  ", b"[1]", b'"x"', b"1", b"null", b"{", b"{}{}", b"\xef\xbb\xbf{}", b"{}\x00"]
)
def test_lines_without_an_object_are_left_to_json_loads(line: bytes) -> None:
    assert decode_object(line) is None


def test_a_repeated_key_has_its_last_value_at_its_first_position() -> None:
    row = decode_object(b'{"a":1,"b":2,"\\u0061":{"x":3,"x":4}}')
    assert row is not None
    assert is_same(row, {"a": {"x": 4}, "b": 2})


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"k":', "}")])
def test_nesting_is_limited_like_in_json_loads(opening: str, closing: str) -> None:
    for depth in (100, 700, *range(780, 1010, 3), 5000, 100_000):
        line = ('{"x":' + opening * depth + "1" + closing * depth + "}").encode()
        assert (decode_object(line) is not None) == (depth < 800)


def test_a_row_with_many_brackets_is_left_to_json_loads_and_read_alike() -> None:
    row = {"messages": [{"role": "user", "content": "a [ {"}] * 500}
    line = json.dumps(row).encode()
    assert decode_object(line) is None
    assert parse_row(line, 1, RowLog()) == row


DIGITS = st.text("0123456789", max_size=25)
NUMBER_TEXTS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "-"]),
    st.just("0") | st.from_regex(r"[1-9][0-9]{0,24}", fullmatch=True) | st.integers(2**62, 2**66).map(str),
    st.just("") | DIGITS.map(".{}".format),
    st.just("") | st.builds("{}{}".format, st.sampled_from(["e", "E", "e+", "e-"]), st.integers(0, 400)),
)
STRING_TEXTS = st.lists(
    st.text(max_size=3).map(lambda text: json.dumps(text)[1:-1])
    | st.text(max_size=3).map(lambda text: json.dumps(text, ensure_ascii=False)[1:-1])
    | st.integers(0xD700, 0xE0FF).map("\\u{:04x}".format)
    | st.sampled_from(["\\", "\\u12", "\t", "\x00", '"', "\\ud83d", "\\ude00"]),
    max_size=4,
).map(lambda parts: '"' + "".join(parts) + '"')
SPACE = st.sampled_from(["", "", "", " ", "\t", "\r\n", "\x0c", "\u00a0"])
KEYS = st.sampled_from(['"a"', '"b"', '"\\u0061"']) | STRING_TEXTS


def containers(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    spaced = st.builds("{}{}{}".format, SPACE, values, SPACE)
    pairs = st.builds("{}{}:{}".format, SPACE, KEYS, spaced)
    arrays = st.lists(spaced, max_size=4).map(lambda items: "[" + ",".join(items) + "]")
    return arrays | st.lists(pairs, max_size=4).map(lambda items: "{" + ",".join(items) + "}")


JSON_TEXTS = st.recursive(
    NUMBER_TEXTS | STRING_TEXTS | st.sampled_from(["true", "false", "null", "NaN", "-Infinity"]),
    containers,
    max_leaves=8,
)


@settings(max_examples=250)
@given(text=JSON_TEXTS, other=JSON_TEXTS)
def test_random_json_is_decoded_like_json_loads_or_left_to_it(text: str, other: str) -> None:
    assert_read_like_json_loads(text.encode(errors="surrogatepass"))
    assert_read_like_json_loads(f'{{"a":{text},"b":{other},"a":{other}}}'.encode(errors="surrogatepass"))


@settings(max_examples=150)
@given(text=JSON_TEXTS, position=st.integers(0, 200), put=st.binary(max_size=3), cut=st.integers(0, 3))
def test_random_bytes_are_decoded_like_json_loads_or_left_to_it(text: str, position: int, put: bytes, cut: int) -> None:
    line = f'{{"a":{text}}}'.encode(errors="surrogatepass")
    position %= len(line)
    assert_read_like_json_loads(line[:position] + put + line[position + cut :])
