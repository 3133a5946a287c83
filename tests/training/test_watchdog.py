"""The watchdog: spikes and slow runs are reported, normal runs are not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sftkit.training.metrics.spikes import FallDetector, SpikeDetector
from sftkit.training.metrics.step_measures import MeasuringTrainer, StepMeasures

from .material import logged
from .test_run import run


def loss_detector() -> SpikeDetector:
    return SpikeDetector(deviations=8, factor=1.5, beyond=1.25, least_rise=0.2)


def falling(steps: int, seed: int, noise: float) -> np.ndarray:
    """The losses of a normal run: they fall from 10 to 2, with noise."""
    chance = np.random.default_rng(seed)
    return (2 + 8 * np.exp(-np.arange(steps) / 40)) * (1 + noise * chance.standard_normal(steps))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.2])
def test_normal_losses_are_no_spikes(seed: int, noise: float) -> None:
    detector = loss_detector()
    assert [step for step, loss in enumerate(falling(600, seed, noise)) if detector.usual(loss)] == []


def test_losses_of_a_rare_harder_data_set_are_no_spikes() -> None:
    chance = np.random.default_rng(0)
    losses = np.where(chance.random(600) < 0.15, 2.0, 0.5) + 0.03 * chance.standard_normal(600)
    detector = loss_detector()
    assert [step for step, loss in enumerate(losses) if detector.usual(loss)] == []


def test_a_step_of_few_tokens_may_have_a_higher_loss() -> None:
    few, many = loss_detector(), loss_detector()
    for detector in (few, many):
        for loss in 1 + 0.05 * np.random.default_rng(1).standard_normal(100):
            assert detector.usual(loss, 1000) is None
    assert few.usual(1.9, 20) is None
    assert many.usual(1.9, 1000) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_a_spike_is_noticed_and_values_that_are_not_finite_are_left_out(noise: float) -> None:
    losses = falling(400, 3, noise)
    losses[300], losses[350] = 8.0, math.nan
    detector = loss_detector()
    assert [step for step, loss in enumerate(losses) if detector.usual(loss)] == [300]


def test_a_rate_that_falls_for_long_is_reported_once() -> None:
    detector = FallDetector()
    seconds = [5.0, *[1.0] * 99, *[9.0] * 4, *[1.0] * 100, *[3.0] * 100]
    found = {step: rates for step, time in enumerate(seconds) if (rates := detector.fallen(100, time))}
    assert len(found) == 1
    [(step, (now, usual))] = found.items()
    assert 204 + 8 <= step <= 204 + 16
    assert (now, usual) == (pytest.approx(100 / 3), 100)


def test_short_steps_are_never_slow() -> None:
    detector = FallDetector()
    assert not any(detector.fallen(100, 0.01 if step < 100 else 0.2) for step in range(140))


def test_a_run_reports_spikes_in_terminal_and_log(
    tmp_path: Path, model_dir: Path, shard_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = MeasuringTrainer._get_grad_norm

    def spike(trainer: Any, *arguments: Any, **settings: Any) -> Any:
        norm = keep(trainer, *arguments, **settings)
        if trainer.state.global_step == 38:
            trainer.present_step.grad_norm = torch.tensor(1e4)
            trainer.present_step.losses.append(torch.tensor(50.0))
        return norm

    monkeypatch.setattr(MeasuringTrainer, "_get_grad_norm", spike)
    line = ("--max_steps=40", "--per_device_train_batch_size=2", "--save_strategy=no", "--learning_rate=1e-3")
    run(model_dir, shard_dir, tmp_path / "out", *line)
    warnings = [record.getMessage() for record in caplog.records if record.getMessage().startswith("step 39: ")]
    assert len(warnings) == 2
    assert "the loss is 5" in warnings[0]
    assert "the gradient norm is 1e+04" in warnings[1]
    assert [f"step 39: {text}" for text in logged(tmp_path / "out", "warning")] == warnings
    losses = logged(tmp_path / "out", "loss")
    run(model_dir, shard_dir, tmp_path / "off", *line, "--watchdog=false")
    assert logged(tmp_path / "off", "loss") == losses
    assert logged(tmp_path / "off", "warning") == []


def test_the_loss_of_a_step_is_that_of_its_micro_batches() -> None:
    assert StepMeasures([torch.tensor(1.5), torch.tensor(0.25)]).loss() == 1.75
    assert StepMeasures().loss() == 0
