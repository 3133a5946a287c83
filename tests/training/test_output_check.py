"""A run does not write through links, nor into the directory of the model that it trains."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from reliability.material import sftkit
from sftkit.config.commands import TrainConfig
from sftkit.errors import OutputError
from sftkit.sample import sample_path
from sftkit.training.setup.output_check import check_training_output


def config(folder: Path, model: Path | str = "sample:model") -> TrainConfig:
    return TrainConfig(output_dir=str(folder), model_name_or_path=str(model))


@pytest.mark.parametrize(
    "name", ["config.json", "training_logs.jsonl", "samples.jsonl", "model-00001-of-00002.safetensors", "merged"]
)
def test_a_link_under_the_name_of_a_file_of_the_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out").mkdir()
    for link in (os.symlink, os.link):
        path = tmp_path / "out" / name
        link(tmp_path / "precious", path)
        with pytest.raises(OutputError, match=f"out/{name}: is a link"):
            check_training_output(config(tmp_path / "out"))
        path.unlink()
    check_training_output(config(tmp_path / "out"))


def test_files_and_links_that_the_run_does_not_write_stay(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").symlink_to("elsewhere")
    (tmp_path / "runs").symlink_to("scratch")
    (tmp_path / "config.json").write_text("{}")
    check_training_output(config(tmp_path))
    check_training_output(config(tmp_path / "new"))


def test_the_directory_of_the_model_is_refused_unless_a_run_wrote_it(tmp_path: Path) -> None:
    model = shutil.copytree(sample_path("sample:model"), tmp_path / "model")
    (tmp_path / "link").symlink_to(model)
    with pytest.raises(OutputError, match="is the directory of the model"):
        check_training_output(config(tmp_path / "link", model))
    (model / "training_logs.jsonl").write_text('{"step": 1, "epoch": 1.0, "loss": 2.0}\n')
    check_training_output(config(model, model))


def test_the_command_says_so_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").symlink_to(tmp_path / "precious")
    outcome = sftkit("train", "--training_data_path", "sample:conversations.jsonl", "--model_name_or_path",
                     "sample:model", "--output_dir", str(tmp_path / "out"))  # fmt: skip
    assert outcome.clear
    assert "is a link" in outcome.err
    assert not (tmp_path / "precious").exists()
