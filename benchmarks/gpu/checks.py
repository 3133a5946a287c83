"""Whether training is right on this device: `python -m benchmarks.gpu.checks --result FILE --work DIR`.

Every check compares with a computation that does less at once: one sequence after the other, all logits, no compiler,
no interruption. A check that cannot run here says why; one that fails or takes too long does not keep the others from
running. The result is written after each.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_TOLERANCE = 2e-2
"""Of losses and of the norm of gradients, in bfloat16, whose rounding is 4e-3."""

_LENGTHS = (70, 1, 220, 35, 130)
_MOST_CHARACTERS = 400  # of a reason
_DIED = "the process ended during this check"


class NotHereError(Exception):
    """A check cannot run on this machine."""


def main() -> None:
    """Run the checks, and write what each found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--work", type=Path, required=True, help="has the shards and the model")
    parser.add_argument("--only", nargs="*", choices=sorted(CHECKS), default=list(CHECKS))
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for name in options.only:
        check, limit = CHECKS[name]
        found[name] = {"failed": _DIED}
        options.result.write_text(json.dumps({"checks": found}), encoding="utf-8")
        start = time.perf_counter()
        try:
            with _time_limit(limit):
                found[name] = {"passed": check(options.work, options.device)}
        except NotHereError as reason:
            found[name] = {"skipped": str(reason)}
        except Exception as error:
            late = time.perf_counter() - start >= limit  # some libraries raise an error of their own then
            reason = f"took longer than {limit} s" if late else f"{type(error).__name__}: {error}"
            found[name] = {"failed": reason[:_MOST_CHARACTERS]}
        found[name]["seconds"] = time.perf_counter() - start
        options.result.write_text(json.dumps({"checks": found}), encoding="utf-8")


def _attention(work: Path, device: str) -> dict[str, float]:
    """Flat batches through SDPA, and padded ones through eager attention, in bfloat16."""
    import torch

    from sftkit.training.data.boundaries import sequence_boundaries
    from sftkit.training.data.collation import FlatCollator, PaddingCollator
    from sftkit.training.models.sequence_attention import use_sequence_attention

    expected = _one_by_one(work, device)
    padded = _model(work, device, torch.bfloat16, attn_implementation="eager")
    flat = _model(work, device, torch.bfloat16, attn_implementation="sdpa")
    use_sequence_attention(flat)
    found = {
        "eager, padded": _difference(_together(padded, PaddingCollator(True, 0)(_sequences(padded))), expected),
        "SDPA, flat": _difference(_together(flat, FlatCollator(True, sequence_boundaries)(_sequences(flat))), expected),
    }
    _require_small(found)
    return found


def _flash(work: Path, device: str) -> dict[str, float]:
    """Flat batches through flash attention, in bfloat16."""
    import torch

    from sftkit.training.data.boundaries import flash_boundaries
    from sftkit.training.data.collation import FlatCollator

    _require(device == "cuda", "flash attention needs a GPU")
    _require(importlib.util.find_spec("flash_attn") is not None, "flash-attn is not installed")
    model = _model(work, device, torch.bfloat16, attn_implementation="flash_attention_2")
    batch = FlatCollator(True, flash_boundaries)(_sequences(model))
    found = {"flash, flat": _difference(_together(model, batch), _one_by_one(work, device))}
    _require_small(found)
    return found


def _chunks(work: Path, device: str) -> dict[str, float]:
    """The loss in chunks, in mixed precision."""
    import torch

    from sftkit.training.data.collation import FlatCollator
    from sftkit.training.loss.chunked_model import use_chunked_loss

    found: list[Any] = []
    for size in (None, 50):
        model = _model(work, device, torch.float32)
        batch = FlatCollator(True)(_sequences(model)[2:3])
        if size is not None:
            use_chunked_loss(model, size)
        with torch.autocast(device, torch.bfloat16):
            found.append(_together(model, batch))
    differences = {"chunks": _difference(found[1], found[0])}
    _require_small(differences)
    return differences


