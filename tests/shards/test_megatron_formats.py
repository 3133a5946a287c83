"""Shards for Megatron and NeMo: exactly the tokens of our labels carry a loss, whoever reads them."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
import types
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from sftkit.config.commands import InspectConfig
from sftkit.config.schema.data_config import SplitConfig
from sftkit.core.rows import Row
from sftkit.errors import ConfigError, DataError
from sftkit.inspection.compare.compare_datasets import compare_datasets
from support import dataset, handler, preprocess, write_jsonl, written

CHATS = "tokenize_and_apply_chat_template_with_masking"
EOS = 2  # of sample:model
PACK = 96
NAME = "train-00000-of-00001"

LAYOUTS: dict[str, dict[str, Any]] = {
    "rows": {},
    "rows of which all is trained": {"train_on": "all"},
    "packs": {"packing": "bfd", "pack_length": PACK},
    "padded sequences": {"packing": "bfd", "pack_length": PACK, "pad_seq_to_multiple": 8},
    "wrapped packs": {"packing": "wrapped", "pack_length": PACK, "train_on": "all"},
}


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations of one and two turns."""
    turns = [
        [{"role": "user", "content": f"{number}?"}, {"role": "assistant", "content": f"{number} " * (number % 9 + 1)}]
        for number in range(50)
    ]
    rows = [{"messages": each if number % 3 else each + turns[0]} for number, each in enumerate(turns)]
    return write_jsonl(tmp_path_factory.mktemp("chats") / "chats.jsonl", rows)


