"""Mixes from the config to the shards: shares, copies and stages of what is written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sftkit.cli.app import app
from sftkit.errors import ConfigError, DataError
from sftkit.shards.manifest import Manifest
from support import dataset, handler, preprocess, shard_bytes, write_jsonl, written

PAIRS = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
ROWS = {"chat": 60, "code-py": 30, "code-c": 20}


def source(folder: Path, name: str) -> Path:
    rows = [
        {
            "id": f"{name} {number}",
            "input": f"{name} {number}:",
            "output": "word " * (number % 7 + 1),
            "rank": number % 9,
        }
        for number in range(ROWS[name])
    ]
    return write_jsonl(folder / f"{name}.jsonl", rows)


def mixed(folder: Path, amounts: dict[str, dict[str, Any]], output: str = "out", **options: Any) -> Manifest:
    sets = [
        dataset(
            source(folder, name),
            name=name,
            data_handlers=[PAIRS],
            retain_columns=("id",),
            ignore_columns=("rank",),
            **keys,
        )
        for name, keys in amounts.items()
    ]
    options = {"model_name_or_path": "sample:model", "staging_dir": str(folder / "units")} | options
    return preprocess(folder / output, *sets, **options)


def names(folder: Path) -> list[str]:
    """The data set of each row of the train split, in order; of each sequence, where rows are packed."""
    found: list[str] = []
    for row in written(folder):
        found += [each.rsplit(" ", 1)[0] for each in (row["id"] if isinstance(row["id"], list) else [row["id"]])]
    return found


def test_weights_are_reached_and_reported(tmp_path: Path) -> None:
    weights = {"chat": {"weight": 6}, "code-py": {"weight": 3}, "code-c": {"weight": 1}}
    processor = {"mix_by": "trained_tokens", "total_tokens": 3000}
    manifest = mixed(tmp_path, weights, processor=processor)
    train = manifest.splits["train"]
    assert abs(train.tokens - 3000) <= 20
    trained = Counter[str]()
    copies = Counter[str]()
    for row in written(tmp_path / "out"):
        trained[row["id"].rsplit(" ", 1)[0]] += sum(label != -100 for label in row["labels"])
        copies[row["id"]] += 1
    for info, wanted in zip(manifest.sources, (0.6, 0.3, 0.1), strict=True):
        assert info.mix is not None
        assert info.mix.wanted_share == wanted
        assert info.mix.trained_tokens == trained[info.dataset]
        assert info.mix.reached_share == pytest.approx(trained[info.dataset] / train.trained_tokens, abs=1e-6)
        assert abs(info.mix.reached_share - wanted) < 0.01  # rows are large in a mix of 3,000 tokens
        used = [copies[f"{info.dataset} {number}"] for number in range(ROWS[info.dataset])]
        assert (info.mix.copies_min, info.mix.copies_max) == (min(used), max(used))
    assert len(set(names(tmp_path / "out")[:20])) > 1, "the data sets are not mixed with each other"


def test_each_amount_of_a_data_set(tmp_path: Path) -> None:
    manifest = mixed(tmp_path, {"chat": {"repeat": 1.5}, "code-py": {"max_rows": 7}, "code-c": {}})
    assert Counter(names(tmp_path / "out")) == {"chat": 90, "code-py": 7, "code-c": 20}
    assert [info.mix and info.mix.copies_max for info in manifest.sources] == [2, 1, 1]
    again = mixed(tmp_path, {"chat": {"max_tokens": 100}, "code-py": {"target_tokens": 900}}, "again")
    assert again.units_found == 2
    tokens = [info.written["train"].tokens for info in again.sources]
    assert 80 <= tokens[0] <= 100
    assert abs(tokens[1] - 900) <= 10


@pytest.mark.parametrize(
    "packing", [{}, {"packing": "bfd", "pack_length": 64}, {"packing": "wrapped", "pack_length": 64}]
)
def test_stages_follow_each_other_in_the_shards(tmp_path: Path, packing: dict[str, Any]) -> None:
    from sftkit.config.schema.data_config import StageConfig

    stages = (StageConfig(until=0.5, weights={"chat": 1}), StageConfig(weights={"code-*": 1, "chat": 0}))
    manifest = mixed(
        tmp_path,
        {name: {} for name in ROWS},
        processor={"stages": stages, "total_rows": 80},
        num_dataset_shards=3,
        **packing,
    )
    found = names(tmp_path / "out")
    assert manifest.rows_written == 80
    if packing.get("packing") != "wrapped":  # which cuts rows, so they have several sequences
        assert Counter(found) == {"chat": 40, "code-py": 20, "code-c": 20}
    last_of_first = max(place for place, name in enumerate(found) if name == "chat")
    assert all(name == "chat" for name in found[: last_of_first + 1])
    again = mixed(
        tmp_path,
        {name: {} for name in ROWS},
        "again",
        processor={"stages": stages, "total_rows": 80},
        num_dataset_shards=3,
        **packing,
    )
    assert shard_bytes(tmp_path / "again") == shard_bytes(tmp_path / "out")
    assert again.units_found == 3


def test_a_mix_counts_rows_that_are_cut_to_a_pack_as_they_are_written(tmp_path: Path) -> None:
    weights = {"chat": {"weight": 1}, "code-py": {"weight": 1}}
    manifest = mixed(tmp_path, weights, processor={"mix_by": "tokens"}, packing="bfd", pack_length=9)
    shares = [info.written["train"].tokens / manifest.splits["train"].tokens for info in manifest.sources]
    assert shares == pytest.approx([0.5, 0.5], abs=0.03)
    assert [info.mix and info.mix.reached_share for info in manifest.sources] == pytest.approx(shares, abs=1e-6)


def test_text_has_no_tokens_to_count(tmp_path: Path) -> None:
    text = handler("apply_custom_jinja_template", template="{{input}} {{output}}", formatted_text_column_name="text")
    sets = [
        dataset(source(tmp_path, name), name=name, weight=1, data_handlers=[text], ignore_columns=("rank", "id"))
        for name in ("chat", "code-c")
    ]
    manifest = preprocess(tmp_path / "rows", *sets, model_name_or_path="sample:model")
    assert manifest.splits["train"].rows == 40
    with pytest.raises(DataError, match="mix_by=tokens counts tokens, and the rows are text, which has none yet; use"):
        preprocess(tmp_path / "out", *sets, model_name_or_path="sample:model", processor={"mix_by": "tokens"})


def test_a_config_file_mixes_and_its_manifest_repeats_the_run(tmp_path: Path) -> None:
    config = {
        "model_name_or_path": "sample:model",
        "dataprocessor": {"mix_by": "tokens", "total_tokens": 500},
        "datasets": [
            {
                "name": name, "data_paths": [str(source(tmp_path, name))], "weight": weight,
                "ignore_columns": ["id", "rank"],
                "data_handlers": [{"name": PAIRS.name, "arguments": dict(PAIRS.arguments)}],
            }
            for name, weight in (("chat", 3), ("code-c", 1))
        ],
    }  # fmt: skip
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump(config))
    run = CliRunner().invoke(
        app, ["preprocess", "--config", str(tmp_path / "mix.yaml"), "--output_dir", str(tmp_path / "a")]
    )
    assert run.exit_code == 0, run.output
    assert "wanted" in run.output
    manifest = str(tmp_path / "a" / "manifest.json")
    assert (
        json.loads(Path(manifest).read_text())["config"]["dataprocessor"]["sampling_stopping_strategy"]
        == "first_exhausted"
    )
    again = CliRunner().invoke(app, ["preprocess", "--config", manifest, "--output_dir", str(tmp_path / "b")])
    assert again.exit_code == 0, again.output
    assert shard_bytes(tmp_path / "a") == shard_bytes(tmp_path / "b")
    shown = CliRunner().invoke(app, ["inspect-shards", str(tmp_path / "a"), "--by", "dataset", "--rows", "0"])
    assert "75.00%" in shown.output
    bad = CliRunner().invoke(
        app, ["preprocess", "--config", str(tmp_path / "mix.yaml"), "--output_dir", "c", "--datasets[0].weight", "-3"]
    )
    assert bad.exit_code == 2
    assert "datasets[0].weight must be more than 0, not -3" in " ".join(bad.output.split())


def curriculum(
    folder: Path, order: Any, rows: list[dict[str, Any]], retained: tuple[str, ...] = ("id", "rank"), **options: Any
) -> Manifest:
    path = write_jsonl(folder / "rows.jsonl", rows)
    data = dataset(path, name="rows", data_handlers=[PAIRS], retain_columns=retained, ignore_columns=("rank", "id"))
    options = {"staging_dir": str(folder / "units"), "unit_size": 500} | options
    return preprocess(
        folder / "out", data, model_name_or_path="sample:model", processor={"order": order}, overwrite=True, **options
    )


def ranked(*ranks: Any) -> list[dict[str, Any]]:
    return [
        {"id": at, "input": f"q {at}", "output": "word " * (at % 5 + 1), "rank": rank} for at, rank in enumerate(ranks)
    ]


def test_a_curriculum_sorts_by_a_retained_column(tmp_path: Path) -> None:
    ranks = [number * 37 % 41 / 4 for number in range(40)]
    first = curriculum(tmp_path, "curriculum: rank", ranked(*ranks))
    assert first.units > 1
    assert [row["rank"] for row in written(tmp_path / "out")] == sorted(ranks)
    down = curriculum(tmp_path, {"curriculum": "-rank"}, ranked(*ranks), num_workers=2)
    assert down.units_found == down.units
    assert [row["rank"] for row in written(tmp_path / "out")] == sorted(ranks, reverse=True)
    curriculum(tmp_path, "curriculum: rank", ranked(*ranks), packing="next_fit", pack_length=64)
    assert [rank for row in written(tmp_path / "out") for rank in row["rank"]] == sorted(ranks)
    curriculum(tmp_path, "by_length", ranked(*ranks))
    lengths = [len(row["input_ids"]) for row in written(tmp_path / "out")]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        (
            [*range(30), None, 3, None],
            r"2 rows have no number in the column 'rank', the first at .*rows\.jsonl:31; give",
        ),
        ([1, None], r"a row has no number in the column 'rank', the first at .*rows\.jsonl:2; give each row for"),
        (["7", "8"], r"2 rows have no number in the column 'rank', the first at .*rows\.jsonl:1; give each row for"),
        ([True, False], r"2 rows have no number in the column 'rank', the first at .*rows\.jsonl:1; give each row for"),
    ],
)
def test_a_row_without_a_number_is_named(tmp_path: Path, ranks: list[Any], expected: str) -> None:
    with pytest.raises(DataError, match=f"order=curriculum: {expected}"):
        curriculum(tmp_path, "curriculum: rank", ranked(*ranks))


def test_a_column_that_is_not_retained_is_refused_before_tokenizing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sorts by 'rank', which is not retained of rows; add it to retain_columns"):
        curriculum(tmp_path, "curriculum: rank", ranked(1, 2), retained=("id",))
    assert not (tmp_path / "units").exists()


@pytest.mark.parametrize("packing", ["bfd", "wrapped"])
def test_an_order_is_refused_where_packs_are_shuffled(tmp_path: Path, packing: str) -> None:
    with pytest.raises(
        ConfigError, match=f"order=by_length is lost in packs of packing={packing}, which are shuffled; "
    ):
        curriculum(tmp_path, "by_length", ranked(1, 2), packing=packing, pack_length=64)
    curriculum(tmp_path, "shuffled", ranked(1, 2), packing=packing, pack_length=64)
