from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.errors import SourceError
from sftkit.sources.formats.json_array_scanner import scan_elements
from support import read, rows

NESTED: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": 'a ] } , [ { "quoted" \\ '}], "n": 1},
    {"empty": {}, "list": [], "null": None, "unicode": "é 你 😀 \u2028"},
    {"deep": [[[{"x": [1.5, -2e10, True]}]]]},
]


def array(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk", [1, 2, 3, 17, 1 << 20])
def test_rows_of_an_array_do_not_depend_on_the_size_of_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None, chunk: int
) -> None:
    monkeypatch.setattr("sftkit.sources.formats.json_buffer._CHUNK", chunk)
    found, log = read(array(tmp_path / "a.json", json.dumps(NESTED, indent=indent, ensure_ascii=False)))
    assert found == [(1, NESTED[0]), (2, NESTED[1]), (3, NESTED[2])]
    assert log.bad == []


def test_a_byte_order_mark_and_white_space_around_an_array_are_ignored(tmp_path: Path) -> None:
    assert rows(array(tmp_path / "a.json", b'\xef\xbb\xbf\n [ {"x": 1} ] \r\n\t')) == [{"x": 1}]


def test_an_empty_array_has_no_rows(tmp_path: Path) -> None:
    assert rows(array(tmp_path / "a.json", " [ ] ")) == []


def test_elements_that_are_not_objects_are_quarantined_with_their_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftkit.sources.formats.json_buffer._CHUNK", 1)
    found, log = read(
        array(tmp_path / "a.json", '[{"x": 1}, 123456, {"x": 2}, [7], null, "\\ud83d", {"y": "\\ud83d"}]')
    )
    assert found == [(1, {"x": 1}), (3, {"x": 2})]
    assert [(bad.number, bad.reason) for bad in log.bad] == [
        (2, "a row must be a JSON object, not a number"),
        (4, "a row must be a JSON object, not a list"),
        (5, "a row must be a JSON object, not null"),
        (6, "a row must be a JSON object, not a text"),
        (7, "text with a lone surrogate, which UTF-8 cannot encode"),
    ]
    assert log.bad[0].content == "123456"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"x": 1}, {"x": 2}', r"a.json:2: the array does not end"),
        ('[{"x": 1}, [2]', r"a.json:2: the array does not end"),
        ('[{"x": 1}, ', r"a.json:2: the array does not end"),
        ('[{"x": 1}, {"x', r"a.json:2: broken JSON: Unterminated string starting at, and the end of this element"),
        ('[{"x": 1, {"x": 2}, {"x": 3}', r"a.json:1: broken JSON: Expecting property name .*cannot be found"),
        ('[{"x": "abc}, {"x": "d"}, {"x": "e"}]', r"a.json:1: broken JSON: .*, and the end of this element"),
        ('[{"x": "abc}, {"x": "}"}, {"x": "}, e"}, 1]', r"a.json:1: broken JSON: .*, and the end of this element"),
        ('[{"x": 1}][{"x": 2}]', r"a.json: there is more after the end of the array"),
        (b'[{"x": 1}, {"x": "\xff', r"a.json:2: invalid UTF-8, and the end of this element cannot be found"),
        ('[{"x": ' + "[" * 200_000, r"a.json:1: JSON nested too deep"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_an_element_without_a_recognizable_end_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes, reason: str, chunk: int
) -> None:
    monkeypatch.setattr("sftkit.sources.formats.json_buffer._CHUNK", chunk)
    with pytest.raises(SourceError, match=reason):
        read(array(tmp_path / "a.json", text))


