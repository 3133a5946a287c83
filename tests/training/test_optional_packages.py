"""Packages that are not installed are named, with what to type, before anything is loaded."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import tomllib
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

import sftkit
from reliability.material import sftkit as command
from sftkit.config.commands import TrainConfig
from sftkit.errors import ConfigError, RequirementError
from sftkit.training.arguments.build_arguments import check_packages
from sftkit.training.arguments.checks.optional_packages import OPTIMIZERS, OptionalPackage, missing_packages
from sftkit.training.optimization.refusals import refusals_as_config_errors
from support import without_progress

PACKAGES = {package.module for package in OPTIMIZERS.values()} | {"deepspeed", "wandb", "peft"}
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Module -> version of the optional packages that appear to be installed: none, unless a test adds some."""
    versions: dict[str, str] = {}
    find, version_of = importlib.util.find_spec, importlib.metadata.version

    def find_spec(name: str, *rest: str) -> ModuleSpec | None:
        return (find("json") if name in versions else None) if name in PACKAGES else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name) or version_of(name))
    return versions


def config(**arguments: Any) -> TrainConfig:
    return TrainConfig(output_dir="out", training_arguments=arguments)


@pytest.mark.usefixtures("present")
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"optim": "adamw_8bit"}, "optim=adamw_8bit needs bitsandbytes, which is not installed; "
                                  "pip install 'sftkit[bitsandbytes]'"),
        ({"optim": "galore_adamw"}, "optim=galore_adamw needs galore-torch, which is not installed; "
                                    "pip install 'sftkit[galore]'"),
        ({"optim": "lomo"}, "optim=lomo needs lomo-optim, which is not installed; pip install 'sftkit[lomo]'"),
        ({"optim": "schedule_free_adamw"}, "optim=schedule_free_adamw needs schedulefree, which is not installed; "
                                           "pip install 'sftkit[schedulefree]'"),
        ({"optim": "adamw_torch_npu_fused"}, "optim=adamw_torch_npu_fused needs torch-npu, which is not installed; "
                                             "pip install torch-npu"),
        ({"deepspeed": "zero3.json"}, "deepspeed needs deepspeed, which is not installed; "
                                      "pip install 'sftkit[deepspeed]'"),
        ({"report_to": ["wandb"]}, "report_to: wandb is not installed; pip install 'sftkit[wandb]'"),
    ],
)  # fmt: skip
def test_a_missing_package_is_one_sentence_with_the_command(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequirementError) as raised:
        check_packages(config(**given))
    assert raised.value.problems == (sentence,)
    assert raised.value.exit_code == 1


def test_all_missing_packages_are_reported_together(present: dict[str, str]) -> None:
    with pytest.raises(RequirementError) as raised:
        check_packages(TrainConfig(output_dir="o", use_peft=True, training_arguments={"optim": "lomo"}))
    assert [problem.split(" ")[0] for problem in raised.value.problems] == ["optim=lomo", "use_peft:"]
    present |= {"lomo_optim": "1", "peft": "1"}
    check_packages(TrainConfig(output_dir="o", use_peft=True, training_arguments={"optim": "lomo"}))


def test_a_package_that_is_too_old_says_which_version(present: dict[str, str]) -> None:
    present["bitsandbytes"] = "0.46.0"
    assert list(missing_packages({"optim": "lion_8bit"})) == [
        "optim=lion_8bit needs bitsandbytes 0.46.1 or newer, not 0.46.0; pip install 'sftkit[bitsandbytes]'"
    ]
    present["bitsandbytes"] = "0.50.1"
    assert list(missing_packages({"optim": "lion_8bit"})) == []


def test_a_directory_of_that_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lomo_thing").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    problem = OptionalPackage("lomo-thing", "lomo_thing").problem("optim=lomo")
    assert problem == "optim=lomo needs lomo-thing, which is not installed; pip install lomo-thing"


@pytest.mark.parametrize("name", [each.value for each in OptimizerNames])
def test_the_optimizers_that_need_a_package_are_those_of_transformers(name: str) -> None:
    package = OPTIMIZERS.get(name)
    if package is not None and importlib.util.find_spec(package.module) is not None:
        return  # nothing to see where it is installed
    arguments = TrainingArguments(output_dir="out", optim=name, use_cpu=True)
    if package is None:
        Trainer.get_optimizer_cls_and_kwargs(arguments, torch.nn.Linear(1, 1))
        return
    with pytest.raises((ImportError, ValueError), match=r"install|failed to import"):
        Trainer.get_optimizer_cls_and_kwargs(arguments, torch.nn.Linear(1, 1))


def test_every_extra_exists_and_installs_the_package() -> None:
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    for package in OPTIMIZERS.values():
        assert not package.extra or [each for each in extras[package.extra] if each.startswith(package.name)]
    assert extras["deepspeed"][0].startswith("deepspeed>=")


@pytest.mark.usefixtures("present")
def test_the_command_ends_with_1_before_the_data_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = command(
        "train", "--training_data_path", "nowhere.jsonl", "--model_name_or_path", "sample:model", "--output_dir", "out",
        "--optim", "adamw_8bit",
    )  # fmt: skip
    assert (done.code, done.out) == (1, "")
    assert without_progress(done.err) == (
        "error: optim=adamw_8bit needs bitsandbytes, which is not installed; pip install 'sftkit[bitsandbytes]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_tracker_is_an_error_of_the_command_line() -> None:
    with pytest.raises(ConfigError, match="report_to: unknown tracker 'wandbb'; did you mean wandb") as raised:
        sftkit.train(output_dir="out", report_to="wandbb")
    assert raised.value.exit_code == 2


def test_what_a_library_refuses_names_the_keys() -> None:
    with pytest.raises(ConfigError) as raised, refusals_as_config_errors("optim", OptimizerNames.SGD, "optim_args"):
        float("fast")
    assert str(raised.value) == (
        "optim=sgd, or its optim_args, cannot be used: could not convert string to float: 'fast'"
    )
    with pytest.raises(RequirementError), refusals_as_config_errors("optim", "sgd", "optim_args"):
        raise ImportError("install torchao 0.4")
