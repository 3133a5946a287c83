from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.errors import SourceError
from support import read, rows


def test_all_csv_values_are_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,yes\n002,\n")
    assert read(tmp_path / "a.csv")[0] == [(1, {"id": "1", "text": "yes"}), (2, {"id": "002", "text": ""})]


def test_quoted_fields_may_contain_delimiters_quotes_and_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'a,b\n"x, ""y""","line 1\nline 2\r\nline 3"\r\nplain,"\xe4\xbd\xa0"\n')
    assert read(tmp_path / "a.csv")[0] == [
        (1, {"a": 'x, "y"', "b": "line 1\nline 2\r\nline 3"}),
        (2, {"a": "plain", "b": "你"}),
    ]


def test_tsv_fields_are_separated_by_tabs(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("a\tb\n1,5\t2\n")
    assert rows(tmp_path / "a.tsv") == [{"a": "1,5", "b": "2"}]
    assert rows(tmp_path / "a.tsv", builder="csv") == [{"a": "1,5", "b": "2"}]


def test_a_byte_order_mark_is_not_part_of_the_first_column_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfa,b\n1,2\n")
    assert rows(tmp_path / "a.csv") == [{"a": "1", "b": "2"}]


def test_records_with_more_or_fewer_fields_than_the_header_are_quarantined(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n\n4,5,6\n7,8\n")
    found, log = read(tmp_path / "a.csv")
    assert found == [(1, {"a": "1", "b": "2"}), (4, {"a": "7", "b": "8"})]
    assert [(bad.number, bad.reason) for bad in log.bad] == [
        (2, "1 fields where the header has 2"),
        (3, "3 fields where the header has 2"),
    ]


def test_a_csv_file_with_only_a_header_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n")
    assert rows(tmp_path / "a.csv") == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'a,b\n1,2\n3,"four', r"a\.csv:2: broken CSV: unexpected end of data"),
        (b'a,b\n1,2\n"x"y,2\n', r"a\.csv:2: broken CSV: ',' expected after '\"'"),
    ],
)
def test_malformed_csv_is_an_error_that_names_the_row(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(SourceError, match=reason):
        read(tmp_path / "a.csv")


def test_a_record_that_is_not_utf8_is_quarantined(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n3,\xff\n5,6\n")
    found, log = read(tmp_path / "a.csv")
    assert found == [(1, {"a": "1", "b": "2"}), (3, {"a": "5", "b": "6"})]
    assert [(row.number, row.reason, row.content) for row in log.bad] == [(2, "invalid UTF-8", '["3", "\ufffd"]')]


def test_a_field_longer_than_the_default_limit_of_the_csv_module_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n" + "x" * 200_000 + "\n")
    assert rows(tmp_path / "a.csv") == [{"a": "x" * 200_000}]


@settings(max_examples=50)
@given(
    records=st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)] * 2), max_size=6
    ),
    line_end=st.sampled_from(["\n", "\r\n"]),
)
def test_files_written_by_the_csv_module_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[str, str]], line_end: str
) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *records])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(written.getvalue().encode())
    assert rows(path) == [{"a": a, "b": b} for a, b in records]