def _liger(work: Path, device: str) -> dict[str, float]:
    _require(device == "cuda", "Liger's kernels need a GPU")
    _require(importlib.util.find_spec("liger_kernel") is not None, "liger-kernel is not installed")
    return _same_losses(work, device, ("bf16=true",), ("bf16=true", "use_liger_kernel=true"))


def _compiler(work: Path, device: str) -> dict[str, float]:
    if device == "cpu":
        _require(any(map(shutil.which, ("c++", "g++", "clang++"))), "there is no C++ compiler")
    return _same_losses(work, device, ("bf16=true",), ("bf16=true", "torch_compile=true"))


def _checkpointing(work: Path, device: str) -> dict[str, float]:
    return _same_losses(work, device, ("bf16=true",), ("bf16=true", "gradient_checkpointing=true"))


def _resume(work: Path, device: str) -> dict[str, float]:
    """A run that is interrupted and goes on has the same losses, to the last bit."""
    keys = ("bf16=true", "save_strategy=steps", "save_steps=3")
    whole = _losses(work, device, "whole", *keys, "max_steps=6")
    _losses(work, device, "parts", *keys, "max_steps=6")
    output = work / "out-parts"
    shutil.rmtree(output / "checkpoint-6")
    parts = _losses(work, device, "parts", *keys, "max_steps=6", keep=True)
    if whole != parts:
        raise AssertionError(f"losses differ: {whole} and {parts}")
    return {"resumed": 0.0}


def _lora(work: Path, device: str) -> dict[str, float]:
    """Adapters learn, and the merged model gives what model and adapters give."""
    import torch
    from transformers import AutoModelForCausalLM

    _require(importlib.util.find_spec("peft") is not None, "peft is not installed")
    from peft import PeftModel

    keys = ("use_peft=true", "merge_lora=true", "learning_rate=1e-3", "max_steps=8")
    losses = _losses(work, device, "lora", *keys)
    if losses[-1] >= losses[0]:
        raise AssertionError(f"the loss does not fall: {losses}")
    load: Any = AutoModelForCausalLM.from_pretrained
    ids = torch.arange(30)[None]
    adapted: Any = PeftModel.from_pretrained(load(work / "check"), work / "out-lora")
    with torch.no_grad():
        expected, merged = adapted(ids).logits, load(work / "out-lora" / "merged")(ids).logits
    difference = float((merged - expected).norm() / expected.norm())
    _require_small({"merged": difference})
    return {"merged": difference}


def _qlora(work: Path, device: str) -> dict[str, float]:
    return _quantized(work, device, "qlora", "load_in_4bit=true")


def _eight_bits(work: Path, device: str) -> dict[str, float]:
    return _quantized(work, device, "eight", "use_peft=true", "quantization_config={load_in_8bit: true}")


def _quantized(work: Path, device: str, name: str, *keys: str) -> dict[str, float]:
    _require(device == "cuda", "bitsandbytes is fast on a GPU only")
    _require(all(map(importlib.util.find_spec, ("peft", "bitsandbytes"))), "peft or bitsandbytes is not installed")
    losses = _losses(work, device, name, *keys, "bf16=true", "learning_rate=1e-3", "max_steps=8")
    plain = _losses(work, device, f"{name}-plain", "use_peft=true", "bf16=true", "learning_rate=1e-3", "max_steps=8")
    if losses[-1] >= losses[0] or abs(losses[0] / plain[0] - 1) > 5 * _TOLERANCE:
        raise AssertionError(f"losses {losses}, without quantization {plain}")
    return {"first loss": losses[0] / plain[0] - 1}


def _same_losses(work: Path, device: str, first: tuple[str, ...], second: tuple[str, ...]) -> dict[str, float]:
    expected = _losses(work, device, "first", *first, "max_steps=4")
    found = _losses(work, device, "second", *second, "max_steps=4")
    difference = max(abs(ours / theirs - 1) for ours, theirs in zip(found, expected, strict=True))
    _require_small({"losses": difference})
    return {"losses": difference}


