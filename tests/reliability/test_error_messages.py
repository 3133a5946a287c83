"""Mistakes of users, each given as a command line: the exit code, the place and the remedy in the message, and that
nothing else is printed, changed or left behind.

`tests/conftest.py` checks the messages of all other tests by `error_rules`.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from reliability.error_rules import faults_of
from reliability.material import copy_tokenizer, row_of, sftkit
from support import write_jsonl

DATA = ("--training_data_path", "pairs.jsonl")
TOKENIZER = ("--tokenizer_name_or_path", "tokenizer")
OUT = ("--output_dir", "out")
PAIR = {
    "name": "tokenize_and_apply_input_masking",
    "arguments": {"fn_kwargs": {"input_field_name": "input", "output_field_name": "output"}},
}
OF_FAILED_RUNS = ("out", "out/.staging", "out/quarantine.jsonl")
"""What a run leaves that fails after its rows are staged, for the next run to resume from."""


@dataclass(frozen=True)
class Mistake:
    """Arguments of a command line, and what its message must contain: first the place, then what to do about it."""

    name: str
    code: int
    arguments: tuple[str, ...]
    says: tuple[str, ...]
    leaves: tuple[str, ...] = ()


def of_preprocess(name: str, code: int, arguments: str, *says: str, leaves: tuple[str, ...] = ()) -> Mistake:
    """A mistake in an otherwise complete command line."""
    given = arguments.split()
    enough = [each for each in (DATA, TOKENIZER, OUT) if each[0] not in given]
    return Mistake(name, code, ("preprocess", *(word for each in enough for word in each), *given), says, leaves)


def of(command: str, name: str, code: int, arguments: str, *says: str, leaves: tuple[str, ...] = ()) -> Mistake:
    return Mistake(name, code, (command, *arguments.split()), says, leaves)


def of_config(name: str, code: int, file: str, *says: str, trusts: str | None = None) -> Mistake:
    """A mistake in a data config, made by `CONFIGS`."""
    trust = () if trusts is None else ("--trust_packages", trusts)
    arguments = ("preprocess", "--data_config_path", file, *TOKENIZER, *OUT, *trust)
    return Mistake(name, code, arguments, says)


def with_data(**keys: object) -> dict[str, object]:
    return {"datasets": [{"name": "data", "data_paths": ["pairs.jsonl"], "data_handlers": [PAIR], **keys}]}


def with_handler(name: str, **arguments: object) -> dict[str, object]:
    return with_data(data_handlers=[{"name": name, "arguments": {"fn_kwargs": arguments}}])


def with_processor(**keys: object) -> dict[str, object]:
    return {"dataprocessor": keys, **with_data()}


TWO = [{"name": "data", "data_paths": ["pairs.jsonl"], "data_handlers": [PAIR]}] * 2

CONFIGS = {
    "slip.yaml": with_data(data_pathes=["x"]),
    "handler.yaml": with_handler("tokenise", dataset_text_field="input"),
    "argument.yaml": with_handler("tokenize", dataset_text_feild="input"),
    "limit.yaml": with_handler("skip_large_text", column_name="input", max_length="many"),
    "weights.yaml": {"datasets": [{**TWO[0], "name": name, "sampling": 0.3} for name in "ab"]},
    "some_weights.yaml": {"datasets": [{**TWO[0], "name": "a", "sampling": 1.0}, {**TWO[0], "name": "b"}]},
    "split.yaml": with_data(split={"train": 0.9, "validation": 0.2}),
    "twice.yaml": {"datasets": TWO},
    "templates.yaml": with_processor(chat_template="x", chat_template_path="y"),
    "template_path.yaml": with_processor(chat_template_path="nowhere.jinja"),
    "template_name.yaml": with_processor(chat_template="vicuna"),
    "base64.yaml": with_processor(chat_template_base64="%%%"),
    "seed.yaml": with_processor(seed=-1),
    "module.yaml": with_handler("no_such_module:f"),
    "function.yaml": with_handler("json:nothing"),
    "constant.yaml": with_handler("math:pi"),
    "library.yaml": with_handler("venv.__main__:main"),
    "no_function.yaml": with_handler("package.module:"),
    "broken_module.yaml": with_handler("module_that_breaks:f"),
    "columns.yaml": with_data(retain_columns=["input", "output", "topic"]),
    "renamed.yaml": with_data(rename_columns={"nothing": "something"}),
    "jinja.yaml": with_processor(chat_template="{% for %}")
    | {
        "datasets": [
            {
                "name": "c",
                "data_paths": ["chats.jsonl"],
                "data_handlers": [{"name": "tokenize_and_apply_chat_template_with_masking"}],
            }
        ]
    },
    "own_jinja.yaml": with_handler("apply_custom_jinja_template", dataset_text_field="t", template="{{ input"),
    "reserved.yaml": {"chat_template_kwargs": {"messages": 1}, **with_data()},
}

MISTAKES = [
    # --- the command line
    of_preprocess("option", 2, "--max_seq_len 5", "unknown option --max_seq_len", "did you mean 'max_seq_length'?"),
    of_preprocess(
        "choice",
        2,
        "--overflow cut",
        "overflow must be one of truncate, truncate_left, split_turns, drop, error, not 'cut'",
    ),
    of_preprocess("number", 2, "--num_workers many", "num_workers must be a whole number, not 'many'"),
    of_preprocess("truth", 2, "overwrite=perhaps", "overwrite must be true or false, not 'perhaps'"),
    of_preprocess("word", 2, "--overwrite true stray", "unexpected argument 'stray'", "--key value or key=value"),
    of_preprocess("value", 2, "--max_seq_length", "--max_seq_length needs a value"),
    of_preprocess(
        "path alone", 2, "--overwrite true pairs.jsonl", "'pairs.jsonl'", "such as --training_data_path pairs"
    ),
    of_preprocess("index", 2, "datasets[7].sampling=1", "datasets[7].sampling cannot be set", "no such entry"),
    of_preprocess("nested", 2, "--dataprocessor.sede 4", "--dataprocessor.sede", "did you mean 'dataprocessor.seed'?"),
    of(
        "preprocess", "nowhere to write", 2, "--training_data_path pairs.jsonl", "missing key 'output_dir'", "Directory"
    ),
    of("preprocess", "several at once", 2, "--overflow cut --unit_size x --output_dir out", "overflow", "unit_size"),
    # --- settings
    of("preprocess", "no data", 2, "--output_dir out", "no data: give data_config_path", "training_data_path"),
    of_preprocess("zero", 2, "--max_seq_length 0", "max_seq_length must be 1 or more, not 0"),
    of_preprocess("negative", 2, "--max_bad_rows -1", "max_bad_rows must be 0 or more, not -1"),
    of_preprocess("fraction", 2, "--engine_verify 2", "engine_verify must be between 0 and 1, not 2"),
    of_preprocess("no length", 2, "--packing bfd", "packing=bfd needs a length", "set pack_length or max_seq_length"),
    of_preprocess("no packing", 2, "--pack_length 9", "pack_length is given without packing", "set packing=bfd"),
    of_preprocess("streaming", 2, "--streaming true", "streaming: true cannot be used", "leave streaming out"),
    of_preprocess(
        "no response", 2, "--instruction_template x", "instruction_template is given without response_template"
    ),
    of_preprocess("empty", 2, "response_template=", "response_template is empty"),
    of_preprocess("half a pair", 2, "--input_field_name input", "input_field_name is given alone", "set both"),
    of_preprocess("two ways", 2, "--data_config_path columns.yaml", "training_data_path", "not both"),
    # --- config files
    of_config("no config", 2, "nowhere.yaml", "nowhere.yaml: no such config file"),
    of_config("a folder as config", 2, "nothing_in_it", "nothing_in_it: cannot be read as a config file"),
    of_config("broken YAML", 2, "broken.yaml", "broken.yaml:2:5: not valid YAML"),
    of_config("broken JSON", 2, "broken.json", "broken.json:1:7: not valid JSON"),
    of_config("a key twice", 2, "double.yaml", "double.yaml:2:1: not valid YAML: the key 'datasets' appears twice"),
    of_config("a list", 2, "list.yaml", "list.yaml: a config file must hold keys and values"),
    of_config(
        "an alias in itself", 2, "endless.yaml", "endless.yaml: not valid YAML", "an alias (*) that refers to itself"
    ),
    of_config("not UTF-8", 2, "latin.yaml", "latin.yaml: cannot be read as a config file"),
    of_config("a reference", 2, "reference.yaml", "model_name_or_path refers to a key or variable"),
    of_config("a slip", 2, "slip.yaml", "datasets[0].data_pathes", "did you mean 'data_paths'?"),
    of_config(
        "handler", 2, "handler.yaml", "datasets[0].data_handlers[0]: unknown handler 'tokenise'", "known handlers:"
    ),
    of_config(
        "argument",
        2,
        "argument.yaml",
        "tokenize.dataset_text_feild",
        "did you mean 'dataset_text_field'?",
        "missing key",
    ),
    of_config("limit", 2, "limit.yaml", "skip_large_text.max_length must be a whole number, not 'many'"),
    of_config("weights", 2, "weights.yaml", "datasets: the sampling weights must sum to 1, not 0.6"),
    of_config(
        "some weights", 2, "some_weights.yaml", "sampling is missing for b", "set it for all data sets or for none"
    ),
    of_config("split", 2, "split.yaml", "datasets[0].split: train and validation sum to 1.1, which is more than 1"),
    of_config("a name twice", 2, "twice.yaml", "datasets: the name 'data' is used 2 times"),
    of_config("reserved", 2, "reserved.yaml", "chat_template_kwargs must not contain 'messages'"),
    of_config("two templates", 2, "templates.yaml", "chat_template and chat_template_path", "give one chat template"),
    of_config(
        "template's path", 2, "template_path.yaml", "dataprocessor.chat_template_path: nowhere.jinja: No such file"
    ),
    of_config(
        "template's name",
        2,
        "template_name.yaml",
        "dataprocessor.chat_template: no template is called 'vicuna'",
        "the names are chatml, llama3, mistral, gemma, granite",
    ),
    of_config("base64", 2, "base64.yaml", "dataprocessor.chat_template_base64 must be base64-encoded UTF-8 text"),
    of_config("seed", 2, "seed.yaml", "dataprocessor.seed must be 0 or more, not -1"),
    # --- functions of the user's own, and templates
    of_config("module", 2, "module.yaml", "handler 'no_such_module:f': cannot import no_such_module"),
    of_config("function", 2, "function.yaml", "handler 'json:nothing': module json has no 'nothing'", trusts="json"),
    of_config("constant", 2, "constant.yaml", "handler 'math:pi': pi is not a function", trusts="math"),
    of_config(
        "library", 2, "library.yaml", "venv belongs to Python or to an installed package", "set trust_packages=venv"
    ),
    of_config("no function", 2, "no_function.yaml", "handler 'package.module:'", "write it package.module:function"),
    of_config(
        "a module that breaks", 2, "broken_module.yaml", "handler 'module_that_breaks:f'", "it raised ZeroDivisionError"
    ),
    of_config("Jinja", 1, "jinja.yaml", "the chat template is not valid Jinja: line 1"),
    of_config("own Jinja", 2, "own_jinja.yaml", "template is not valid Jinja: line 1"),
    # --- sources
    of_preprocess("no source", 1, "--training_data_path nowhere.jsonl", "nowhere.jsonl: no such file or directory"),
    of_preprocess("empty source", 1, "--training_data_path empty.jsonl", "empty.jsonl: the file is empty"),
    of_preprocess("blank source", 1, "--training_data_path blank.jsonl", "blank.jsonl: holds no rows"),
    of_preprocess(
        "ending", 1, "--training_data_path pairs.txt", "pairs.txt: unknown kind of file", "known extensions are .arrow"
    ),
    of_preprocess("pattern", 1, "--training_data_path *.nothing", "*.nothing: no file matches this pattern"),
    of_preprocess(
        "folder", 1, "--training_data_path nothing_in_it", "nothing_in_it: no data files", "known extensions are"
    ),
    of_preprocess("gzip", 1, "--training_data_path no.jsonl.gz", "no.jsonl.gz: broken gzip data"),
    of_preprocess("Parquet", 1, "--training_data_path no.parquet", "no.parquet: cannot be read as Parquet"),
    of_preprocess(
        "no column",
        1,
        "--input_field_name input --output_field_name answer",
        "pairs.jsonl",
        "needs column 'answer'",
        "columns there: input, output",
    ),
    of_preprocess(
        "no way",
        2,
        "--training_data_path odd.jsonl",
        "odd.jsonl: cannot tell how to tokenize its rows",
        "columns: q, w",
        "set dataset_text_field",
    ),
    of_preprocess(
        "no labels",
        1,
        "--training_data_path ids.jsonl",
        "ids.jsonl",
        "rows have input_ids but no labels",
        "train_on=all",
    ),
    of_preprocess(
        "packs",
        1,
        "--training_data_path packs.parquet",
        "packs.parquet",
        "its rows are packs",
        "use the data that they were made from",
    ),
    of_config(
        "a column renamed", 1, "renamed.yaml", "pairs.jsonl", "rename_columns needs column 'nothing'", "columns there:"
    ),
    of_config(
        "a column retained", 1, "columns.yaml", "pairs.jsonl", "retain_columns needs column 'topic'", "columns there:"
    ),
    # --- tokenizers
    of(
        "preprocess",
        "no tokenizer",
        2,
        "--training_data_path pairs.jsonl --output_dir out",
        "a tokenizer is required",
        "give model_name_or_path or tokenizer_name_or_path",
    ),
    of_preprocess("tokenizer", 1, "--tokenizer_name_or_path ./nowhere", "tokenizer './nowhere' cannot be loaded"),
    of_preprocess(
        "no chat template",
        1,
        "--training_data_path chats.jsonl --tokenizer_name_or_path plain",
        "tokenizer 'plain' has no chat template",
        "set dataprocessor.chat_template",
    ),
    # --- rows
    of_preprocess(
        "rows",
        1,
        "--training_data_path bad.jsonl",
        "bad.jsonl:2: broken JSON",
        "bad.jsonl:3: column 'output' is null",
        "out/quarantine.jsonl",
        "max_bad_rows=2",
        leaves=OF_FAILED_RUNS,
    ),
    of_preprocess(
        "too many shards",
        1,
        "--num_dataset_shards 99",
        "8 rows cannot fill 99 shards",
        "use at most 8",
        leaves=OF_FAILED_RUNS,
    ),
    of_preprocess(
        "text in packs",
        1,
        "--training_data_path texts.jsonl --packing bfd --pack_length 9",
        "texts.jsonl",
        "cannot be packed",
        "train_on=all",
        leaves=OF_FAILED_RUNS,
    ),
    # --- places to write
    of_preprocess(
        "a file as output", 1, "--output_dir pairs.jsonl", "output_dir pairs.jsonl: is a file, not a directory"
    ),
    of_preprocess("below a file", 1, "--output_dir pairs.jsonl/out", "output_dir pairs.jsonl/out: cannot be written"),
    of_preprocess("theirs", 1, "--output_dir theirs", "theirs: holds ids.parquet", "choose an empty directory"),
    of_preprocess(
        "another data set",
        1,
        "--output_dir done --max_seq_length 9",
        "output_dir done: holds another data set",
        "overwrite=true",
    ),
    of_preprocess(
        "another run", 1, "--output_dir locked", "output_dir locked: another run is writing there", "wait for it"
    ),
    of_preprocess("staging", 1, "--staging_dir pairs.jsonl/units", "staging_dir pairs.jsonl/units: cannot be written"),
    # --- inspect-shards
    of("inspect-shards", "nothing to show", 2, "", "give either a directory of shards, or a data config"),
    of("inspect-shards", "both", 2, "done --training_data_path pairs.jsonl", "not both"),
    of("inspect-shards", "no shards", 1, "nowhere", "nowhere: no such directory or file of shards"),
    of("inspect-shards", "no Parquet", 1, "nothing_in_it", "nothing_in_it: no files of shards in this directory"),
    of(
        "inspect-shards",
        "raw rows",
        1,
        "pairs.jsonl",
        "pairs.jsonl: has no column 'input_ids'",
        "to see what raw rows become, give --training_data_path pairs.jsonl",
    ),
    of("inspect-shards", "row", 1, "done --row 8", "train has 8 rows, 0 to 7"),
    of("inspect-shards", "shard", 1, "done --shard 3", "done: has no shard '3'", "train-00000-of-00001.parquet"),
    of("inspect-shards", "compare", 1, "done --compare nowhere", "nowhere: no such directory or file of shards"),
    of(
        "inspect-shards",
        "nothing to compare",
        2,
        "done --fail_on_difference true",
        "give the other data set with compare",
    ),
    of("inspect-shards", "a split", 1, "done --split test", "done: has no split 'test'", "splits there: train"),
    of("inspect-shards", "seed and row", 2, "done --seed 1 --row 1", "seed draws rows at random", "together with row"),
    of("inspect-shards", "format", 2, "done --format xml", "format must be one of text, json, not 'xml'"),
    of(
        "inspect-shards",
        "search",
        1,
        "theirs/ids.parquet --search x",
        "search needs the text of the tokens",
        "tokenizer_name_or_path",
    ),
    of(
        "inspect-shards",
        "other columns",
        1,
        "odd.parquet",
        "odd.parquet: has no column 'input_ids'",
        "columns there: q",
    ),
    of("inspect-shards", "nothing to verify by", 1, "theirs --verify", "theirs", "manifest"),
    # --- train
    of(
        "train",
        "argument of the Trainer",
        2,
        "--learning_rat 1 --output_dir out",
        "--learning_rat",
        "did you mean 'learning_rate'?",
    ),
    of("train", "value for the Trainer", 2, "--learning_rate fast --output_dir out", "learning_rate", "a number"),
    of("train", "no model", 2, "--training_data_path done --output_dir out", "model_name_or_path is missing"),
    of(
        "train",
        "no shards",
        1,
        "--training_data_path nowhere --model_name_or_path tokenizer --output_dir out",
        "nowhere",
    ),
    of(
        "train",
        "packed otherwise",
        2,
        "--training_data_path packed --model_name_or_path tokenizer --output_dir out "
        "--cache_dir cache --packing bfd --pack_length 5",
        "packed: its rows are packed already",
        "leave packing out",
    ),
    of(
        "train",
        "no weights",
        1,
        "--training_data_path done --model_name_or_path tokenizer --output_dir out",
        "tokenizer has a config.json but no weights",
        "init_from_config=true",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mistakes")
    rows = [{key: row_of(n)[key] for key in ("input", "output")} for n in range(8)]
    write_jsonl(made / "pairs.jsonl", rows)
    shutil.copy(made / "pairs.jsonl", made / "pairs.txt")
    write_jsonl(made / "chats.jsonl", [{"messages": row_of(n)["messages"]} for n in range(3)])
    write_jsonl(made / "texts.jsonl", [{"text": "a text"}] * 3)
    write_jsonl(made / "odd.jsonl", [{"q": 1, "w": 2}])
    write_jsonl(made / "ids.jsonl", [{"input_ids": [5, 6, 7]}])
    (made / "bad.jsonl").write_text(json.dumps(rows[0]) + '\n{"input"\n{"input": "x", "output": null}\n')
    (made / "empty.jsonl").touch()
    (made / "blank.jsonl").write_text("\n\n")
    (made / "no.jsonl.gz").write_text("not compressed")
    (made / "no.parquet").write_text("not Parquet")
    (made / "nothing_in_it").mkdir()
    copy_tokenizer(made / "tokenizer")
    copy_tokenizer(made / "plain")
    (made / "plain" / "chat_template.jinja").unlink()
    (made / "module_that_breaks.py").write_text("1 / 0\n")
    for name, config in CONFIGS.items():
        (made / name).write_text(yaml.safe_dump(config))
    (made / "broken.yaml").write_text("a: 1\nb: c: d\n")
    (made / "broken.json").write_text('{"a": }')
    (made / "double.yaml").write_text("datasets: []\ndatasets: []\n")
    (made / "list.yaml").write_text("- a\n")
    (made / "endless.yaml").write_text("datasets: &a [*a]\n")
    (made / "latin.yaml").write_bytes("name: é\n".encode("latin-1"))
    (made / "reference.yaml").write_text("model_name_or_path: ${nowhere}\n")
    ids = pa.array([[1, 2, 3]], pa.list_(pa.int32()))
    pq.write_table(pa.table({"input_ids": ids, "labels": ids, "seq_lengths": [[1, 2]]}), made / "packs.parquet")
    pq.write_table(pa.table({"q": [1]}), made / "odd.parquet")
    (made / "theirs").mkdir()
    pq.write_table(pa.table({"input_ids": ids}), made / "theirs" / "ids.parquet")
    (made / "locked" / ".staging").mkdir(parents=True)
    (made / "locked" / ".staging" / "lock").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        done = sftkit("preprocess", *DATA, *TOKENIZER, "--output_dir", "done")
        packed = sftkit("preprocess", *DATA, *TOKENIZER, "--output_dir", "packed", "packing=bfd", "pack_length=64")
    assert (done.code, packed.code) == (0, 0), (done, packed)
    return made


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda each: f"{each.arguments[0]}: {each.name}")
def test_a_mistake_is_reported_with_its_place_and_remedy(
    folder: Path, mistake: Mistake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = snapshot(folder)
    with (folder / "locked" / ".staging" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = sftkit(*mistake.arguments)
    after = snapshot(folder)
    shutil.rmtree(folder / "out", ignore_errors=True)
    assert done.code == mistake.code, done.err
    assert done.out == ""
    message = done.err[done.err.index("error: ") :]
    assert [word for word in mistake.says if word not in message] == [], message
    assert [fault for problem in message.strip().split("error: ")[1:] for fault in faults_of(problem.strip())] == []
    assert "Traceback" not in done.err
    left = {name for name in after if name not in before}
    assert all(name in mistake.leaves or name.startswith("out/.staging/") for name in left), left
    assert {name: after.get(name) for name in before} == before


def test_there_are_at_least_sixty_mistakes() -> None:
    assert len(MISTAKES) >= 60
    assert {mistake.arguments[0] for mistake in MISTAKES} == {"preprocess", "inspect-shards", "train"}
    names = [(mistake.arguments[0], mistake.name) for mistake in MISTAKES]
    assert len(names) == len(set(names))


def test_fail_on_a_level_is_exit_code_1(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    done = sftkit("inspect-shards", "done", "--audit", "--fail_on", "warning")
    assert (done.code, done.err) == (1, "")
    assert "special token" in done.out or "duplicate" in done.out or "warning" in done.out


@pytest.mark.parametrize("command", ["preprocess", "inspect-shards", "train"])
@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (RuntimeError("oops"), 70, "please report it with the traceback above\n"),
    ],
    ids=["interrupted", "a bug of ours"],
)
def test_usage_errors_and_bugs_have_other_exit_codes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, raised: BaseException, code: int, message: str
) -> None:
    monkeypatch.chdir(folder)
    before = snapshot(folder)

    def end(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("sftkit.config.loading.load_config", end)
    done = sftkit(command, *DATA, *TOKENIZER, *OUT)
    assert (done.code, done.out) == (code, "")
    assert done.err.endswith(message)
    assert ("Traceback" in done.err) == (code == 70)
    assert snapshot(folder) == before