BROKEN_BETWEEN_BRACKETS: dict[str, tuple[str | bytes, str]] = {
    "no value": ("nonsense", "broken JSON: Expecting value at column 1"),
    "no value, with brackets": ("f({1, [2]})", "broken JSON: Expecting value at column 1"),
    "other quotes": ("{'x': 1}", "broken JSON: Expecting property name enclosed in double quotes at column 2"),
    "no colon": ('{"x" "}, {"}', "broken JSON: Expecting ':' delimiter at column 6"),
    "no comma": ('{"x": [1 {"y": 2}]}', "broken JSON: Expecting ',' delimiter at column 10"),
    "a bracket too many": ('{"x": 1}}', "broken JSON: Extra data at column 9"),
    "a word after it": ('{"x": 1} or so', "broken JSON: Extra data at column 10"),
    "a line end in a string": ('{"x": "a\nb"}', "broken JSON: Invalid control character at at column 9"),
    "invalid UTF-8": (b'{"x": "\xc3(", "y": "\xff"}', "invalid UTF-8 at byte 7"),
    "a number without an end": ('{"x": ' + "1" * 5000 + "}", "holds a whole number of more than 4,300 digi"),
    "too deep": ('{"x": ' + "[" * 5000 + "]" * 5000 + "}", "JSON nested too deep"),
    "no number": ('{"x": 1.e5}', "broken JSON: Expecting ',' delimiter at column 8"),
}


@pytest.mark.parametrize("what", sorted(BROKEN_BETWEEN_BRACKETS))
@pytest.mark.parametrize("between", [", ", ",\n", "\n  ,\n  "])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_a_malformed_element_is_quarantined_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, between: str, chunk: int
) -> None:
    monkeypatch.setattr("sftkit.sources.formats.json_buffer._CHUNK", chunk)
    broken, reason = BROKEN_BETWEEN_BRACKETS[what]
    data = broken if isinstance(broken, bytes) else broken.encode()
    for place in range(4):
        scan_elements = [b'{"n": 1}', b'{"n": "}, {"}', b'{"n": [{"n": 3}]}']
        scan_elements.insert(place, data)
        found, log = read(array(tmp_path / "a.json", b"[" + between.encode().join(scan_elements) + b"]"))
        assert [number for number, _ in found] == [number for number in range(1, 5) if number != place + 1]
        assert [row["n"] for _, row in found] == [1, "}, {", [{"n": 3}]]
        [bad] = log.bad
        assert (bad.number, bad.reason[: len(reason)]) == (place + 1, reason)
        assert bad.content == data.decode(errors="replace")[:2000]


BROKEN_BRACKETS = [
    '{"x": 1',
    '{"x": "abc}',
    '{"x": ["a", {"y": "b"}',
    '{"x": "a", "y": ]}',
    '{"x": {"y": 1}',
    '{"a": "',
]


@pytest.mark.parametrize("broken", BROKEN_BRACKETS)
@pytest.mark.parametrize("indent", ["", "  ", "\t"])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_an_element_with_broken_brackets_or_quotes_ends_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, indent: str, chunk: int
) -> None:
    monkeypatch.setattr("sftkit.sources.formats.json_buffer._CHUNK", chunk)
    whole = [{"n": 1}, {"n": [{"m": "x"}, {"m": "}, {"}]}, {"n": 3}]
    for place in range(3 if broken.endswith('"b"}') else 4):  # at the end it is an array that does not end
        scan_elements = [json.dumps(row) for row in whole]
        scan_elements.insert(place, broken)
        lines = ",\n".join(indent + element for element in scan_elements)
        found, log = read(array(tmp_path / "a.json", f"[\n{lines}\n]\n"))
        assert found == [(number, row) for number, row in zip(sorted({1, 2, 3, 4} - {place + 1}), whole, strict=True)]
        assert [(bad.number, bad.content) for bad in log.bad] == [(place + 1, broken)]


def test_a_malformed_element_of_several_lines_ends_before_a_line_that_starts_like_it(tmp_path: Path) -> None:
    whole = [{"n": [{"m": i}, {"m": "\n"}]} for i in range(4)]
    text = json.dumps(whole, indent=2)
    found, log = read(array(tmp_path / "a.json", text.replace('"m": 2\n      },', '"m": 2,')))
    assert [number for number, _ in found] == [1, 2, 4]
    [bad] = log.bad
    assert bad.number == 3
    assert bad.content.startswith('{\n    "n": [\n      {\n        "m": 2,\n      {\n')


