"""Time one epoch of one trainer: `python -m benchmarks.trainers --result FILE CONTESTANT SHARDS MODEL`.

Contestants: `sftkit`, and TRL's SFTTrainer on the same rows as `trl` (its defaults), `trl-lean` (the same without
gradient checkpointing) and `trl-packed` (its best packing). All use float32 and the same number of rows per step.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

PACK_LENGTH = 2048
ROWS = 8  # per batch, if rows are not packed


def main() -> None:
    """Train, and write seconds and token counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--bf16", action="store_true", help="on a GPU")
    parser.add_argument("contestant", choices=("sftkit", "trl", "trl-lean", "trl-packed"))
    parser.add_argument("shards", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("options", nargs="*", help="more keys for sftkit, key=value")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if options.contestant == "sftkit":
            result = _sftkit(options.shards, options.model, Path(scratch), options.options, bf16=options.bf16)
        else:
            result = _trl(options.contestant, options.shards, options.model, Path(scratch), bf16=options.bf16)
    options.result.write_text(json.dumps(result), encoding="utf-8")


def _sftkit(shards: Path, model: Path, scratch: Path, more: list[str], *, bf16: bool) -> dict[str, float]:
    from sftkit.config.commands import TrainConfig
    from sftkit.config.loading import load_config
    from sftkit.shards.reading import open_shards
    from sftkit.training.arguments.build_arguments import extra_keys, make_training_arguments
    from sftkit.training.run import train

    packed = "seq_lengths" in open_shards(str(shards)).column_names("train")
    line = [
        f"model_name_or_path={model}",
        f"output_dir={scratch / 'out'}",
        "init_from_config=true",
        f"per_device_train_batch_size={1 if packed else ROWS}",
        *("num_train_epochs=1", "save_strategy=no", "logging_steps=1000", f"bf16={bf16}", *more),
    ]
    config = load_config(TrainConfig, line, extra_keys=extra_keys())
    report = train(config, make_training_arguments(config), open_shards(str(shards)))
    return {"seconds": report.seconds, "trained_tokens": report.trained_tokens, "tokens": report.tokens}


def _trl(contestant: str, shards: Path, model: Path, scratch: Path, *, bf16: bool) -> dict[str, float]:
    from datasets import Dataset
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    packed = contestant == "trl-packed"
    rows = pq.read_table(sorted(shards.glob("train-*.parquet")), columns=["input_ids", "labels"])
    settings: dict[str, Any] = {} if contestant == "trl" else {"gradient_checkpointing": False}
    if packed:
        settings |= {"packing": True, "packing_strategy": "bfd"}
    arguments = SFTConfig(
        output_dir=str(scratch / "out"),
        per_device_train_batch_size=1 if packed else ROWS,
        num_train_epochs=1,
        max_length=PACK_LENGTH,
        save_strategy="no",
        logging_steps=1000,
        report_to="none",
        bf16=bf16,
        disable_tqdm=True,
        **settings,
    )
    make: Callable[..., Any] = SFTTrainer
    trainer = make(
        model=AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model)),
        args=arguments,
        train_dataset=Dataset(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    labels = rows.column("labels").to_pylist()
    return {
        "seconds": seconds,
        "trained_tokens": sum(label != -100 for row in labels for label in row[1:]),
        "tokens": sum(map(len, labels)),
    }


if __name__ == "__main__":
    main()
