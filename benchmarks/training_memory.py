"""The estimate of memory against real runs: `python -m benchmarks.training_memory [--cases NAME ...] [--resident]`.

Small models with random weights are trained for two steps in float32 on the CPU, each in a process of its own. Their
real peak is counted in two ways: the bytes that torch's allocator was asked for (its profiler; the same on every
machine), and with `--resident` the memory of the process, less what it had before the model was made.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .processes import run_module

_LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}
_QWEN = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": True}
_GPT = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.0}
_MIB = 2**20


@dataclass(frozen=True)
class Case:
    """A model and how it is trained."""

    name: str
    model: Mapping[str, Any]
    """Its config."""

    lengths: tuple[int, ...]
    """Tokens of the rows; all of them are one micro-batch."""

    keys: Mapping[str, Any] = field(default_factory=dict)


def _llama(width: int, inner: int, layers: int, heads: int, vocabulary: int) -> dict[str, Any]:
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "vocab_size": vocabulary}
    return {**_LLAMA, **sizes, "num_attention_heads": heads, "num_key_value_heads": heads // 2}


_SMALL = _llama(320, 1024, 6, 8, 16_000)
_MEDIUM = {**_QWEN, **_llama(512, 1536, 12, 8, 32_000), "head_dim": 64, **_QWEN}
_LARGE = {**_GPT, "n_embd": 768, "n_layer": 16, "n_head": 12, "vocab_size": 50_257}
_CHECKPOINTING = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
_ROWS = (256, 192, 320, 256)
_LORA = {"use_peft": True, "lora_r": 16, "lora_alpha": 32}

CASES = {
    case.name: case
    for case in (
        Case("llama-20m", _SMALL, _ROWS),
        Case("llama-20m-checkpointing", _SMALL, _ROWS, _CHECKPOINTING),
        Case("llama-20m-padded", _SMALL, _ROWS, {"padding_free": "false"}),
        Case("llama-20m-eager", _SMALL, _ROWS, {"attn_implementation": "eager"}),
        Case("llama-20m-bfloat16", _SMALL, _ROWS, {"torch_dtype": "bfloat16"}),
        Case("llama-20m-accumulation", _SMALL, _ROWS, {"gradient_accumulation_steps": 2,
                                                       "per_device_train_batch_size": 2}),
        Case("llama-20m-adafactor", _SMALL, (64,), {"optim": "adafactor"}),
        Case("llama-20m-muon", _SMALL, (64,), {"optim": "muon"}),
        Case("qwen3-60m", _MEDIUM, _ROWS),
        Case("qwen3-60m-checkpointing", _MEDIUM, _ROWS, _CHECKPOINTING),
        Case("qwen3-60m-lora", _MEDIUM, _ROWS, _LORA),
        Case("qwen3-60m-lora-checkpointing", _MEDIUM, _ROWS, {**_LORA, **_CHECKPOINTING}),
        Case("gpt2-150m", _LARGE, _ROWS),
        Case("gpt2-150m-checkpointing", _LARGE, _ROWS, _CHECKPOINTING),
        Case("large-vocabulary", _llama(256, 688, 4, 4, 128_000), _ROWS),
        Case("large-vocabulary-whole", _llama(256, 688, 4, 4, 128_000), _ROWS, {"loss_chunk_size": 0}),
    )
}  # fmt: skip


def main() -> None:
    """Print the estimate and the real peak of every case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=tuple(CASES))
    parser.add_argument("--resident", action="store_true", help="measure the memory of the process, too")
    parser.add_argument("--measure", choices=("tensors", "resident"), help="measure one case in this process")
    parser.add_argument("--result", type=Path, help="write what is measured here")
    options = parser.parse_args()
    if options.result is not None:
        found = measured(CASES[options.cases[0]], resident=options.measure == "resident")
        options.result.write_text(json.dumps(found), encoding="utf-8")
        return
    for name in options.cases:
        found = run_module("training_memory", "--cases", name, "--measure", "tensors")
        line = f"{name:30}{found['parameters'] / 1e6:6.1f}M  estimated {found['estimated'] / _MIB:8,.1f} MiB"
        line += f"  tensors {found['peak'] / _MIB:8,.1f} MiB ({found['estimated'] / found['peak'] - 1:+.1%})"
        if options.resident:
            resident = run_module("training_memory", "--cases", name, "--measure", "resident")["peak"]
            line += f"  process {resident / _MIB:8,.1f} MiB ({found['estimated'] / resident - 1:+.1%})"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def measured(case: Case, *, resident: bool) -> dict[str, float]:
    """Plan and run a case.

    Returns:
        Numbers of bytes: `estimated`; and `peak`, the real one.
    """
    import sftkit

    with tempfile.TemporaryDirectory() as work:
        keys = prepare(case, Path(work))
        plan = sftkit.plan_training(**keys)
        peak = _resident_peak(keys) if resident else _tensor_peak(keys)
    return {"parameters": plan.parameters, "estimated": plan.memory.use.total, "peak": peak}


def prepare(case: Case, folder: Path) -> dict[str, Any]:
    """Write the model and the data of a case; returns the keys of `sftkit train`."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from sftkit.storage.model_location import model_location

    model = folder / "model"
    AutoTokenizer.from_pretrained(model_location("sample:model")).save_pretrained(model)
    settings = AutoConfig.for_model(**case.model)
    settings.save_pretrained(model)
    if "use_peft" in case.keys:  # adapters need weights, even random ones
        AutoModelForCausalLM.from_config(settings).save_pretrained(model)
    generator = np.random.default_rng(0)
    rows = [generator.integers(10, 1000, length, np.int32) for length in case.lengths]
    rows_of_two_steps = rows * 2
    pq.write_table(pa.table({"input_ids": rows_of_two_steps, "labels": rows_of_two_steps}), folder / "rows.parquet")
    usual = {
        "per_device_train_batch_size": len(rows),
        "max_steps": 2,
        "save_strategy": "no",
        "use_cpu": True,
        "train_sampling_strategy": "sequential",
    }
    return {
        "training_data_path": str(folder / "rows.parquet"), "model_name_or_path": str(model), "allow_mismatch": True,
        "output_dir": str(folder / "out"), "init_from_config": "use_peft" not in case.keys, **usual, **case.keys,
    }  # fmt: skip


def _tensor_peak(keys: dict[str, Any]) -> int:
    """The most bytes that torch's allocator had given out, of those it gave out since before the model was made."""
    from torch.profiler import ProfilerActivity, profile

    import sftkit

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        sftkit.train(**keys)
    found: Any = profiler.profiler
    events = [event for event in found.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def _resident_peak(keys: dict[str, Any]) -> int:
    """The largest resident size of this process, less that before the model was made."""
    import sftkit

    before = _resident("VmRSS")
    sftkit.train(**keys)
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


if __name__ == "__main__":
    main()