def test_lines_within_an_element_that_start_like_elements_do_not_split_it(tmp_path: Path) -> None:
    whole = [f'{{"n": [\n{{"m": {i}}},\n{{"m": 1}}\n]}}' for i in range(4)]
    whole[2] = whole[2].replace("2}", "2 2}")
    found, log = read(array(tmp_path / "a.json", "[\n" + ",\n".join(whole) + "\n]"))
    assert [number for number, _ in found] == [1, 2, 4]
    assert [(bad.number, bad.content) for bad in log.bad] == [(3, whole[2])]


@pytest.mark.parametrize("chunk", [1, 50, 1 << 20])
@pytest.mark.parametrize("between", [", ", ",\n"])
def test_an_element_that_is_too_long_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, between: str
) -> None:
    monkeypatch.setattr("sftkit.sources.formats.json_buffer._CHUNK", chunk)
    long = json.dumps({"n": [{"x": 'long "}], {"' * 20}, "y"]})
    path = array(tmp_path / "a.json", "[" + between.join(['{"n": 1}', long, '{"n": 3}', long]) + "]")
    with path.open("rb") as stream:
        found = list(scan_elements(stream, "a.json", limit=100))
    assert [(each.number, each.row, each.is_complete) for each in found] == [
        (1, {"n": 1}, True),
        (2, None, False),
        (3, {"n": 3}, True),
        (4, None, False),
    ]
    assert all(len(long) > 200 and long.encode().startswith(each.data[:100]) for each in (found[1], found[3]))


def test_content_after_the_array_is_found_in_a_later_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftkit.sources.formats.json_buffer._CHUNK", 1)
    assert rows(array(tmp_path / "a.json", '[{"x": 1}]     ')) == [{"x": 1}]
    with pytest.raises(SourceError, match="more after the end"):
        read(array(tmp_path / "b.json", '[{"x": 1}]     {"x": 2}'))


def test_a_json_file_may_have_one_object_per_line(tmp_path: Path) -> None:
    found, _ = read(array(tmp_path / "a.json", '\n{"x": 1}\n{"x": 2}\n'), unit_size=1)
    assert found == [(2, {"x": 1}), (3, {"x": 2})]


def test_a_builder_sets_the_format_of_a_file_with_an_unknown_extension(tmp_path: Path) -> None:
    assert rows(array(tmp_path / "a.data", '[{"x": 1}]'), builder="json") == [{"x": 1}]
    assert rows(array(tmp_path / "b.data", '{"x": 1}\n{"x": 2}\n'), builder="json") == [{"x": 1}, {"x": 2}]


def test_the_shared_array_is_read_like_json_loads(shared_data: Any) -> None:
    path = shared_data("glaive_toolcall_en_demo.json")
    assert rows(path) == json.loads(path.read_text(encoding="utf-8"))


@settings(max_examples=50)
@given(
    content=st.lists(
        st.dictionaries(
            st.text(max_size=3),
            st.recursive(
                st.none() | st.floats(allow_nan=False) | st.text(max_size=5), lambda s: st.lists(s, max_size=3)
            ),
            max_size=3,
        ),
        max_size=6,
    ),
    chunk=st.integers(1, 30),
    ascii_only=st.booleans(),
)
def test_random_arrays_are_read_like_json_loads(
    tmp_path_factory: pytest.TempPathFactory, content: list[dict[str, Any]], chunk: int, ascii_only: bool
) -> None:
    path = array(tmp_path_factory.mktemp("array") / "a.json", json.dumps(content, ensure_ascii=ascii_only))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sftkit.sources.formats.json_buffer._CHUNK", chunk)
        assert rows(path) == content
