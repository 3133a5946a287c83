"""The program as a user types it: exit codes, messages, what is left on disk, what is imported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reliability.material import sftkit
from support import wait_until

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "160"}
TOKENIZER = "sample:model"


def write_pairs(path: Path, count: int = 6) -> Path:
    rows = [{"input": f"What is {i} + 1?", "output": str(i + 1)} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs.jsonl")


IMPORTED = """
import sys
from sftkit.cli.app import main
sys.argv = ["sftkit", *{arguments!r}]
try:
    main()
except SystemExit as leaving:
    code = leaving.code
print("IMPORTED", code, [name for name in {heavy!r} if name in sys.modules])
"""


def imported_by(
    *arguments: str | Path, heavy: Sequence[str] = ("torch", "transformers", "datasets")
) -> tuple[str, str]:
    code = IMPORTED.format(arguments=[str(argument) for argument in arguments], heavy=heavy)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    _, exit_code, modules = done.stdout.strip().splitlines()[-1].split(" ", 2)
    return exit_code, modules


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["--help"], "0"),
        (["preprocess", "--help"], "0"),
        (["train", "--help"], "0"),
        (["inspect-shards", "--help"], "0"),
        (["preprocess", "--no_such_option", "1"], "2"),
        (["train", "--learning_rat", "1", "--output_dir", "x"], "2"),
        (["preprocess", "--output_dir", "x", "--training_data_path", "x", "--streaming", "true"], "2"),
    ],
)
def test_help_and_config_errors_import_nothing_heavy(arguments: list[str], exit_code: str) -> None:
    assert imported_by(*arguments) == (exit_code, "[]")


def test_the_options_of_a_command_are_parsed_without_pydantic() -> None:
    assert imported_by("preprocess", "--no_such_option", "1", heavy=["pydantic"]) == ("2", "[]")


def test_the_version_is_printed() -> None:
    from sftkit import __version__

    command = [sys.executable, "-m", "sftkit", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stdout) == (0, f"sftkit {__version__}\n")


def test_preprocess_never_imports_torch(pairs: Path, tmp_path: Path) -> None:
    code, modules = imported_by(
        "preprocess", "--training_data_path", pairs, "--model_name_or_path", TOKENIZER, "--output_dir", tmp_path / "out"
    )
    assert (code, "torch" in modules) == ("0", False)
    assert (tmp_path / "out" / "manifest.json").exists()


def test_inspect_shards_never_imports_torch(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sftkit("preprocess", "--training_data_path", pairs, "--model_name_or_path", TOKENIZER, "--output_dir", out)
    code, modules = imported_by("inspect-shards", out)
    assert (code, "torch" in modules) == ("0", False)


def test_every_config_key_is_an_option_of_help(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from sftkit.config.aliases import PATH_ALIASES
    from sftkit.config.commands import PreprocessConfig
    from sftkit.config.schema.data_config import ProcessorConfig

    monkeypatch.setenv("COLUMNS", "160")
    shown = sftkit("preprocess", "--help").out
    names = [field.name for field in dataclasses.fields(PreprocessConfig) if field.name != "dataprocessor"]
    short = {path: alias for alias, path in PATH_ALIASES.items()}
    keys = [f"dataprocessor.{field.name}" for field in dataclasses.fields(ProcessorConfig)]
    names += [short.get(key, key) for key in keys]
    assert [name for name in names if f"--{name} " not in shown] == []


def test_train_help_shows_the_training_arguments_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    shown = sftkit("train", "--help").out
    assert [
        name for name in ("learning_rate", "adam_beta1", "save_strategy", "aim_repo") if f"--{name} " not in shown
    ] == []


def test_preprocess_prints_its_account_and_writes_the_layout(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = sftkit(
        "preprocess", "--training_data_path", pairs, "--model_name_or_path", TOKENIZER, "--output_dir", out,
        "--num_dataset_shards", "2",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    assert "6 rows read, 6 written" in done.out
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "manifest.json", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet",
    ]  # fmt: skip


def test_the_same_command_again_finds_its_work_done(pairs: Path, tmp_path: Path) -> None:
    command = ("preprocess", "--training_data_path", pairs, "--model_name_or_path", TOKENIZER, "--output_dir")
    sftkit(*command, tmp_path / "out")
    again = sftkit(*command, tmp_path / "out")
    assert (again.code, again.out) == (0, f"{tmp_path / 'out'}: complete and unchanged, nothing to do\n")


def test_an_option_with_its_default_value_wins_over_the_data_config(pairs: Path, tmp_path: Path) -> None:
    data_config = tmp_path / "data.yaml"
    data_config.write_text("dataprocessor: {seed: 5}\nmax_seq_length: 7\n")
    common = ("--data_config_path", data_config, "--training_data_path", pairs, "--model_name_or_path", TOKENIZER)
    options = ("--dataprocessor.seed", "42", "--max_seq_length", "null")
    shown = sftkit("preprocess", *common, *options, "--output_dir", tmp_path / "out", "--dry_run", "true").out
    assert "seed: 42" in shown
    assert "max_seq_length: null" in shown
    report = json.loads(sftkit("inspect-shards", *common, *options, "--rows", "6", "--format", "json").out)
    assert report["summary"]["splits"][0]["lengths"]["max"] > 7


@pytest.mark.slow
def test_json_is_valid_in_an_output_that_is_not_utf8(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["n\u00e4h \u4e2d \U0001f600 \x1b"]}), tmp_path / "a.parquet")
    command = [sys.executable, "-m", "sftkit", "inspect-shards", str(tmp_path), "--rows", "1", "--format", "json"]
    shown = {
        encoding: json.loads(
            subprocess.run(command, capture_output=True, env={**ENVIRONMENT, "PYTHONIOENCODING": encoding}).stdout
        )
        for encoding in ("utf-8", "latin-1", "ascii")
    }
    assert shown["latin-1"] == shown["ascii"] == shown["utf-8"]
    assert shown["utf-8"]["rows"][0]["text"] == "n\u00e4h \u4e2d \U0001f600 \x1b"


def test_dry_run_prints_config_and_plan_and_touches_nothing(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = sftkit(
        "preprocess", "--training_data_path", pairs, "--model_name_or_path", TOKENIZER, "--output_dir", out, "--dry_run"
    )
    assert done.code == 0
    assert "tokenize_and_apply_input_masking" in done.out
    assert "train-00000-of-00001.parquet" in done.out
    assert not out.exists()


def test_bad_rows_are_named_with_path_and_row_and_kept_aside(pairs: Path, tmp_path: Path) -> None:
    with pairs.open("a") as stream:
        stream.write('{"input": "x", "output": null}\n{broken\n{"input": "y"}\n')
    out = tmp_path / "out"
    command = ("preprocess", "--training_data_path", pairs, "--model_name_or_path", TOKENIZER, "--output_dir", out)
    done = sftkit(*command)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert f"{pairs}:7: column 'output' is null where text should be" in done.err
    assert f"{pairs}:8: broken JSON" in done.err
    assert f"{pairs}:9: column 'output' not found; columns here: input" in done.err
    assert sorted(path.name for path in out.iterdir()) == [".staging", "quarantine.jsonl"]
    assert sftkit(*command, "--max_bad_rows", "2").code == 1
    assert sftkit(*command, "--max_bad_rows", "3").code == 0
    entries = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert [(entry["path"], entry["row"]) for entry in entries] == [(str(pairs), 7), (str(pairs), 8), (str(pairs), 9)]
    assert pq.read_table(out / "train-00000-of-00001.parquet").num_rows == 6


def test_a_mistake_that_fails_every_row_is_one_sentence(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 40)
    done = sftkit(
        "preprocess", "--training_data_path", pairs, "--dataset_conversation_field", "input",
        "--model_name_or_path", TOKENIZER, "--output_dir", tmp_path / "out",
    )  # fmt: skip
    assert done.code == 1
    [line] = done.err.splitlines()
    assert line == (
        "error: no row can be used; all 40 have the same problem: "
        f"column 'input' must hold a list of messages, not str ({pairs}:1 is the first)"
    )


@pytest.mark.sampled(2)
@pytest.mark.skipif(os.geteuid() == 0 and not Path("/usr/bin/setpriv").exists(), reason="root may read everything")
@pytest.mark.parametrize("below", ["", "/pairs.jsonl"])
def test_what_may_not_be_read_is_one_sentence(tmp_path: Path, below: str) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    write_pairs(closed / "pairs.jsonl")
    closed.chmod(0)
    powers = "-dac_override,-dac_read_search,-fowner"
    dropped = ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}"] if os.geteuid() == 0 else []
    command = [*dropped, sys.executable, "-m", "sftkit", "preprocess", "--training_data_path", f"{closed}{below}"]
    command += ["--model_name_or_path", TOKENIZER, "--output_dir", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    closed.chmod(0o700)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "cannot be read: Permission denied" in done.stderr


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["--training_data_path", "nowhere.jsonl"], "nowhere.jsonl: no such file or directory"),
        (["--training_data_path", "empty.jsonl"], "empty.jsonl: the file is empty"),
        (["--training_data_path", "blank.jsonl"], "blank.jsonl: holds no rows"),
        (["--training_data_path", "pairs.jsonl", "--output_dir", "pairs.jsonl"], "is a file, not a directory"),
        (["--training_data_path", "pairs.jsonl", "--output_dir", "pairs.jsonl/below"], "cannot be written"),
        (
            ["--training_data_path", "pairs.jsonl", "--output_dir", "other"],
            "holds theirs.parquet, which sftkit did not write",
        ),
        (["--training_data_path", "pairs.jsonl", "--model_name_or_path", "not_there/at_all"], "cannot be loaded"),
        (
            ["--training_data_path", "pairs.jsonl", "--input_field_name", "input", "--output_field_name", "answer"],
            "needs column 'answer', which no row has; columns there: input, output",
        ),
        (["--training_data_path", "ids.jsonl"], "train_on=all"),
    ],
)
def test_each_mistake_is_one_sentence_and_leaves_nothing_behind(
    pairs: Path, tmp_path: Path, changes: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blank.jsonl").write_text("\n\n")
    (tmp_path / "ids.jsonl").write_text('{"input_ids": [5, 6, 7]}\n')
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "theirs.parquet").write_bytes(b"x")
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    done = sftkit("preprocess", "--model_name_or_path", TOKENIZER, "--output_dir", "out", *changes)
    assert done.code == 1
    assert sentence in done.err
    assert "Traceback" not in done.err
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def test_more_shards_than_rows_leave_what_is_tokenized_for_the_next_run(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("preprocess", "--training_data_path", pairs, "--model_name_or_path", TOKENIZER, "--output_dir", "out")
    refused = sftkit(*command, "--num_dataset_shards", "7")
    assert refused.code == 1
    assert "error: 6 rows cannot fill 7 shards; use at most 6 (num_dataset_shards," in refused.err
    assert "WARNING: 1 tokenized unit stays in out/.staging: the same command resumes from it" in refused.err
    done = sftkit(*command, "--num_dataset_shards", "6")
    assert done.code == 0
    assert "1 of 1 work units found staged, 0 tokenized" in done.out
    assert "worker time" not in done.out
    assert not (tmp_path / "out" / ".staging").exists()


def test_another_data_set_is_not_overwritten_unasked(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("preprocess", "--training_data_path", pairs, "--model_name_or_path", TOKENIZER, "--output_dir", out)
    sftkit(*command)
    refused = sftkit(*command, "--num_dataset_shards", "3")
    assert refused.code == 1
    assert "holds another data set" in refused.err
    assert sftkit(*command, "--num_dataset_shards", "3", "--overwrite", "true").code == 0
    assert sorted(path.name for path in out.glob("*.parquet")) == [f"train-0000{i}-of-00003.parquet" for i in range(3)]


def test_a_handler_with_a_wrong_name_or_argument_is_reported_before_data_is_read(tmp_path: Path) -> None:
    config = tmp_path / "data.yaml"
    config.write_text(
        "datasets:\n"
        "  - name: one\n    data_paths: [nowhere.jsonl]\n    data_handlers:\n"
        "      - name: tokenise\n"
        "      - name: tokenize\n        arguments: {fn_kwargs: {dataset_text_feld: x}}\n"
    )
    done = sftkit("preprocess", "--data_config_path", config, "--model_name_or_path", TOKENIZER, "--output_dir", "o")
    assert done.code == 2
    assert "unknown handler 'tokenise' (did you mean 'tokenize'?); known handlers: add_tokenizer_eos_token" in done.err
    assert "unknown key 'datasets[0].data_handlers[1].tokenize.dataset_text_feld'" in done.err
    assert "nowhere.jsonl" not in done.err


def test_a_data_config_is_previewed_without_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    before = sorted(tmp_path.iterdir())
    done = sftkit("inspect-shards", "--training_data_path", pairs, "--model_name_or_path", TOKENIZER, "--rows", "2")
    assert done.code == 0, done.err
    assert "What is 1 + 1?" in done.out
    assert sorted(tmp_path.iterdir()) == before


HANDLER = """
import time
from pathlib import Path

