"""Speed of one contestant on one model: `python -m benchmarks.gpu.speed --result FILE --model NAME CONTESTANT`.

Steps of one pack after another; the first third is not counted. `trl` is TRL's SFTTrainer with its best settings on the
same conversations: packing, FlashAttention and Liger's kernels if they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

from .setups import LARGE, TINY, Setup, random_model, random_weights

_STEPS = {"cuda": 18, "cpu": 6}


def main() -> None:
    """Measure, for each length of packs, and write what is known after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--model", required=True, choices=[setup.name for setup in (*TINY, *LARGE)])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--work", type=Path, required=True, help="has the shards and configs")
    parser.add_argument("contestant", choices=("sftkit", "trl"))
    options = parser.parse_args()
    setup = next(setup for setup in (*TINY, *LARGE) if setup.name == options.model)
    if options.contestant == "trl" and importlib.util.find_spec("trl") is None:
        options.result.write_text(json.dumps({"skipped": "trl is not installed"}), encoding="utf-8")
        return
    found = []
    for pack in setup.packs:
        measure = _sftkit if options.contestant == "sftkit" else _trl
        found.append({"pack": pack, **measure(setup, options.work, pack, options.device)})
        options.result.write_text(json.dumps({"measured": found}), encoding="utf-8")


def _sftkit(setup: Setup, work: Path, pack: int, device: str) -> dict[str, Any]:
    from sftkit.config.commands import TrainConfig
    from sftkit.config.loading import load_config
    from sftkit.shards.reading import open_shards
    from sftkit.training.arguments.build_arguments import extra_keys, make_training_arguments
    from sftkit.training.run import train

    output = work / f"out-{setup.name}-{pack}".replace(" ", "-")
    line = [
        f"model_name_or_path={work / setup.name}",
        f"output_dir={output}",
        *("per_device_train_batch_size=1", "save_strategy=no", "logging_steps=1", "bf16=true", "report_to=none"),
        f"max_steps={_STEPS[device]}",
        f"gradient_checkpointing={setup.checkpointing}",
        f"use_cpu={device == 'cpu'}",
        f"use_liger_kernel={_has_liger(device)}",
        *setup.settings,
    ]
    config = load_config(TrainConfig, line, extra_keys=extra_keys())
    arguments = make_training_arguments(config)
    _reset_memory(device)
    with random_weights(_dtype(setup), device, saved=False):
        report = train(config, arguments, open_shards(str(work / f"packs-{pack}" / "shards")))
    lines = [json.loads(line) for line in (output / "training_logs.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [entry for entry in lines if "tokens_per_second" in entry]
    counted = steps[len(steps) // 3 :]
    return {
        **{key: _median(counted, key) for key in ("tokens_per_second", "trained_tokens_per_second", "mfu")},
        "peak_bytes": report.peak_memory,
        "first_loss": report.first_loss,
    }


def _trl(setup: Setup, work: Path, pack: int, device: str) -> dict[str, Any]:
    import pyarrow.parquet as pq
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_arguments: Any, **_given: Any) -> None:
            if device == "cuda":
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    flash = device == "cuda" and importlib.util.find_spec("flash_attn") is not None
    attention = {"attn_implementation": "flash_attention_2"} if flash else {}
    arguments = SFTConfig(
        output_dir=str(work / "out-trl"),
        per_device_train_batch_size=1,
        max_steps=_STEPS[device],
        max_length=pack,
        packing=True,
        packing_strategy="bfd",
        bf16=True,
        use_cpu=device == "cpu",
        use_liger_kernel=_has_liger(device),
        gradient_checkpointing=setup.checkpointing,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    adapters: dict[str, Any] = {}
    if setup.lora:
        from peft import LoraConfig

        adapters["peft_config"] = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    rows = pq.read_table(sorted((work / "rows" / "shards").glob("train-*.parquet")), columns=["input_ids", "labels"])
    _reset_memory(device)
    make: Any = SFTTrainer
    trainer = make(
        model=random_model(work / setup.name, _dtype(setup), device, **attention),
        args=arguments,
        train_dataset=Dataset(rows),
        processing_class=AutoTokenizer.from_pretrained(work / setup.name),
        callbacks=[Clock()],
        **adapters,
    )
    labels = rows.column("labels").to_pylist()
    packs = len(trainer.train_dataset)
    trainer.train()
    seconds = statistics.median(end - start for start, end in itertools.pairwise(ends))
    trained = sum(label != -100 for row in labels for label in row[1:])
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {
        "tokens_per_second": sum(map(len, labels)) / packs / seconds,
        "trained_tokens_per_second": trained / packs / seconds,
        "mfu": None,
        "peak_bytes": peak,
        "attention": "flash_attention_2" if flash else "sdpa",
    }


def _has_liger(device: str) -> bool:
    return device == "cuda" and importlib.util.find_spec("liger_kernel") is not None


def _dtype(setup: Setup) -> str:
    return "bfloat16" if "torch_dtype=bfloat16" in setup.settings else "float32"


def _median(entries: list[dict[str, Any]], key: str) -> float | None:
    values = [entry[key] for entry in entries if entry.get(key) is not None]
    return statistics.median(values) if values else None


def _reset_memory(device: str) -> None:
    import gc

    import torch

    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
