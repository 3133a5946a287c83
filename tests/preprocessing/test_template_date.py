"""A run that continues after midnight tells chat templates the day that it began with."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date as real_date
from pathlib import Path
from typing import Any

import pytest

import sftkit
from sftkit.config.commands import TrainConfig
from sftkit.config.reading.python_values import load_values
from sftkit.core.progress import SilentProgress
from sftkit.preprocessing.pipeline.unit_pipeline import Pipeline
from sftkit.preprocessing.training_shards import find_or_build_shards
from support import shard_bytes, write_jsonl

PLAIN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
DATED = "{{ strftime_now('%d %b %Y') }}" + PLAIN

SetDay = Callable[[str], None]


@pytest.fixture
def set_day(monkeypatch: pytest.MonkeyPatch) -> SetDay:
    def change(day: str) -> None:
        class Clock(real_date):
            @classmethod
            def today(cls) -> Clock:
                return cls.fromisoformat(day)

        monkeypatch.setattr("sftkit.sandbox.chat_templates.date", Clock)

    return change


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A config with two units and a template that tells the date."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        chat = [{"role": "user", "content": f"of {name}"}, {"role": "assistant", "content": "well"}]
        write_jsonl(tmp_path / f"{name}.jsonl", [{"messages": chat}] * 3)
    return {
        "training_data_path": ["a.jsonl", "b.jsonl"],
        "tokenizer_name_or_path": "sample:model",
        "dataprocessor": {"chat_template": DATED},
        "num_workers": 1,
    }


def run(output: str, keys: dict[str, Any], **more: Any) -> sftkit.PreprocessResult:
    return sftkit.preprocess(output_dir=output, **{**keys, **more})


def day_of(output: str) -> Any:
    return json.loads(Path(output, "manifest.json").read_text())["config"].get("template_date")


def interrupt(output: str, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    """Run until one unit is staged."""
    stage = Pipeline.stage
    calls: list[int] = []

    def stop(self: Pipeline, *args: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return stage(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "stage", stop)
        with pytest.raises(KeyboardInterrupt):
            run(output, keys, **more)


@pytest.mark.parametrize("more", [{}, {"staging_dir": "units"}, {"keep_staging": True}])
def test_a_run_continued_the_next_day_makes_the_same_bytes(
    keys: dict[str, Any], set_day: SetDay, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    set_day("2024-02-28")
    run("whole", keys)
    interrupt("out", keys, monkeypatch, **more)
    set_day("2024-02-29")
    result = run("out", keys, **more)
    assert shard_bytes(Path("out")) == shard_bytes(Path("whole"))
    assert (day_of("out"), result.manifest and result.manifest.units_found) == ("2024-02-28", 1)


def test_a_run_continued_in_an_object_store_makes_the_same_bytes(
    keys: dict[str, Any], set_day: SetDay, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_day("2024-02-28")
    interrupt("memory://dated/out", keys, monkeypatch)
    set_day("2024-02-29")
    result = run("memory://dated/out", keys)
    assert result.manifest is not None
    assert (result.manifest.config["template_date"], result.manifest.units_found) == ("2024-02-28", 1)
    set_day("2024-03-01")
    assert not run("memory://dated/out", keys).ran


def test_a_finished_data_set_is_complete_and_unchanged_the_next_day(keys: dict[str, Any], set_day: SetDay) -> None:
    set_day("2024-02-28")
    run("out", keys)
    set_day("2025-01-01")
    assert not run("out", keys).ran
    Path("out", "train-00000-of-00001.parquet").unlink()
    assert run("out", keys).ran
    assert day_of("out") == "2024-02-28"


def test_another_run_tells_its_own_day(keys: dict[str, Any], set_day: SetDay) -> None:
    set_day("2024-02-28")
    run("out", keys)
    set_day("2024-02-29")
    assert run("out", keys, num_dataset_shards=2, overwrite=True).ran
    run("other", keys)
    assert (day_of("out"), day_of("other")) == ("2024-02-29", "2024-02-29")


def test_a_manifest_and_the_key_repeat_the_bytes_on_any_day(keys: dict[str, Any], set_day: SetDay) -> None:
    set_day("2024-02-28")
    run("out", keys)
    set_day("2025-01-01")
    sftkit.preprocess(["out/manifest.json"], output_dir="again")
    run("chosen", keys, template_date="2024-02-28")
    assert shard_bytes(Path("again")) == shard_bytes(Path("out")) == shard_bytes(Path("chosen"))


def test_rows_of_a_template_without_a_date_are_reused_on_any_day(keys: dict[str, Any], set_day: SetDay) -> None:
    keys["dataprocessor"] = {"chat_template": PLAIN}
    set_day("2024-02-28")
    run("out", keys, staging_dir="units")
    set_day("2024-02-29")
    result = run("other", keys, staging_dir="units", template_date="2000-01-01")
    assert result.manifest is not None
    assert (result.manifest.units_found, result.manifest.units) == (2, 2)
    assert day_of("out") is None


def test_units_that_are_kept_keep_their_day(keys: dict[str, Any], set_day: SetDay) -> None:
    set_day("2024-02-28")
    run("out", keys, keep_staging=True)
    set_day("2024-02-29")
    result = run("out", keys, keep_staging=True, num_dataset_shards=2, overwrite=True)
    assert result.manifest is not None
    assert (result.manifest.units_found, day_of("out")) == (2, "2024-02-28")


def test_train_finds_the_shards_of_yesterday_in_its_cache(keys: dict[str, Any], set_day: SetDay) -> None:
    config = load_values(TrainConfig, None, {**keys, "output_dir": "model", "cache_dir": "cache"})
    set_day("2024-02-28")
    first = find_or_build_shards(config, SilentProgress())
    set_day("2024-02-29")
    second = find_or_build_shards(config, SilentProgress())
    assert first.root == second.root
    assert len(list(Path("cache").iterdir())) == 1


@pytest.mark.parametrize("day", ["today", "20240228", "2024-2-28", "2024-02-30", "2024-W09-3", ""])
def test_a_day_in_another_form_is_refused(keys: dict[str, Any], day: str) -> None:
    with pytest.raises(sftkit.ConfigError, match=r"template_date must be a day in the form YYYY-MM-DD"):
        run("out", keys, template_date=day)
