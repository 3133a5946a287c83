"""Settings of gradient checkpointing: what is passed to transformers, and what is refused before a model is loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sftkit.errors import SftkitError

from .material import logged
from .test_run import prepared, run
from .test_setting_conflicts import config, on_gpu, problems

KWARGS = "--gradient_checkpointing_kwargs"
ON = "--gradient_checkpointing=true"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["--activation_offloading=true"], "activation_offloading moves what gradient checkpointing saves; set"),
        (["--activation_offloading=true", ON], "activation_offloading needs a GPU; without one"),
        ([ON, f"{KWARGS}={{offload: true}}"], "gradient_checkpointing_kwargs: offload needs a GPU"),
        ([ON, f"{KWARGS}={{context_fn: f}}"], "context_fn is a function, which a configuration cannot hold"),
        ([ON, f"{KWARGS}={{every_layers: 2}}"], "every_layers is unknown; the keys are debug, determinism_check"),
        ([ON, f"{KWARGS}={{every_n_layers: 0}}"], "every_n_layers must be a whole number, 1 or more, not 0"),
        ([ON, f"{KWARGS}={{every_n_layers: two}}"], "every_n_layers must be a whole number, 1 or more, not 'two'"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, model_dir: Path, lines: list[str], message: str) -> None:
    with pytest.raises(SftkitError, match=re.escape(message)):
        prepared(model_dir, tmp_path / "out", *lines)


def test_offloading_is_accepted_on_a_gpu() -> None:
    settings: dict[str, Any] = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"offload": True}}
    assert problems(config(activation_offloading=True), on_gpu(**settings)) == []


def test_every_second_layer_can_be_checkpointed(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    given = ("--max_steps=2", "--save_strategy=no")
    run(model_dir, shard_dir, tmp_path / "plain", *given)
    run(model_dir, shard_dir, tmp_path / "half", *given, ON, f"{KWARGS}={{every_n_layers: 2}}")
    assert logged(tmp_path / "half", "loss") == pytest.approx(logged(tmp_path / "plain", "loss"), rel=1e-6)


def test_offloaded_activations_give_the_same_losses(
    tmp_path: Path, model_dir: Path, shard_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without an accelerator, nothing can be pinned; everything else is as on a GPU.
    from transformers import modeling_utils

    packed: list[torch.Size] = []

    class Unpinned(torch.autograd.graph.saved_tensors_hooks):
        def __init__(self, pin_memory: bool, device_type: str) -> None:
            assert (pin_memory, device_type) == (True, "cpu")
            super().__init__(lambda tensor: packed.append(tensor.shape) or tensor.clone(), lambda tensor: tensor)

    monkeypatch.setattr(modeling_utils, "save_on_cpu", Unpinned)
    monkeypatch.setattr("sftkit.training.arguments.checks.setting_conflicts.lacking_accelerator", lambda *_given: [])
    given = ("--max_steps=2", "--save_strategy=no", "--loss_chunk_size=5")
    run(model_dir, shard_dir, tmp_path / "plain", *given)
    run(model_dir, shard_dir, tmp_path / "offloaded", *given, ON, "--activation_offloading=true")
    assert logged(tmp_path / "offloaded", "loss") == pytest.approx(logged(tmp_path / "plain", "loss"), rel=1e-6)
    assert packed
