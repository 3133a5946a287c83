"""The page about other tools: its tables are those of the program, its configs are theirs, and its translations run."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sftkit.config.commands import TrainConfig, to_preprocess_config
from sftkit.config.foreign_keys.foreign_key import TOOLS
from sftkit.config.foreign_keys.tables import FOREIGN_KEYS
from sftkit.config.loading import load_config
from sftkit.core.progress import SilentProgress
from sftkit.errors import ConfigError
from sftkit.preprocessing.build import run
from sftkit.preprocessing.planning import plan
from sftkit.training.arguments.build_arguments import argument_problems, extra_keys
from support import write_jsonl

from .pages import ROOT, Block, blocks_of

PAGE = ROOT / "docs" / "migrating.md"
SAMPLE = ROOT / "src" / "sftkit" / "sample"
BLOCKS = list(blocks_of(PAGE))
THEIR_FILES = [block for block in BLOCKS if block.first_line in ("# axolotl.yaml", "# llama_factory.yaml")]
THEIR_COMMANDS = [block for block in BLOCKS if block.language == "bash"]
TRANSLATIONS = [
    block
    for block in BLOCKS
    if (block.language == "console" and "sftkit train" in block.text and "--config" not in block.text)
    or (block.file_name or "").startswith("train")
]


def keys_of(problems: list[str]) -> set[str]:
    """The keys that an error calls unknown."""
    return {
        line.split()[2].strip("'-:").removesuffix("'")
        for line in problems
        if line.startswith(("unknown key", "unknown o"))
    }


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, target in (("pairs", "pairs"), ("conversations", "chats")):
        rows = [json.loads(line) for line in (SAMPLE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        write_jsonl(tmp_path / f"{target}.jsonl", rows[:24])
    (tmp_path / "MODEL").symlink_to(SAMPLE / "model")
    monkeypatch.chdir(tmp_path)


def test_the_tables_are_those_of_the_program() -> None:
    done = subprocess.run([sys.executable, "scripts/make_migrating.py", "--check"], cwd=ROOT)
    assert done.returncode == 0, "run scripts/make_migrating.py"
    text = PAGE.read_text(encoding="utf-8")
    for tool in TOOLS:
        assert f"<!-- keys of {tool} -->" in text
    for keys in FOREIGN_KEYS.values():
        for name, key in keys.items():
            assert f"| `{name}` | {f'`{key.key}`' if key.key else 'none'} | {key.note} |" in text


def test_the_page_has_a_config_of_each_tool_and_its_translation() -> None:
    assert len(THEIR_FILES) == len(THEIR_COMMANDS) == 2
    assert len(TRANSLATIONS) == 4


@pytest.mark.parametrize("block", THEIR_FILES, ids=lambda block: block.first_line)
def test_every_key_of_their_files_is_accepted_or_explained(block: Block, tmp_path: Path) -> None:
    (tmp_path / "their.yaml").write_text(block.text)
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, ["--config", "their.yaml"], extra_keys=extra_keys(), check_extra=argument_problems)
    theirs = yaml.safe_load(block.text)
    unknown = {key for key in keys_of(caught.value.problems) if "[" not in key}
    assert unknown <= set(FOREIGN_KEYS[""])
    assert unknown == {key for key in theirs if key in FOREIGN_KEYS[""]}
    for entry in theirs.get("datasets", []):
        named = {key.removeprefix("datasets[0].") for key in keys_of(caught.value.problems) if "[" in key}
        assert named == set(entry)
        assert named <= set(FOREIGN_KEYS["datasets"])


@pytest.mark.parametrize("block", THEIR_COMMANDS, ids=lambda block: block.first_line.split()[0])
def test_every_option_of_their_commands_is_accepted_or_explained(block: Block) -> None:
    [words] = block.commands()
    options = (
        words[words.index("sft") + 1 :] if "sft" in words else words[words.index("open_instruct/finetune.py") + 1 :]
    )
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, options, extra_keys=extra_keys(), check_extra=argument_problems)
    given = {word[2:] for word in options if word.startswith("--")}
    assert len(caught.value.problems) == len(keys_of(caught.value.problems))
    assert keys_of(caught.value.problems) == given & set(FOREIGN_KEYS[""])


@pytest.mark.parametrize("block", TRANSLATIONS, ids=lambda block: str(block.line))
def test_the_translations_train_on_the_sample(block: Block, tmp_path: Path) -> None:
    if block.file_name is not None:
        (tmp_path / block.file_name).write_text(block.text)
        options = ["--config", block.file_name]
    else:
        options = shlex.split(block.text.replace("\\\n", " "))[2:]
    config = load_config(TrainConfig, options, extra_keys=extra_keys(), check_extra=argument_problems)
    manifest = run(plan(to_preprocess_config(config, str(tmp_path / "shards"))), SilentProgress())
    assert manifest.splits["train"].trained_tokens > 100
