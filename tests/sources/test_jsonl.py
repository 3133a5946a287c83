from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.sources.discovery.source_files import find_source_files
from sftkit.sources.work_units import scan_files
from support import dataset, read, rows, write_jsonl

JSON_VALUES = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20)


def lines(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_row_numbers_are_line_numbers(tmp_path: Path) -> None:
    found, log = read(lines(tmp_path / "a.jsonl", b'{"x": 1}\n{"x": "two"}\n{"y": [3, null]}\n'))
    assert found == [(1, {"x": 1}), (2, {"x": "two"}), (3, {"y": [3, None]})]
    assert log.bad == []


def test_blank_lines_have_no_row_but_count_as_lines(tmp_path: Path) -> None:
    found, log = read(lines(tmp_path / "a.jsonl", b'\n{"x": 1}\n  \t\n\r\n{"x": 2}\n\n'))
    assert found == [(2, {"x": 1}), (5, {"x": 2})]
    assert log.bad == []


def test_the_last_line_needs_no_line_end(tmp_path: Path) -> None:
    assert rows(lines(tmp_path / "a.jsonl", b'{"x": 1}\n{"x": 2}')) == [{"x": 1}, {"x": 2}]


def test_a_byte_order_mark_is_not_part_of_the_first_row(tmp_path: Path) -> None:
    assert rows(lines(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"x": 1}\n{"x": 2}\n')) == [{"x": 1}, {"x": 2}]


def test_a_file_with_only_a_byte_order_mark_has_no_rows(tmp_path: Path) -> None:
    assert read(lines(tmp_path / "a.jsonl", b"\xef\xbb\xbf")) == read(lines(tmp_path / "b.jsonl", b"\n"))


def test_lines_may_end_with_carriage_return_and_line_feed(tmp_path: Path) -> None:
    found, log = read(lines(tmp_path / "a.jsonl", b'{"x": "a\\r\\n"}\r\n{"x": 2}\r\n'), unit_size=1)
    assert found == [(1, {"x": "a\r\n"}), (2, {"x": 2})]
    assert log.bad == []


def test_unicode_line_separators_inside_a_string_do_not_end_the_line(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\u0085d\x1ee"
    path = lines(tmp_path / "a.jsonl", json.dumps({"x": text}, ensure_ascii=False).encode() + b'\n{"x": 2}\n')
    assert rows(path, unit_size=1) == [{"x": text}, {"x": 2}]


def test_a_carriage_return_alone_does_not_end_a_line(tmp_path: Path) -> None:
    assert rows(lines(tmp_path / "a.jsonl", b'{"x":\r1}\n')) == [{"x": 1}]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"x": "a\xff"}', "invalid UTF-8 at byte 8"),
        (b'{"x": "\xed\xa0\x80"}', "invalid UTF-8 at byte 7"),
        (b"[1, 2]", "a row must be a JSON object, not a list"),
        (b'"text"', "a row must be a JSON object, not a text"),
        (b"null", "a row must be a JSON object, not null"),
        (b'{"x": 1', "broken JSON: Expecting ',' delimiter at column 8"),
        (b'{"x": 1} {"x": 2}', "broken JSON: Extra data at column 10"),
        (b'{"x": "\\ud83d"}', "text with a lone surrogate, which UTF-8 cannot encode"),
        (b'{"\\udc00": 1}', "text with a lone surrogate, which UTF-8 cannot encode"),
    ],
)
def test_an_unreadable_line_is_quarantined_and_the_others_are_read(tmp_path: Path, line: bytes, reason: str) -> None:
    found, log = read(lines(tmp_path / "a.jsonl", b'{"x": 0}\n' + line + b'\n{"x": 9}\n'))
    assert found == [(1, {"x": 0}), (3, {"x": 9})]
    [bad] = log.bad
    assert (bad.number, bad.reason) == (2, reason)
    assert bad.content == line.decode("utf-8", errors="replace")


def test_a_row_with_a_number_of_thousands_of_digits_is_quarantined(tmp_path: Path) -> None:
    found, log = read(lines(tmp_path / "a.jsonl", b'{"x": ' + b"1" * 5000 + b'}\n{"x": 2}\n'))
    assert found == [(2, {"x": 2})]
    assert log.bad[0].reason.startswith("holds a whole number of more than 4,300 digi")


