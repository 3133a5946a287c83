from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.config.schema.data_config import ReaderConfig
from sftkit.errors import ConfigError, SourceError
from sftkit.sources.formats.json_array_scanner import scan_elements
from support import dataset, examples, preprocess, read, rows, shard_bytes, write_jsonl

CONTENT = [{"input": f"quéstion {number}", "output": "añswer €"} for number in range(50)]
LATIN = [{"input": f"quéstion {number}", "output": "añswer"} for number in range(50)]


def lines(content: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)


def array(content: list[dict[str, str]]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1)


def table(content: list[dict[str, str]], delimiter: str = ",") -> str:
    return "".join(delimiter.join(row) + "\n" for row in [["input", "output"], *(row.values() for row in content)])


@pytest.mark.parametrize("delimiter", [";", "|", "\t", "ü"])
def test_the_delimiter_of_csv_is_an_option(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "a.csv").write_text(table(LATIN, delimiter))
    assert rows(tmp_path / "a.csv", reader=ReaderConfig(delimiter=delimiter)) == LATIN


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "lines.json", "array.jsonl", "a.jsonl.gz", "a.csv.gz"])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-16", "utf-32", "shift_jis_2004", "UTF8"])
def test_files_of_any_encoding_are_read(tmp_path: Path, name: str, encoding: str) -> None:
    content = CONTENT if encoding.lower().startswith(("utf", "cp1252")) else LATIN
    kinds = {"a.csv": table, "a.csv.gz": table, "a.json": array, "array.jsonl": array}
    data = kinds.get(name, lines)(content).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert rows(tmp_path / name, reader=ReaderConfig(encoding=encoding), unit_size=300) == content
    if encoding in ("utf-16", "utf-32"):  # they begin with a byte order mark
        assert rows(tmp_path / name, unit_size=300) == content


def test_a_byte_order_mark_of_utf8_is_no_content(tmp_path: Path) -> None:
    for name, text in (("a.csv", table(CONTENT)), ("a.jsonl", lines(CONTENT)), ("b.jsonl", array(CONTENT))):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert rows(tmp_path / name) == CONTENT
        assert rows(tmp_path / name, reader=ReaderConfig(encoding="utf-8-sig")) == CONTENT


def test_rows_that_the_encoding_cannot_read_are_bad_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": "x"}\n{"a": "\x81"}\n{"a": "\x80"}\n')
    found, log = read(tmp_path / "a.jsonl", reader=ReaderConfig(encoding="cp1252"))
    assert found == [(1, {"a": "x"}), (3, {"a": "€"})]
    assert [row.number for row in log.bad] == [2]


DOCUMENTS = [
    ('{"version": "1", "data": [{"x": 1}, {"x": 2}]}', "data"),
    ('{"data": [{"x": 1}, {"x": 2}], "meta": {"data": [3]}}', "data"),
    (
        '\ufeff {"a": {"data": [{"x": 9}]}, "s": "\\"data\\": [", "l": [[1], "]"], "data" : [{"x": 1},{"x": 2}]}',
        "data",
    ),
    ('{"\\u0064\\"": [{"x": 1}, {"x": 2}]}', 'd"'),
]


@pytest.mark.parametrize(("text", "field"), DOCUMENTS)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz"])
def test_rows_are_read_from_a_field_of_an_object(tmp_path: Path, text: str, field: str, name: str) -> None:
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert rows(tmp_path / name, reader=ReaderConfig(json_field=field)) == [{"x": 1}, {"x": 2}]


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=4) | st.sampled_from(['"', "data", "\\", "]", "{"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=examples(200))
@given(
    before=st.dictionaries(st.text(max_size=3), JSON, max_size=4),
    data=st.lists(st.dictionaries(st.text(max_size=2), JSON, max_size=2), max_size=4),
    size=st.integers(1, 40),
)
def test_a_field_is_found_behind_any_other_values(
    before: dict[str, Any], data: list[dict[str, Any]], size: int
) -> None:
    class Slow:
        def __init__(self, content: bytes) -> None:
            self.content = content

        def read(self, _: int) -> bytes:
            piece, self.content = self.content[:size], self.content[size:]
            return piece

    text = json.dumps({**before, "the rows": data, "after": before}).encode()
    stream: Any = Slow(text)
    assert [element.row for element in scan_elements(stream, "a.json", None, "the rows")] == data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"rows": [{}]}', r"a\.json: has no reader\.json_field 'data'; correct it"),
        ('{"data": {"x": 1}}', r"a\.json: the reader\.json_field 'data' must be a list of objects"),
        ('[{"data": []}]', r"a\.json: must be a JSON object with the reader\.json_field 'data'"),
        ('{"a": "unfinished', r"a\.json: has no reader\.json_field 'data'"),
        ('{"a": ]]]]', r"a\.json: has no reader\.json_field 'data'"),
        ('{"data": [{"x": 1}', r"a\.json:1: the array does not end"),
    ],
)
def test_a_field_that_is_missing_or_no_list_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        read(tmp_path / "a.json", reader=ReaderConfig(json_field="data"))


