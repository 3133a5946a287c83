"""A revision after the name of a model on the Hub: its own directory of the cache, or a sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sftkit.sample import sample_path
from sftkit.storage import hub_revision
from sftkit.storage.model_location import location_problem, model_location

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the Hub with one revision of one model, whose config says that it is that revision."""
    repository = tmp_path / "hub" / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "v1").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(sample_path("sample:model"), snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub_revision.revision_directory.cache_clear()
    return tmp_path / "hub"


def test_a_revision_is_its_directory_in_the_cache(cache: Path) -> None:
    assert location_problem("org/tiny@v1") is None
    expected = cache / "models--org--tiny" / "snapshots" / COMMIT
    assert Path(model_location("org/tiny@v1")) == Path(model_location(f"org/tiny@{COMMIT}")) == expected


@pytest.mark.usefixtures("cache")
def test_a_revision_that_cannot_be_loaded_is_named() -> None:
    expected = "the revision 'v2' of org/tiny is not in the local cache of the Hub, and the Hub cannot be reached"
    assert str(location_problem("org/tiny@v2")).startswith(expected)


def test_a_directory_with_such_a_name_is_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model@v1").mkdir()
    assert location_problem("model@v1") is None
    assert model_location("model@v1") == "model@v1"


@pytest.mark.slow
def test_a_revision_is_trained(cache: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    snapshot = cache / "models--org--tiny" / "snapshots" / COMMIT
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(snapshot)).save_pretrained(snapshot)
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]})
    )
    line = ["train", "--training_data_path", "rows.jsonl", "--model_name_or_path", "org/tiny@v1", "--output_dir", "out"]
    subprocess.run(
        [sys.executable, "-m", "sftkit", *line, "--max_steps", "1", "--cache_dir", "cache"],
        cwd=tmp_path,
        check=True,
        env={**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
    )
    assert (tmp_path / "out" / "model.safetensors").exists()
