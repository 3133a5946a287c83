"""Values of the extension type `arrow.json` are decoded as `datasets` decodes them, and other extension types stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.core.row_log import RowLog
from sftkit.sources.formats.arrow_rows import to_batches
from sftkit.sources.source_file import ReadLimits
from support import examples, preprocess, read, rows, shard_bytes, write_jsonl

JSON = pa.json_()

CALLS = [
    {
        "messages": [
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": f"call: {argument!r}", "extra": {"city": argument}},
        ]
    }
    for argument in ("Rome", 5, None, ["a", {"b": 1.5}], {"x": None})
]


def json_array(values: list[str | None], storage: pa.DataType | None = None) -> pa.Array:
    storage = storage or pa.string()
    return pa.ExtensionArray.from_storage(pa.json_(storage), pa.array(values, storage))


def decoded(array: pa.Array, metadata: dict[str, str] | None = None) -> tuple[list[Any], RowLog]:
    log = RowLog()
    batch = pa.RecordBatch.from_arrays([array], schema=pa.schema([pa.field("c", array.type)], metadata=metadata))
    batches = list(to_batches([batch], 1, ReadLimits(), log))
    return [row["c"] for part in batches for row in part.rows], log


@pytest.mark.parametrize("storage", [pa.string(), pa.large_string()])
def test_json_values_are_decoded(storage: pa.DataType) -> None:
    values, _ = decoded(json_array(['{"a": 1, "n": null}', '"text"', "5", "1.5", "[true]", "null", None], storage))
    assert values == [{"a": 1, "n": None}, "text", 5, 1.5, [True], None, None]
    assert type(values[2]) is int
    assert type(values[3]) is float


WRAPPERS = {
    "list": lambda array: pa.ListArray.from_arrays(range(len(array) + 1), array),
    "large list": lambda array: pa.LargeListArray.from_arrays(range(len(array) + 1), array),
    "list view": lambda array: pa.ListViewArray.from_arrays(range(len(array)), [1] * len(array), array),
    "fixed size list": lambda array: pa.FixedSizeListArray.from_arrays(array, 1),
    "struct": lambda array: pa.StructArray.from_arrays([array, pa.array(range(len(array)))], ["j", "number"]),
    "map": lambda array: pa.MapArray.from_arrays(range(len(array) + 1), ["key"] * len(array), array),
}
ENCODINGS = {
    "plain": lambda array: array,
    "dictionary": lambda array: pa.DictionaryArray.from_arrays(pa.array(range(len(array))), array),
    "run-end": lambda array: pa.RunEndEncodedArray.from_arrays(pa.array(range(1, len(array) + 1), pa.int32()), array),
}


def wrapped(kinds: list[str], value: Any, number: int) -> Any:
    for kind in kinds:
        if kind in ("list", "large list", "list view", "fixed size list"):
            value = [value]
        elif kind == "struct":
            value = {"j": value, "number": number}
        elif kind == "map":
            value = {"key": value}
    return value


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5) | st.just({"$": "'"}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=examples(300))
@given(
    values=st.lists(JSON_VALUES, min_size=1, max_size=4),
    kinds=st.lists(st.sampled_from([*WRAPPERS]), max_size=4),
    encoding=st.sampled_from([*ENCODINGS]),
)
def test_json_values_are_decoded_at_any_depth(values: list[Any], kinds: list[str], encoding: str) -> None:
    array = ENCODINGS[encoding](json_array([json.dumps(value) for value in values]))
    for kind in kinds:
        array = WRAPPERS[kind](array)
    found, log = decoded(array)
    assert found == [wrapped(kinds, value, number) for number, value in enumerate(values)]
    assert not log.bad


@pytest.mark.parametrize("kind", ["parquet", "arrow", "save_to_disk", "plain parquet"])
def test_files_of_datasets_have_the_rows_that_datasets_gives(tmp_path: Path, kind: str) -> None:
    import datasets

    written = datasets.Dataset.from_list(CALLS, on_mixed_types="use_json")
    path = tmp_path / {"save_to_disk": "disk", "arrow": "a.arrow"}.get(kind, "a.parquet")
    if kind == "parquet":
        written.to_parquet(path)
    elif kind == "plain parquet":  # without the metadata of `datasets` and of Arrow: Parquet has a type for JSON
        pq.write_table(written.data.table.replace_schema_metadata(None), path, store_schema=False)
    elif kind == "arrow":
        with pa.ipc.new_file(str(path), written.data.schema) as writer:
            writer.write_table(written.data.table)
    else:
        written.save_to_disk(path)
    assert without_null_fields(rows(path)) == without_null_fields(list(written))
    assert without_null_fields(rows(path)) == without_null_fields(CALLS)


def without_null_fields(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_null_fields(item) for name, item in value.items() if item is not None}
    return [without_null_fields(item) for item in value] if isinstance(value, list) else value


def test_the_features_of_datasets_tell_what_is_json_if_the_type_does_not() -> None:
    array = pa.array([[{"a": '{"x": 1}', "b": '{"x": 1}'}]])
    item = {"a": {"_type": "Json"}, "b": {"dtype": "string", "_type": "Value"}}
    for feature in ({"_type": "List", "feature": item}, [item]):
        metadata = {"huggingface": json.dumps({"info": {"features": {"c": feature}}})}
        assert decoded(array, metadata)[0] == [[{"a": {"x": 1}, "b": '{"x": 1}'}]]


@pytest.mark.parametrize("metadata", ["", "[]", "{}", '{"info": {"features": 1}}', "[" * 10_000])
def test_broken_metadata_of_datasets_is_ignored(metadata: str) -> None:
    assert decoded(pa.array(["{}"]), {"huggingface": metadata})[0] == ["{}"]


def test_values_that_datasets_does_not_decode_stay_text() -> None:
    metadata = {"huggingface": '{"info": {"features": {"c": {"_type": "Json", "decode": false}}}}'}
    assert decoded(json_array(["{}"]), metadata)[0] == ["{}"]


def test_rows_with_invalid_json_are_quarantined(tmp_path: Path) -> None:
    texts = ['{"a": 1}', '{"a": ', "", '"\\ud83d"', "[" * 5000, "[1] 2", '{"b": 2}']
    pq.write_table(pa.table({"c": json_array(texts)}), tmp_path / "a.parquet")
    found, log = read(tmp_path / "a.parquet")
    assert found == [(1, {"c": {"a": 1}}), (7, {"c": {"b": 2}})]
    assert {row.number: row.reason for row in log.bad} == {
        2: "column 'c': invalid JSON in a value of type arrow.json: Expecting value",
        3: "column 'c': invalid JSON in a value of type arrow.json: Expecting value",
        4: "column 'c': text with a lone surrogate, which UTF-8 cannot encode",
        5: "column 'c': a value of type arrow.json is nested too deep",
        6: "column 'c': invalid JSON in a value of type arrow.json: Extra data",
    }
    assert json.loads(log.bad[0].content) == {"c": '{"a": '}


def test_other_extension_types_are_read_the_same_whether_datasets_is_imported_or_not() -> None:
    from datasets.features.features import Array2DExtensionType

    kind = Array2DExtensionType((2, 2), "int32")
    storage = pa.array([[[1, 2], [3, 4]], None, [[5, None], [7, 8]]], kind.storage_type)
    array = pa.ExtensionArray.from_storage(kind, storage)
    assert decoded(array)[0] == storage.to_pylist()
    for wrap in ("list", "struct", "map"):
        assert decoded(WRAPPERS[wrap](array))[0] == decoded(WRAPPERS[wrap](storage))[0]


def test_images_stay_what_they_are() -> None:
    image = pa.array([{"bytes": b"png", "path": "a.png"}])
    metadata = {"huggingface": '{"info": {"features": {"c": {"_type": "Image"}}}}'}
    assert decoded(image, metadata)[0] == [{"bytes": b"png", "path": "a.png"}]


def test_parquet_and_json_lines_of_the_same_rows_become_the_same_shards(tmp_path: Path) -> None:
    import datasets

    source = write_jsonl(tmp_path / "a.jsonl", CALLS)
    datasets.Dataset.from_list(CALLS, on_mixed_types="use_json").to_parquet(tmp_path / "a.parquet")
    keys = {"tokenizer_name_or_path": "sample:model"}
    preprocess(tmp_path / "lines", training_data_path=(str(source),), **keys)
    preprocess(tmp_path / "columns", training_data_path=(str(tmp_path / "a.parquet"),), **keys)
    assert shard_bytes(tmp_path / "lines") == shard_bytes(tmp_path / "columns")
