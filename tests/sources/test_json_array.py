from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.errors import SourceError
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
def test_the_elements_are_the_rows_wherever_the_file_is_cut_for_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None, chunk: int
) -> None:
    monkeypatch.setattr("sftkit.sources.json_array._CHUNK", chunk)
    found, log = read(array(tmp_path / "a.json", json.dumps(NESTED, indent=indent, ensure_ascii=False)))
    assert found == [(1, NESTED[0]), (2, NESTED[1]), (3, NESTED[2])]
    assert log.bad == []


def test_a_byte_order_mark_and_white_space_around_the_array_are_no_matter(tmp_path: Path) -> None:
    assert rows(array(tmp_path / "a.json", b'\xef\xbb\xbf\n [ {"x": 1} ] \r\n\t')) == [{"x": 1}]


def test_an_empty_array_holds_no_rows(tmp_path: Path) -> None:
    assert rows(array(tmp_path / "a.json", " [ ] ")) == []


def test_elements_that_are_no_objects_are_quarantined_by_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftkit.sources.json_array._CHUNK", 1)
    found, log = read(
        array(tmp_path / "a.json", '[{"x": 1}, 123456, {"x": 2}, [7], null, "\\ud83d", {"y": "\\ud83d"}]')
    )
    assert found == [(1, {"x": 1}), (3, {"x": 2})]
    assert [(bad.number, bad.reason) for bad in log.bad] == [
        (2, "a row must be a JSON object, not int"),
        (4, "a row must be a JSON object, not list"),
        (5, "a row must be a JSON object, not NoneType"),
        (6, "a row must be a JSON object, not str"),
        (7, "text with half a surrogate pair, which is no character"),
    ]
    assert log.bad[0].content == "123456"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"x": 1}, {"x": 2]', r"a.json:2: broken JSON: Expecting ',' delimiter"),
        ('[{"x": 1}, {"x": 2}', r"a.json:2: the array does not end"),
        ('[{"x": 1}, {"x', r"a.json:2: broken JSON: Unterminated string"),
        ('[{"x": 1}, nonsense, {"x": 2}]', r"a.json:2: broken JSON: Expecting value"),
        ('[{"x": 1}][{"x": 2}]', r"a.json: there is more after the end of the array"),
        (b'[{"x": 1}, {"x": "\xff"}]', r"a.json:1: invalid UTF-8 in or after this element"),
        ('[{"x": 1}, {"x": ' + "1" * 5000 + "}]", r"a.json:2: broken JSON: Exceeds the limit"),
        ('[{"x": ' + "[" * 200_000, r"a.json:1: JSON nested too deep"),
    ],
)
def test_a_broken_array_is_an_error_that_names_the_element(tmp_path: Path, text: str | bytes, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        read(array(tmp_path / "a.json", text))


def test_content_after_the_array_is_found_in_a_later_chunk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftkit.sources.json_array._CHUNK", 1)
    assert rows(array(tmp_path / "a.json", '[{"x": 1}]     ')) == [{"x": 1}]
    with pytest.raises(SourceError, match="more after the end"):
        read(array(tmp_path / "b.json", '[{"x": 1}]     {"x": 2}'))


def test_a_json_file_may_hold_one_object_a_line(tmp_path: Path) -> None:
    found, _ = read(array(tmp_path / "a.json", '\n{"x": 1}\n{"x": 2}\n'), unit_size=1)
    assert found == [(2, {"x": 1}), (3, {"x": 2})]


def test_a_builder_says_what_an_ending_does_not(tmp_path: Path) -> None:
    assert rows(array(tmp_path / "a.data", '[{"x": 1}]'), builder="json") == [{"x": 1}]
    assert rows(array(tmp_path / "b.data", '{"x": 1}\n{"x": 2}\n'), builder="json") == [{"x": 1}, {"x": 2}]


def test_the_shared_array_is_read_as_json_reads_it(shared_data: Any) -> None:
    path = shared_data("glaive_toolcall_en_demo.json")
    assert rows(path) == json.loads(path.read_text(encoding="utf-8"))


@settings(max_examples=50, deadline=None)
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
def test_any_array_is_read_as_json_reads_it(
    tmp_path_factory: pytest.TempPathFactory, content: list[dict[str, Any]], chunk: int, ascii_only: bool
) -> None:
    path = array(tmp_path_factory.mktemp("array") / "a.json", json.dumps(content, ensure_ascii=ascii_only))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sftkit.sources.json_array._CHUNK", chunk)
        assert rows(path) == content