@pytest.mark.parametrize(
    "text", [array(CONTENT), json.dumps(CONTENT), "\n [\n" + lines(CONTENT).replace("\n", ",\n")[:-2] + "]\n", "[]"]
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines_that_are_one_array_are_read_as_one(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert rows(tmp_path / name, unit_size=100) == (CONTENT if len(text) > 2 else [])


@pytest.mark.parametrize("first", ["[1, 2]", '[{"a": 1}]', '[{"a": 1}', '{"x": 0}\n['])
def test_lines_that_hold_arrays_stay_bad_rows(tmp_path: Path, first: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{first}\n{{"x": 1}}\n[2]\n')
    found, log = read(tmp_path / "a.jsonl")
    assert [row for _, row in found][-1] == {"x": 1}
    assert len(log.bad) == 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.jsonl", {"delimiter": ";"}, r"a\.jsonl: reader\.delimiter is only for CSV, not for jsonl; leave it out"),
        ("a.csv", {"json_field": "data"}, r"a\.csv: reader\.json_field is only for JSON, not for csv; leave it out"),
        (
            "a.parquet",
            {"encoding": "latin-1"},
            r"a\.parquet: reader\.encoding is only for CSV and JSON, not for parquet",
        ),
    ],
)
def test_options_that_do_not_apply_are_refused(
    tmp_path: Path, name: str, options: dict[str, str], message: str
) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(SourceError, match=message):
        read(tmp_path / name, reader=ReaderConfig(**options))


@pytest.mark.parametrize(
    "options",
    [{"delimiter": ";;"}, {"delimiter": ""}, {"delimiter": "\n"}, {"delimiter": '"'}, {"json_field": ""}]
    + [{"encoding": name} for name in ("nosuch", "hex", "rot13", "undefined", "idna", "", "a\0b")],
)
def test_options_that_are_invalid_are_refused(tmp_path: Path, options: dict[str, str]) -> None:
    data = dataset(write_jsonl(tmp_path / "a.jsonl", CONTENT), reader=ReaderConfig(**options))
    [key] = options
    with pytest.raises(ConfigError, match=rf"datasets\[0\]\.reader\.{key} "):
        preprocess(tmp_path / "o", data, tokenizer_name_or_path="sample:model")


def test_another_option_makes_other_rows_and_the_same_one_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(table(LATIN, ";"), encoding="latin-1")
    (tmp_path / "b.csv").write_text(table(LATIN))
    keys: dict[str, Any] = {"tokenizer_name_or_path": "sample:model", "dataset_text_field": "input", "train_on": "all"}
    keys |= {"staging_dir": str(tmp_path / "staged")}
    made = []
    for number, (name, options) in enumerate(
        [
            ("b.csv", {}),
            ("a.csv", {"delimiter": ";", "encoding": "latin-1"}),
            ("a.csv", {"delimiter": ";", "encoding": "cp1251"}),
        ]
    ):
        data = dataset(tmp_path / name, reader=ReaderConfig(**options))
        preprocess(tmp_path / str(number), data, **keys)
        made.append(shard_bytes(tmp_path / str(number)))
    assert made[0] == made[1]
    assert made[1] != made[2]