def test_a_row_that_is_nested_too_deep_is_quarantined(tmp_path: Path) -> None:
    found, log = read(lines(tmp_path / "a.jsonl", b'{"x":' + b"[" * 200_000 + b'\n{"x": 2}\n'))
    assert found == [(2, {"x": 2})]
    assert log.bad[0].reason == "JSON nested too deep"


def test_quarantined_content_is_truncated_to_2000_characters(tmp_path: Path) -> None:
    _, log = read(lines(tmp_path / "a.jsonl", b"x" * 5000 + b"\n"))
    assert log.bad[0].content == "x" * 2000


def test_surrogate_pairs_are_decoded_to_characters(tmp_path: Path) -> None:
    assert rows(lines(tmp_path / "a.jsonl", b'{"x": "\\ud83d\\ude00 \\\\ud83d"}\n')) == [{"x": "😀 \\ud83d"}]


def test_a_line_longer_than_a_unit_is_one_row_of_one_unit(tmp_path: Path) -> None:
    content = [{"x": "a" * 5}, {"x": "b" * 10_000}, {"x": "c" * 5}]
    path = write_jsonl(tmp_path / "a.jsonl", content)
    assert rows(path, unit_size=100) == content
    [file] = scan_files(find_source_files(dataset(path)), 100)
    assert len(file.units) == 2
    assert [unit.first_number for unit in file.units] == [1, 3]


def test_units_have_at_least_unit_size_bytes_and_end_at_line_ends(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"x": i} for i in range(100)])
    data = path.read_bytes()
    [file] = scan_files(find_source_files(dataset(path)), 64)
    parts = [unit.parts[0].part for unit in file.units]
    assert len(parts) > 10
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == len(data)
    assert all(data[part.stop - 1 : part.stop] == b"\n" for part in parts)
    assert all(64 <= part.size < 64 + 11 for part in parts[:-1])


def test_the_sha256_is_that_of_the_stored_bytes(tmp_path: Path) -> None:
    import hashlib

    path = write_jsonl(tmp_path / "a.jsonl", [{"x": i} for i in range(100)])
    [file] = scan_files(find_source_files(dataset(path)), 64)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_units_do_not_depend_on_the_size_of_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = [{"x": "y" * (7 * i % 40)} for i in range(60)]
    path = write_jsonl(tmp_path / "a.jsonl", content)
    whole = scan_files(find_source_files(dataset(path)), 100)
    for chunk in (1, 7, 64, 1000):
        monkeypatch.setattr("sftkit.sources.formats.jsonl._CHUNK", chunk)
        assert scan_files(find_source_files(dataset(path)), 100) == whole
        assert rows(path, unit_size=100) == content


@settings(max_examples=60)
@given(
    content=st.lists(
        st.dictionaries(st.text(max_size=4), JSON_VALUES, max_size=3).map(
            lambda row: json.dumps(row, ensure_ascii=False).encode()
        )
        | st.sampled_from([b"", b"  ", b"{broken", b"[1]", b'{"x": "\xff"}', b"\xef\xbb\xbf"]),
        min_size=1,
        max_size=12,
    ),
    line_end=st.sampled_from([b"\n", b"\r\n"]),
    ended=st.booleans(),
    unit_size=st.integers(1, 200),
)
def test_rows_and_numbers_do_not_depend_on_the_size_of_units(
    tmp_path_factory: pytest.TempPathFactory, content: list[bytes], line_end: bytes, ended: bool, unit_size: int
) -> None:
    data = line_end.join(content) + (line_end if ended else b"")
    if not data:
        return
    path = lines(tmp_path_factory.mktemp("jsonl") / "a.jsonl", data)
    expected: list[tuple[int, Any]] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except ValueError:
            continue
        if isinstance(row, dict):
            expected.append((number, row))
    in_units, in_units_log = read(path, unit_size=unit_size)
    whole, whole_log = read(path)
    assert whole == expected
    assert (in_units, in_units_log) == (whole, whole_log)
    with_content = [line for line in data.split(b"\n") if line.removeprefix(b"\xef\xbb\xbf").strip()]
    assert len(whole) + len(whole_log.bad) in (len(with_content), len(with_content) + data.count(b"\n\xef\xbb\xbf"))