def hang(row, begun):
    Path(begun).touch()
    time.sleep(1e6)
"""


def test_an_interrupted_run_ends_with_130_and_leaves_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "hanging_handler.py").write_text(HANDLER)
    write_pairs(tmp_path / "in.jsonl", 50)
    handler = {"name": "hanging_handler:hang", "arguments": {"fn_kwargs": {"begun": str(tmp_path / "begun")}}}
    data = {"name": "pairs", "data_paths": ["in.jsonl"], "data_handlers": [handler]}
    (tmp_path / "data.json").write_text(json.dumps({"datasets": [data]}))
    out = tmp_path / "out"
    arguments = ["--data_config_path=data.json", f"--output_dir={out}", "--num_workers=2", "--unit_size=500"]
    running = subprocess.Popen(
        [sys.executable, "-m", "sftkit", "preprocess", *arguments], cwd=tmp_path, env=ENVIRONMENT,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until((tmp_path / "begun").exists, running)
    running.send_signal(signal.SIGINT)
    _, messages = running.communicate()
    assert running.returncode == 130, messages
    assert "Traceback" not in messages, messages
    left = [path for path in out.rglob("*") if path.is_file()] if out.exists() else []
    assert all(path.parent.name == ".staging" and path.name.startswith("unit-") for path in left), left
