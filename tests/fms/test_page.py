"""What docs/fms-hf-tuning.md says is what the parser, the handlers and `compat: fms` do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sftkit.config.aliases import HANDLER_ALIASES, KEY_ALIASES, PATH_ALIASES, REFUSED_HANDLERS, REFUSED_KEYS
from sftkit.config.commands import PreprocessConfig, TrainConfig
from sftkit.config.fms.defaults import FMS_DEFAULTS
from sftkit.config.reading.command_line import locate
from sftkit.config.schema.data_config import DatasetConfig, ProcessorConfig
from sftkit.handlers.registry import HANDLERS
from sftkit.training.adapters.adapter_choice import NEW_ADAPTERS
from sftkit.training.arguments.build_arguments import extra_keys
from sftkit.training.arguments.fms_arguments import FMS_ARGUMENTS

PAGE = (Path(__file__).parents[2] / "docs" / "fms-hf-tuning.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = PAGE.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def flags(heading: str) -> list[str]:
    return [name for cells in rows(heading) for name in re.findall(r"--(\w+)", cells[0])]


@pytest.mark.parametrize(
    ("heading", "schema", "extra"),
    [("Preprocessing", PreprocessConfig, {}), ("Training", TrainConfig, extra_keys())],
    ids=["preprocess", "train"],
)
def test_every_flag_is_an_option(heading: str, schema: type[Any], extra: dict[str, Any]) -> None:
    names = flags(heading)
    assert len(names) >= 20
    assert [name for name in names if locate(name, schema, extra) is None] == []


def test_every_option_of_the_trainer_of_fms_hf_tuning_is_in_the_table() -> None:
    assert set(FMS_ARGUMENTS) <= set(flags("Training"))


def test_flags_that_are_refused_or_have_no_effect_are_described_so() -> None:
    for cells in rows("Training"):
        for name in re.findall(r"--(\w+)", cells[0]):
            if name in FMS_ARGUMENTS and cells[1] in ("refused", "no effect, with a warning"):
                help_text = FMS_ARGUMENTS[name].argument.help
                assert ("is refused" if cells[1] == "refused" else "has no effect") in help_text, name


def test_every_handler_exists_or_is_refused() -> None:
    for cells in rows("Handlers"):
        for name in re.findall(r"`(\w+)`", cells[0]):
            is_refused = name in REFUSED_HANDLERS
            assert is_refused is (cells[1] == "refused")
            assert is_refused or HANDLER_ALIASES.get(name, name) in HANDLERS
        for alias in re.findall(r"[Aa]lso called `(\w+)`", cells[2]):
            assert f"`{HANDLER_ALIASES[alias]}`" in cells[0]


def test_every_key_of_a_data_config_exists_or_is_refused() -> None:
    sections: dict[str, type[Any]] = {"dataprocessor": ProcessorConfig, "datasets": DatasetConfig}
    for cells in rows("Data config"):
        first, *more = re.findall(r"`([\w.\[\]]+)`", cells[0])
        section, _, name = first.replace("[]", "").rpartition(".")
        for key in [name, *more] if section in sections else []:
            key = PATH_ALIASES.get(key, key).removeprefix(f"{section}.") if section == "dataprocessor" else key
            known = key in sections[section].__dataclass_fields__ or key in KEY_ALIASES[section]
            assert known is (cells[1] != "refused"), key
            assert known or key in REFUSED_KEYS[section]


def test_the_defaults_are_those_of_the_table() -> None:
    table = {key: cells for cells in rows("Defaults") for key in re.findall(r"`(\w+)`", cells[0])}
    for key, value in FMS_DEFAULTS.items():
        shown = ", ".join(value) if isinstance(value, tuple) else str(value)
        assert table[key][1].startswith(shown), key
    assert NEW_ADAPTERS["lora_r"] == int(table["lora_r"][2])
