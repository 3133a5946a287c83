"""Writers of the formats of other tools, made from their specifications, and rows to write."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Rows = list[dict[str, Any]]

SEQUENCES = [
    ([5, 6, 70_000], [-100, 6, 70_000]),
    ([9], [-100]),
    ([4, 4, 8, 2], [-100, -100, 8, -100]),
    ([7, 3], [-100, 3]),
]


def rows() -> Rows:
    return [{"input_ids": ids, "labels": labels} for ids, labels in SEQUENCES]


def packs() -> Rows:
    """The same sequences in two packs."""
    return [_pack(SEQUENCES[:3]), _pack(SEQUENCES[3:])]


def _pack(sequences: Sequence[tuple[list[int], list[int]]]) -> dict[str, Any]:
    return {
        "input_ids": [token for ids, _ in sequences for token in ids],
        "labels": [label for _, labels in sequences for label in labels],
        "seq_lengths": [len(ids) for ids, _ in sequences],
    }


def write_parquet(path: Path, made: Rows) -> Path:
    pq.write_table(pa.Table.from_pylist(made), path)
    return path


def write_jsonl(path: Path, made: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def write_saved(path: Path, made: Rows) -> Path:
    """What `datasets` saves: a stream of Arrow, and a list of files."""
    path.mkdir()
    table = pa.Table.from_pylist(made)
    with pa.ipc.new_stream(str(path / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    return path


def with_positions(made: Rows) -> Rows:
    """The columns of axolotl."""
    return [
        {
            "input_ids": row["input_ids"],
            "labels": row["labels"],
            "attention_mask": [1] * len(row["input_ids"]),
            "position_ids": [at for length in _lengths(row) for at in range(length)],
        }
        for row in made
    ]


def with_masks(made: Rows) -> Rows:
    """The columns of NeMo's packs: a mask of the tokens that predict a trained one, and where sequences begin."""
    shown = []
    for row in made:
        ends = np.cumsum(_lengths(row)).tolist()
        mask = [label != -100 for label in [*row["labels"][1:], -100]]
        for end in ends:
            mask[end - 1] = False
        shown.append({"input_ids": row["input_ids"], "loss_mask": mask, "seq_start_id": [0, *ends[:-1]]})
    return shown


def _lengths(row: Mapping[str, Any]) -> list[int]:
    found: list[int] = row.get("seq_lengths", [len(row["input_ids"])])
    return found


def write_nemo(path: Path, made: Rows) -> Path:
    np.save(path, np.array(with_masks(made), dtype=object), allow_pickle=True)
    return path


def write_arrays(prefix: Path, made: Rows) -> Path:
    """One-dimensional arrays with the offsets of rows; returns that of `input_ids`."""
    arrays = {name: np.concatenate([row[name] for row in made]).astype(np.int32) for name in ("input_ids", "labels")}
    arrays["row_offsets"] = np.cumsum([0, *(len(row["input_ids"]) for row in made)])
    if "seq_lengths" in made[0]:
        arrays["seq_offsets"] = np.cumsum([0, *(length for row in made for length in row["seq_lengths"])])
    for name, array in arrays.items():
        np.save(prefix.with_name(f"{prefix.name}.{name}.npy"), array)
    return prefix.with_name(f"{prefix.name}.input_ids.npy")


def write_indexed(prefix: Path, made: Rows) -> Path:
    """Megatron's pair of files; returns the `.idx` file."""
    lengths = [length for row in made for length in _lengths(row)]
    documents = np.cumsum([0, *(len(_lengths(row)) for row in made)])
    ids = np.array([token for row in made for token in row["input_ids"]], np.int32)
    begins = np.cumsum([0, *lengths])[:-1] * 4
    head = struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 4, len(lengths), len(documents))
    parts = (np.array(lengths, np.int32), begins.astype(np.int64), documents.astype(np.int64))
    prefix.with_suffix(".bin").write_bytes(ids.tobytes())
    index = prefix.with_suffix(".idx")
    index.write_bytes(head + b"".join(part.tobytes() for part in parts))
    return index


def write_indexed_with_mask(folder: Path, made: Rows) -> Path:
    """Two pairs of files, of tokens and of their loss mask, as FlagScale reads them."""
    write_indexed(folder / "x_text_document", made)
    masks = [{**row, "input_ids": [int(label != -100) for label in row["labels"]]} for row in made]
    write_indexed(folder / "x_loss_mask_document", masks)
    return folder


_ENCODINGS = {"input_ids": "ndarray:int32", "labels": "ndarray", "seq_lengths": "json"}


def write_mds(folder: Path, made: Rows, compress: Callable[[bytes], bytes] | None = None) -> Path:
    """A folder of MosaicML Streaming with one file."""
    folder.mkdir()
    names = sorted(made[0])
    columns = {
        "column_names": names,
        "column_encodings": [_ENCODINGS[name] for name in names],
        "column_sizes": [None] * len(names),
        "format": "mds",
        "version": 2,
    }
    samples = [_sample([_encoded(name, row[name]) for name in names]) for row in made]
    config = json.dumps(columns).encode()
    begin = 8 + 4 * len(samples) + len(config)
    offsets = np.cumsum([begin, *map(len, samples)]).astype(np.uint32)
    raw = np.uint32(len(samples)).tobytes() + offsets.tobytes() + config + b"".join(samples)
    stored = raw if compress is None else compress(raw)
    name = "shard.00000.mds" if compress is None else "shard.00000.mds.zstd"
    (folder / name).write_bytes(stored)
    listed = {"basename": name, "bytes": len(stored), "hashes": {}}
    raw_data = listed if compress is None else {"basename": "shard.00000.mds", "bytes": len(raw), "hashes": {}}
    shard = {**columns, "samples": len(samples), "raw_data": raw_data, "zip_data": None if compress is None else listed}
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": [shard]}))
    return folder


def _sample(values: list[bytes]) -> bytes:
    return np.array([len(value) for value in values], np.uint32).tobytes() + b"".join(values)


def _encoded(name: str, value: list[int]) -> bytes:
    if name == "seq_lengths":
        return json.dumps(value).encode()
    array = np.array(value, np.int32 if name == "input_ids" else np.int64)
    head = b"" if name == "input_ids" else bytes((65,))  # the data type, where the encoding does not name it
    return head + bytes((1 << 2, len(value))) + array.tobytes()


def zstd(raw: bytes) -> bytes:
    compressed: bytes = pa.compress(raw, "zstd", asbytes=True)
    return compressed


FORMATS: Mapping[str, Callable[[Path, Rows], Path]] = {
    "jsonl": lambda folder, made: write_jsonl(folder / "rows.jsonl", made),
    "arrow": lambda folder, made: write_saved(folder / "saved", made),
    "axolotl": lambda folder, made: write_saved(folder / "axolotl", with_positions(made)),
    "npy": lambda folder, made: write_arrays(folder / "set", made).parent,
    "nemo": lambda folder, made: write_nemo(folder / "nemo.npy", made),
    "bridge": lambda folder, made: write_parquet(folder / "bridge.parquet", with_masks(made)),
    "megatron": lambda folder, made: write_indexed(folder / "text_document", made).with_suffix(""),
    "masked": write_indexed_with_mask,
    "mds": lambda folder, made: write_mds(folder / "mds", made),
    "mds_zstd": lambda folder, made: write_mds(folder / "mds_zstd", made, zstd),
}