@pytest.fixture(scope="module", params=list(LAYOUTS))
def out(request: pytest.FixtureRequest, chats: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of one of the layouts, in the formats of both and as Parquet."""
    folder = tmp_path_factory.mktemp("out") / request.param.replace(" ", "-")
    made(folder, chats, ("parquet", "megatron", "nemo"), **LAYOUTS[request.param])
    return folder


def made(output: Path, source: Path, formats: tuple[str, ...], **options: Any) -> Any:
    data = dataset(source, data_handlers=[handler(CHATS)], split=SplitConfig(train=0.8, validation=0.2))
    return preprocess(output, data, output_format=formats, model_name_or_path="sample:model", **options)


def sequences_of(rows: list[Row]) -> list[list[tuple[list[int], list[int]]]]:
    """The ids and labels of each sequence of each row."""
    found = []
    for row in rows:
        ends = np.cumsum([0, *row.get("seq_lengths", [len(row["input_ids"])])]).tolist()
        found.append([(row["input_ids"][a:b], row["labels"][a:b]) for a, b in pairwise(ends)])
    return found


def predicted(sequence: tuple[list[int], list[int]]) -> list[tuple[int, int]]:
    """The tokens of a sequence that carry a loss, by their position, as any causal model with our labels has them."""
    return [(place, label) for place, label in enumerate(sequence[1]) if place and label != -100]


def multiple_of(out: Path) -> int:
    return 8 if out.name == "padded-sequences" else 1


def indexed(prefix: Path) -> tuple[list[npt.NDArray[Any]], list[int]]:
    """Read an indexed data set by its specification: its sequences, and the bounds of its documents."""
    index, data = (
        prefix.with_name(f"{prefix.name}.idx").read_bytes(),
        prefix.with_name(f"{prefix.name}.bin").read_bytes(),
    )
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, sequences, documents = struct.unpack_from("<QBQQ", index, 9)
    assert version == 1
    dtype = {1: np.uint8, 4: np.int32}[code]
    lengths = np.frombuffer(index, "<i4", sequences, 34)
    starts = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    bounds = np.frombuffer(index, "<i8", documents, 34 + 12 * sequences)
    assert 34 + 12 * sequences + 8 * documents == len(index)
    found = [np.frombuffer(data, dtype, length, start) for length, start in zip(lengths, starts, strict=True)]
    assert sum(map(len, found)) * np.dtype(dtype).itemsize == len(data)
    return found, bounds.tolist()


def test_indexed_data_sets_have_tokens_loss_mask_and_boundaries(out: Path) -> None:
    rows = sequences_of(written(out))
    tokens, documents = indexed(out / "megatron" / f"{NAME}_text_document")
    masks, same = indexed(out / "megatron" / f"{NAME}_loss_mask_document")
    assert documents == same == np.cumsum([0, *map(len, rows)]).tolist()
    for sequence, ids, mask in zip((each for row in rows for each in row), tokens, masks, strict=True):
        assert ids.tolist() == sequence[0]
        assert [(place, int(ids[place])) for place in np.flatnonzero(mask)] == predicted(sequence)


def test_inspection_finds_no_difference_to_the_parquet(out: Path) -> None:
    padded = multiple_of(out) > 1
    for name in ("megatron", f"megatron/{NAME}.idx.parquet", "nemo"):
        found = compare_datasets(InspectConfig(directory=str(out / name), compare=str(out), split="train"))
        assert found.differs == (padded and name != "megatron")  # padding of sequences is part of them
        assert found.a.trained_tokens == found.b.trained_tokens
        assert found.settings == ()


def test_a_reader_that_shifts_a_stream_of_tokens_trains_no_other(out: Path) -> None:
    """FlagScale's reader cuts the concatenated sequences anywhere: labels are text[1:], and so is the loss mask."""
    sequences = [each for row in sequences_of(written(out)) for each in row]
    text = np.concatenate(indexed(out / "megatron" / f"{NAME}_text_document")[0])
    mask = np.concatenate(indexed(out / "megatron" / f"{NAME}_loss_mask_document")[0])
    labels, loss = text[1:], mask[1:] == 1
    assert labels[loss].tolist() == [label for sequence in sequences for _, label in predicted(sequence)]


def packed_rows(out: Path) -> list[Row]:
    rows = pq.read_table(out / "megatron" / f"{NAME}.idx.parquet").to_pylist()
    array = np.load(out / "nemo" / f"{NAME}.npy", allow_pickle=True)
    assert [{**row, "loss_mask": [int(each) for each in row["loss_mask"]]} for row in array] == rows
    return rows


def test_packed_rows_train_the_same_tokens_and_pad_with_none(out: Path) -> None:
    """Read as `GPTSFTPackedDataset.collate_fn` does: inputs without the last token, labels without the first."""
    multiple = multiple_of(out)
    for row, sequences in zip(packed_rows(out), sequences_of(written(out)), strict=True):
        bounds = [*row["seq_start_id"], len(row["input_ids"])]
        assert len(row["loss_mask"]) == len(row["input_ids"])
        assert len(bounds) == len(sequences) + 1
        for (start, stop), sequence in zip(pairwise(bounds), sequences, strict=True):
            ids, mask = row["input_ids"][start:stop], row["loss_mask"][start : stop - 1]
            assert (len(ids) - 1) % multiple == 0
            assert len(ids) < len(sequence[0]) + multiple
            assert ids == sequence[0] + [EOS] * (len(ids) - len(sequence[0]))
            labels = ids[1:]
            assert [(place + 1, labels[place]) for place in np.flatnonzero(mask)] == predicted(sequence)
        if "packs" in out.name or multiple != 1:
            assert sum(stop - start - 1 for start, stop in pairwise(bounds)) <= PACK


def test_the_metadata_says_how_large_packs_are(out: Path) -> None:
    found = json.loads((out / "megatron" / "packed_metadata.json").read_text())
    assert found == json.loads((out / "nemo" / "packed_metadata.json").read_text())
    packs = [
        [b - a - 1 for a, b in pairwise([*row["seq_start_id"], len(row["input_ids"])])] for row in packed_rows(out)
    ]
    assert len(found) == 2  # train, validation
    assert found[0]["max_samples_per_bin"] == max(map(len, packs))
    assert found[0]["dataset_max_seqlen"] == max(map(max, packs))
    assert found[0]["min_packed_seqlen"] == min(map(sum, packs))


def test_megatron_core_reads_indexed_data_sets(out: Path) -> None:
    module = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    rows = sequences_of(written(out))
    for kind in ("text", "loss_mask"):
        read = module.IndexedDataset(str(out / "megatron" / f"{NAME}_{kind}_document"))
        wanted, documents = indexed(out / "megatron" / f"{NAME}_{kind}_document")
        assert [each.tolist() for each in read] == [each.tolist() for each in wanted]
        assert read.document_indices.tolist() == documents
        assert len(read) == sum(map(len, rows))


def megatron_bridge() -> Any:
    """The data sets of Megatron-Bridge without its models, which need a GPU to be imported."""
    pytest.importorskip("megatron.core.datasets.indexed_dataset")
    if "megatron.bridge" not in sys.modules:
        spec = importlib.util.find_spec("megatron.bridge")
        if spec is None:
            pytest.skip("megatron-bridge is not installed")
        sys.modules["megatron.bridge"] = package = types.ModuleType("megatron.bridge")
        package.__path__, package.__spec__ = list(spec.submodule_search_locations or []), spec
    return pytest.importorskip("megatron.bridge.data.datasets.sft")


class Tokenizer:
    """What the data set asks of a tokenizer."""

    eos_id = bos_id = pad_id = eod = EOS


@pytest.mark.parametrize("pads_bounds", [False, True])
def test_megatron_bridge_trains_the_same_tokens(out: Path, pads_bounds: bool) -> None:
    multiple = multiple_of(out)
    file = out / "nemo" / f"{NAME}.npy"
    sizes = [
        sum(b - a - 1 for a, b in pairwise([*row["seq_start_id"], len(row["input_ids"])])) for row in packed_rows(out)
    ]
    data = megatron_bridge().GPTSFTPackedDataset(
        str(file),
        Tokenizer(),
        pad_cu_seqlens=pads_bounds,
        pad_seq_to_mult=multiple,
        pack_metadata_file_path=str(file.with_name("packed_metadata.json")),
        max_seq_length=-(-max(sizes) // 16) * 16,
        pad_to_max_length=True,
        prompt_template="{input} {output}",
        label_key="output",
        truncation_field="input",
    )
    rows = sequences_of(written(out))
    assert len(data) == len(rows)
    shapes = set()
    for number, sequences in enumerate(rows):
        batch = data.collate_fn([data[number]])
        tokens, labels, loss = (batch[name][0].numpy() for name in ("tokens", "labels", "loss_mask"))
        after_eos = tokens == EOS  # the reader trains nothing after an eos token
        wanted = [
            label
            for ids, all_labels in sequences
            for place, label in predicted((ids, all_labels))
            if ids[place - 1] != EOS
        ]
        assert labels[loss == 1].tolist() == wanted
        assert not loss[after_eos].any()
        bounds = batch["cu_seqlens"][0].tolist()
        shapes.add(len(bounds))
        ends = [(-(-(len(ids) - 1) // multiple)) * multiple for ids, _ in sequences]
        assert bounds[: len(sequences) + 1] == np.cumsum([0, *ends]).tolist()
    assert len(shapes) == 1 or not pads_bounds


def test_what_a_format_cannot_hold_is_refused(chats: Path, tmp_path: Path) -> None:
    weighted = dataset(chats, data_handlers=[handler(CHATS)], loss_weight=0.5)
    with pytest.raises(DataError, match=r"output_format=megatron: holds a loss mask, and the rows have loss weights"):
        preprocess(tmp_path / "a", weighted, output_format=("parquet", "megatron"), model_name_or_path="sample:model")
    retained = dataset(chats, data_handlers=[handler(CHATS)], retain_columns=("messages",))
    with pytest.raises(DataError, match="output_format=npy: cannot hold the column 'messages', which would be lost"):
        preprocess(tmp_path / "a", retained, output_format=("npy",), model_name_or_path="sample:model")
    named = {"output_format": ("megatron",), "source_column": True, "model_name_or_path": "sample:model"}
    with pytest.raises(
        DataError, match=r"output_format=megatron: cannot hold the column 'source', which would be lost"
    ):
        preprocess(tmp_path / "b", dataset(chats, data_handlers=[handler(CHATS)]), **named)
    text = write_jsonl(tmp_path / "text.jsonl", [{"text": "a"}])
    for name in ("nemo", "npy"):
        with pytest.raises(DataError, match=rf"output_format={name}: holds tokens, and the rows are text \('text'\)"):
            preprocess(tmp_path / "c", dataset(text), output_format=("parquet", name))
    assert not any(tmp_path.glob("*/manifest.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ("parquet",)}, "only megatron and nemo have padded sequences; add one of them to output_format"),
        ({"packing": "none", "pack_length": None}, "needs packs of whole rows; set packing=bfd"),
        ({"packing": "wrapped"}, "needs packs of whole rows; set packing=bfd"),
        ({"pack_length": 98}, "a full pack of 98 tokens is no multiple of it; set pack_length=104"),
    ],
)
def test_padding_that_is_impossible_is_refused(
    options: dict[str, Any], message: str, chats: Path, tmp_path: Path
) -> None:
    given = {"packing": "bfd", "pack_length": PACK, "formats": ("megatron",), **options}
    with pytest.raises(ConfigError, match=rf"pad_seq_to_multiple=8: {message}"):
        made(tmp_path / "out", chats, given.pop("formats"), pad_seq_to_multiple=8, **given)
