"""The progress of a run moves within work units and shards, and ends at exactly all of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sftkit.config.commands import PreprocessConfig
from sftkit.execution import task_reports
from sftkit.preprocessing.build import run
from sftkit.preprocessing.planning import plan
from sftkit.shards.writing import shard_writer
from support import dataset, handler, write_jsonl


@dataclass
class Stage:
    total: int
    steps: list[int] = field(default_factory=list)
    rows: int = 0
    tokens: int = 0


class Recorded:
    """Keeps what is shown."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}
        self._stage = ""

    def begin(self, stage: str, total: int) -> None:
        self._stage = stage
        self.stages[stage] = Stage(total)

    def advance(self, steps: int, *, rows: int = 0, tokens: int = 0) -> None:
        stage = self.stages[self._stage]
        stage.steps.append(steps)
        stage.rows += rows
        stage.tokens += tokens

    def end(self) -> None:
        """Nothing is left to do."""


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_moves_within_units_and_shards(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_reports, "_SECONDS_BETWEEN_REPORTS", 0.0)
    monkeypatch.setattr(shard_writer, "ROW_GROUP_BYTES", 1 << 16)
    source = write_jsonl(tmp_path / "in.jsonl", ({"input": f"{n} plus", "output": f"{n + 1}"} for n in range(5000)))
    parts = (dataset(source, data_handlers=[handler("tokenize", dataset_text_field="input")]),)
    config = PreprocessConfig(
        output_dir=str(tmp_path / "out"),
        tokenizer_name_or_path="sample:model",
        datasets=parts,
        train_on="all",
        num_workers=workers,
    )
    progress = Recorded()
    manifest = run(plan(config), progress)
    written = manifest.splits["train"]
    for name, total in (("tokenizing", source.stat().st_size), ("writing shards", 5000)):
        stage = progress.stages[name]
        assert stage.total == total == sum(stage.steps)
        assert min(stage.steps) >= 0
        assert len(stage.steps) > 3  # there is one unit, and one shard
        assert (stage.rows, stage.tokens) == (5000, written.tokens)