def _losses(work: Path, device: str, name: str, *keys: str, keep: bool = False) -> list[float]:
    """The losses that a run of sftkit logs, one a step."""
    from sftkit.config.commands import TrainConfig
    from sftkit.config.loading import load_config
    from sftkit.shards.reading import open_shards
    from sftkit.training.arguments.build_arguments import extra_keys, make_training_arguments
    from sftkit.training.run import train

    output = work / f"out-{name}"
    if not keep:
        shutil.rmtree(output, ignore_errors=True)
    line = [
        f"model_name_or_path={work / 'check'}",
        f"output_dir={output}",
        f"use_cpu={device == 'cpu'}",
        *("per_device_train_batch_size=4", "logging_steps=1", "report_to=none", "allow_mismatch=true", *keys),
    ]
    config = load_config(TrainConfig, line, extra_keys=extra_keys())
    train(config, make_training_arguments(config), open_shards(str(work / "rows" / "shards")))
    lines = (output / "training_logs.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


def _model(work: Path, device: str, dtype: Any, **given: Any) -> Any:
    from transformers import AutoModelForCausalLM

    load: Any = AutoModelForCausalLM.from_pretrained
    return load(work / "check", dtype=dtype, **given).to(device).train()


def _sequences(model: Any) -> list[Any]:
    import numpy as np

    from sftkit.core.rows import Ragged
    from sftkit.training.data.rows.row_groups import TokenSequences

    generator = np.random.default_rng(0)
    ids = [generator.integers(0, model.config.vocab_size, length, np.int32) for length in _LENGTHS]
    return [TokenSequences(Ragged.from_lists([row]), Ragged.from_lists([row])) for row in ids]


def _one_by_one(work: Path, device: str) -> tuple[float, Any]:
    """Loss and gradients in float32, with eager attention, one sequence after the other."""
    import torch

    model = _model(work, device, torch.float32, attn_implementation="eager")
    total, trained = 0.0, sum(_LENGTHS) - len(_LENGTHS)
    for row in _sequences(model):
        ids = torch.as_tensor(row.input_ids.values, dtype=torch.int64, device=device)[None]
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum") / trained
        loss.backward()
        total += float(loss.detach())
    return total, _gradient(model)


def _together(model: Any, batch: Any) -> tuple[float, Any]:
    import torch

    items = torch.tensor(batch.counts.trained_tokens, device=model.device)
    loss = model(**batch.to(model.device), num_items_in_batch=items).loss
    loss.backward()
    return float(loss.detach()), _gradient(model)


def _gradient(model: Any) -> Any:
    import torch

    return torch.cat([values.grad.float().flatten() for values in model.parameters()])


def _difference(found: tuple[float, Any], expected: tuple[float, Any]) -> float:
    """The larger one of the relative differences of losses and gradients."""
    gradients = float((found[1] - expected[1]).norm() / expected[1].norm())
    return max(abs(found[0] / expected[0] - 1), gradients)


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise NotHereError(reason)


def _require_small(differences: Mapping[str, float]) -> None:
    too_large = {name: f"{value:.1e}" for name, value in differences.items() if not value <= _TOLERANCE}
    if too_large:
        raise AssertionError(f"differences above {_TOLERANCE}: {too_large}")


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(*_arguments: Any) -> None:
        raise TimeoutError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


CHECKS: dict[str, tuple[Callable[[Path, str], dict[str, float]], int]] = {
    "attention": (_attention, 40),
    "flash attention": (_flash, 40),
    "loss in chunks": (_chunks, 30),
    "gradient checkpointing": (_checkpointing, 30),
    "resume": (_resume, 40),
    "LoRA": (_lora, 40),
    "QLoRA": (_qlora, 40),
    "8 bits": (_eight_bits, 40),
    "Liger": (_liger, 40),
    "torch.compile": (_compiler, 90),
}
"""Each check and its limit in seconds, the one that is most likely to take long at the end."""

if __name__ == "__main__":
    main()
