"""For each input of `preprocess`: which units are run again when it changes, and whether the data set counts as done.

Each case changes one thing in a folder whose units are all staged. Asserted are the units that are run; that the shards
are, byte for byte, those of a run that found nothing staged; and what `find_finished` says of the data set made before.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from reliability.material import BAD, FILES, OWN_MODULE, RETAINED, TEMPLATE, TOKENIZER, World, make_folder, row_of
from sftkit.config.commands import PreprocessConfig
from sftkit.config.fields import is_required, option_info
from sftkit.config.schema.data_config import DatasetConfig, HandlerConfig, ProcessorConfig
from sftkit.handlers.registry import HANDLERS as EVERY_HANDLER
from sftkit.preprocessing.build import find_finished
from sftkit.preprocessing.plan.unit_keys import recipe_key
from sftkit.shards.manifest import Manifest
from support import shard_bytes

NONE, ALL = 0, -1
"""Units that are run again, of three files with one unit each."""

Change = Callable[[World], object]


@dataclasses.dataclass(frozen=True)
class Case:
    """One change.

    keys: the config's keys that it is about. kind: of `CONFIGS`. run: how many units are run. done: whether the data
    set that was there counts as this one. same: whether the shards are those that were there.
    """

    name: str
    change: Change
    run: int
    done: bool = False
    same: bool = False
    kind: str = "pairs"
    keys: tuple[str, ...] = ()


def option(key: str, value: Any, run: int, **rest: Any) -> Case:
    """Change a top-level key of the config."""
    name = rest.pop("name", f"{key}={value}")

    def change(world: World) -> None:
        world.config[key] = value

    return Case(name, change, run, keys=(key,), **rest)


def processor(key: str, value: Any, run: int, **rest: Any) -> Case:
    def change(world: World) -> None:
        world.config.setdefault("dataprocessor", {})[key] = value

    return Case(rest.pop("name", f"dataprocessor.{key}"), change, run, keys=(f"dataprocessor.{key}",), **rest)


def data(key: str, value: Any, run: int, **rest: Any) -> Case:
    """Change a key of the data set."""

    def change(world: World) -> None:
        world.data[key] = value

    return Case(rest.pop("name", f"datasets.{key}={value}"), change, run, keys=(f"datasets.{key}",), **rest)


def argument(key: str, value: Any, run: int, handler: int = -1, **rest: Any) -> Case:
    """Change an argument of a handler."""
    return Case(
        rest.pop("name", f"{key}={value} of a handler"),
        lambda world: world.arguments(handler).update({key: value}),
        run,
        keys=("datasets.data_handlers.arguments",),
        **rest,
    )


def setting(key: str, value: Any, run: int = ALL, **rest: Any) -> Case:
    """Change a key of tokenizer_config.json."""
    file = f"{TOKENIZER}/tokenizer_config.json"
    return Case(f"tokenizer_config.json: {key}", lambda world: world.edit_json(file, **{key: value}), run, **rest)


# --- What changes -----------------------------------------------------------------------------------------------------


def nothing(_: World) -> None:
    """Change nothing."""


def touch(world: World) -> None:
    for path in world.folder.rglob("*"):
        os.utime(path, (1, 1))


def named_sources(world: World) -> None:
    world.config["source_column"] = True
    world.data["name"] = "other"


def padded_sequences(world: World) -> None:
    packs = {"packing": "bfd", "pack_length": 64, "pad_seq_to_multiple": 8}
    world.config.update(packs, output_format=["parquet", "nemo"])


def evaluation_questions(world: World, text: str) -> None:
    (world.folder / "test.txt").write_text(text)
    world.config["dataprocessor"] = {"decontaminate": {"paths": ["test.txt"]}}


def one_byte(world: World) -> None:
    world.edit("b.jsonl", "answer 12", "answer 92")


def append_rows(world: World) -> None:
    with (world.folder / "b.jsonl").open("a") as stream:
        stream.writelines(json.dumps(row_of(number)) + "\n" for number in (70, 71, 72))


def put_in_front(world: World, count: int) -> None:
    """Insert rows before all others, which changes their numbers."""
    path = world.folder / BAD
    rows = [json.dumps(row_of(number)) + "\n" for number in range(50, 50 + count)]
    path.write_text("".join(rows) + path.read_text())


def take_last_out(world: World) -> None:
    path = world.folder / "b.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def rename_file(world: World) -> None:
    (world.folder / "b.jsonl").rename(world.folder / "z.jsonl")
    world.data["data_paths"] = ["a.jsonl", "z.jsonl", "c.jsonl"]


def add_copy(world: World) -> None:
    shutil.copy(world.folder / "b.jsonl", world.folder / "copy.jsonl")
    world.data["data_paths"].append("copy.jsonl")


def swap_contents(world: World) -> None:
    """Exchange `a.jsonl` and `b.jsonl`."""
    a, b, aside = (world.folder / name for name in ("a.jsonl", "b.jsonl", "aside"))
    a.rename(aside)
    b.rename(a)
    aside.rename(b)


def compress(world: World) -> None:
    path = world.folder / "b.jsonl"
    (world.folder / "b.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    world.data["data_paths"] = ["a.jsonl", "b.jsonl.gz", "c.jsonl"]


def as_array(world: World) -> None:
    """Write the same rows in another format."""
    rows = [json.loads(line) for line in (world.folder / "b.jsonl").read_text().splitlines()]
    (world.folder / "b.json").write_text(json.dumps(rows))
    world.data["data_paths"] = ["a.jsonl", "b.json", "c.jsonl"]


def elsewhere(world: World) -> None:
    """Start the same run in another directory."""
    away = world.folder / "away"
    away.mkdir()
    os.chdir(away)
    world.data["data_paths"] = [f"../{name}" for name in FILES]
    world.config.update(tokenizer_name_or_path=f"../{TOKENIZER}", output_dir="../out", staging_dir="../units")


def paths(*spelled: str) -> Change:
    def change(world: World) -> None:
        world.data["data_paths"] = [each.format(here=world.folder) for each in spelled]

    return change


def split_in_two(world: World) -> None:
    """Split the same files and handlers into two data sets."""
    other = {**world.data, "name": "other", "data_paths": ["c.jsonl"]}
    world.data["data_paths"] = ["a.jsonl", "b.jsonl"]
    world.config["datasets"].append(other)


def as_data_config(world: World) -> None:
    for key in ("input_field_name", "output_field_name"):
        del world.config[key]
    files = world.config.pop("training_data_path")
    pair = {"input_field_name": "input", "output_field_name": "output"}
    world.config["datasets"] = [
        {"name": "data", "data_paths": files,
         "data_handlers": [{"name": "tokenize_and_apply_input_masking", "arguments": pair}]}
    ]  # fmt: skip


def validation_set(world: World) -> None:
    world.config.update(training_data_path=["a.jsonl", "b.jsonl"], validation_data_path=["c.jsonl"])


def relative(world: World, weights: tuple[float | None, ...], **keys: Any) -> None:
    """Set the weights of the data sets instead of `sampling`, and keys of `dataprocessor`."""
    for dataset, weight in zip(world.config["datasets"], weights, strict=True):
        dataset.update(sampling=None, weight=weight)
    world.config["dataprocessor"] = keys


def handlers(*change: dict[str, Any]) -> Change:
    def add(world: World) -> None:
        world.data["data_handlers"] = [*change, *world.data["data_handlers"]]

    return add


def a_synonym(world: World) -> None:
    world.data["data_handlers"][-1]["arguments"] = {
        "fn_kwargs": {"input_column_name": "input", "output_column_name": "output"},
        "batched": True, "batch_size": 7, "num_proc": 3,
    }  # fmt: skip


def said_beside(world: World) -> None:
    """Add arguments beside `fn_kwargs`, and one with its default value."""
    world.data["data_handlers"][-1]["arguments"] = {
        "output_field_name": "output", "input_field_name": "input", "add_eos_token": "True",
    }  # fmt: skip


def own_source(old: str, new: str) -> Change:
    return lambda world: world.edit(f"{OWN_MODULE}.py", old, new)


def moved_function(world: World) -> None:
    """Move the function to a module with another name and the same source."""
    own = world.folder / f"{OWN_MODULE}.py"
    shutil.copy(own, world.folder / "own_functions_copied.py")
    world.data["data_handlers"][0]["name"] = "own_functions_copied:keep"


def template_changed(text: str) -> str:
    return text.replace("'<|im_end|>\\n'", "'<|im_end|>\\n\\n'")


def template_in_tokenizer(world: World) -> None:
    path = world.folder / TOKENIZER / "chat_template.jinja"
    path.write_text(template_changed(path.read_text()))


def template_path(world: World, *, changed: bool) -> None:
    if changed:
        path = world.folder / TEMPLATE
        path.write_text(template_changed(path.read_text()))
    world.config["dataprocessor"] = {"chat_template_path": TEMPLATE}


def template_text(world: World, *, changed: bool, key: str = "chat_template") -> None:
    import base64

    text = (world.folder / TEMPLATE).read_text()
    text = template_changed(text) if changed else text
    if key == "chat_template_base64":
        text = base64.b64encode(text.encode()).decode()
    world.config["dataprocessor"] = {key: text}


def vocabulary(world: World) -> None:
    """Change the id of a token that occurs in no row."""
    path = world.folder / TOKENIZER / "tokenizer.json"
    state = json.loads(path.read_text())
    state["model"]["merges"].pop()
    path.write_text(json.dumps(state))


def reformatted(world: World) -> None:
    """Write the same tokenizer.json with other white space."""
    path = world.folder / TOKENIZER / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=3))


def copied_tokenizer(world: World) -> None:
    shutil.copytree(world.folder / TOKENIZER, world.folder / "another")
    world.config["tokenizer_name_or_path"] = "another"


def as_the_model(world: World) -> None:
    world.config["model_name_or_path"] = world.config.pop("tokenizer_name_or_path")


def other_stop_token(world: World) -> None:
    """Add a stop token in generation_config.json."""
    (world.folder / TOKENIZER / "generation_config.json").write_text('{"eos_token_id": [0, 3]}')


def no_stop_token_more(world: World) -> None:
    (world.folder / TOKENIZER / "generation_config.json").write_text('{"temperature": 0.5}')


def beside_tokenizer(world: World) -> None:
    """Add a file of the model that does not concern tokens."""
    (world.folder / TOKENIZER / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 3}')


SOURCES = [
    Case("nothing", nothing, NONE, done=True, same=True),
    Case("nothing, of conversations", nothing, NONE, done=True, same=True, kind="chats"),
    Case("nothing, of texts", nothing, NONE, done=True, same=True, kind="texts"),
    Case("the times of all files", touch, NONE, done=True, same=True, kind="chats"),
    Case("one byte of one file", one_byte, 1),
    Case("a file's name", rename_file, NONE, done=True, same=True),
    Case("a copy of a file besides", add_copy, NONE),
    Case("the order of files", paths("c.jsonl", "b.jsonl", "a.jsonl"), NONE),
    Case("the contents of two files swapped", swap_contents, NONE),
    Case("a file left out", paths("a.jsonl", "c.jsonl"), NONE),
    Case("a file compressed", compress, 1, same=True),
    Case("a file in another format", as_array, 1, same=True),
    Case("the working directory", elsewhere, NONE, done=True, same=True),
    Case("paths spelled otherwise", paths("./a.jsonl", "{here}/b.jsonl", "{here}/../{here.name}/c.jsonl"), NONE,
         done=True, same=True, keys=("datasets.data_paths",)),
    Case("paths by a pattern", paths("[a-c].jsonl"), NONE, done=True, same=True),
    Case("two data sets of one", split_in_two, NONE, same=True),
]  # fmt: skip

CUT = [
    Case("nothing, of files in units", nothing, NONE, done=True, same=True, kind="cut"),
    Case("one byte in the middle of a file", one_byte, 1, kind="cut"),
    Case("rows at the end of a file", append_rows, 2, kind="cut"),
    Case("a row less at the end of a file", take_last_out, 1, kind="cut"),
    # The first row of the file is not the first any more: a byte order mark would now be text.
    Case("a unit of rows in front of a file", lambda world: put_in_front(world, 3), 2, kind="cut"),
    Case("a row in front of a file", lambda world: put_in_front(world, 1), 3, kind="cut"),
]

HANDLERS = [
    Case("a handler that drops nothing", handlers({"name": "skip_large_text", "arguments":
         {"column_name": "input", "max_length": 999}}), ALL, same=True, keys=("datasets.data_handlers",)),
    Case("a filter that drops nothing", handlers({"name": "filter", "arguments": {"condition": "input != ''"}}), ALL,
         same=True),
    Case("a filter by a function", handlers({"name": "filter", "arguments": {"function": f"{OWN_MODULE}:is_odd"}}),
         ALL),
    argument("function_kwargs", {"rest": 0}, ALL, handler=1, kind="filtered"),
    argument("condition", "len(input) >= 0", ALL, handler=0, kind="filtered", same=True),
    argument("reason", "another", ALL, handler=0, kind="filtered", same=True, name="the reason of a filter"),
    argument("function", f"{OWN_MODULE}:is_even", ALL, handler=1, kind="filtered"),
    argument("min_tokens", 2, ALL, handler=3, kind="filtered", same=True),
    Case("a filter's source", own_source("% 2 == rest", "% 3 == rest"), ALL, kind="filtered"),
    argument("add_eos_token", False, ALL),
    argument("input_field_name", "text", ALL),
    argument("output_field_name", "text", ALL),
    argument("max_seq_length", 30, ALL, kind="chats"),
    argument("mark", "y", ALL, handler=0, kind="chats", same=True),
    Case("retained columns that a handler removes", lambda world: world.data["data_handlers"][-1]["arguments"].update(
         {"remove_columns": ["output"]}), ALL, kind="chats", same=True),
    Case("a synonym", a_synonym, NONE, done=True, same=True),
    Case("arguments in another place", said_beside, NONE, done=True, same=True),
    Case("a user function's source", own_source('"own": mark', '"own": mark, "id": row["id"] + 1'), ALL, kind="chats"),
    Case("a comment in a user function's source", own_source("def other", "# another\ndef other"), ALL, kind="chats",
         same=True),
    Case("another user function", lambda world: world.data["data_handlers"][0].update(name=f"{OWN_MODULE}:other"), ALL,
         kind="chats", same=True, keys=("datasets.data_handlers.name",)),
    Case("a user function's module", moved_function, ALL, kind="chats", same=True),
]  # fmt: skip

TOKENIZERS = [
    Case("a merge in tokenizer.json", vocabulary, ALL, same=True),
    Case("spaces in tokenizer.json", reformatted, NONE, done=True, same=True),
    Case("a tokenizer's place", copied_tokenizer, NONE, done=True, same=True, keys=("tokenizer_name_or_path",)),
    Case("a tokenizer named as the model's", as_the_model, NONE, done=True, same=True, keys=("model_name_or_path",)),
    Case("a file of the model's", beside_tokenizer, NONE, done=True, same=True),
    setting("eos_token", "<|endoftext|>"),
    setting("pad_token", "<|im_start|>", same=True),
    setting("additional_special_tokens", ["<|im_start|>", "<|new|>"], same=True),
    setting("split_special_tokens", True, kind="chats"),
    setting("model_max_length", 12, kind="truncated"),
    setting("truncation_side", "left", kind="truncated", same=True),
    setting("clean_up_tokenization_spaces", True, NONE, done=True, same=True),
    Case("the stop tokens", other_stop_token, ALL, kind="chats", same=True),
    Case("the stop tokens' file", no_stop_token_more, NONE, done=True, same=True, kind="chats"),
    option("add_special_tokens", ["question"], ALL),
    option("trust_remote_code", True, NONE, done=True, same=True),
    option("trust_packages", ["json"], NONE, done=True, same=True),
    Case("the tokenizer's chat template", template_in_tokenizer, ALL, kind="chats"),
    Case("a chat template in the config", lambda world: template_text(world, changed=True), ALL, kind="chats",
         keys=("dataprocessor.chat_template",)),
    Case("a chat template by path", lambda world: template_path(world, changed=True), ALL, kind="chats",
         keys=("dataprocessor.chat_template_path",)),
    Case("a chat template in base64", lambda world: template_text(world, changed=True, key="chat_template_base64"), ALL,
         kind="chats", keys=("dataprocessor.chat_template_base64",)),
    Case("the same chat template in the config", lambda world: template_text(world, changed=False), NONE, kind="chats",
         done=True, same=True),
    Case("the same chat template by path", lambda world: template_path(world, changed=False), NONE, kind="chats",
         done=True, same=True),
]  # fmt: skip

ROWS = [
    option("max_seq_length", 20, ALL),
    option("max_seq_length", 5000, ALL, same=True, name="a max_seq_length that no row reaches"),
    Case("the longest row, in bytes", lambda world: world.config.update(max_row_bytes=400, max_bad_rows=24), ALL,
         keys=("max_row_bytes",)),
    option("max_row_bytes", 1 << 20, ALL, same=True),
    option("overflow", "drop", NONE, done=True, same=True, name="overflow without a limit"),
    Case("overflow with a limit", lambda world: world.config.update(max_seq_length=20, overflow="drop"), ALL,
         kind="pairs"),
    option("train_on", "all", ALL),
    option("train_on", "last_assistant", ALL, kind="chats"),
    option("train_on", "first_assistant", ALL, kind="chats"),
    option("render", "per_turn", ALL, kind="chats", same=True),
    option("render", "once", ALL, kind="chats", same=True),
    option("render", "once", NONE, kind="pairs", same=True, done=True, name="how conversations are rendered, of pairs"),
    Case("samples per row", lambda world: world.config.update(render="per_turn", max_samples_per_row=9), ALL,
         kind="chats", same=True, keys=("max_samples_per_row",)),
    option("reasoning", "mask", ALL, kind="chats"),
    option("reasoning", "last_only", ALL, kind="chats"),
    option("tool_calls", "mask", ALL, kind="chats", same=True),
    option("mask_pattern", "[a-z]+", ALL, kind="chats"),
    option("mask_pattern", None, NONE, kind="chats", done=True, same=True),
    option("pattern_weights", {"[a-z]+": 0.5}, ALL, kind="chats"),
    option("roles_to_train", ("user", "assistant"), ALL, kind="chats"),
    option("empty_reasoning", "drop", ALL, kind="chats", same=True),
    option("range_edges", "inner", ALL, kind="chats", same=True),
    option("train_on_stop", "none", ALL, kind="chats"),
    option("train_on_stop", "last", ALL, kind="chats"),
    option("train_on_stop", "all", NONE, kind="chats", done=True, same=True),
    option("special_tokens_in_content", "escape", ALL, kind="chats"),
    option("special_tokens_in_content", "drop", ALL, kind="chats"),
    option("compat", "fms", ALL, same=True),
    option("check_tools", "warn", ALL, kind="chats", same=True),
    option("check_tools", "off", NONE, kind="chats", done=True, same=True, name="tool calls that are not checked"),
    option("drop_empty_answers", True, ALL, same=True),
    option("token_kinds", True, ALL),
    option("boundary", "joint", ALL, kind="chats", same=True),
    option("boundary", "joint", NONE, done=True, same=True, name="boundary=joint of pairs"),
    option("chat_template_kwargs", {"shout": True}, ALL, kind="chats"),
    option("template_date", "2024-07-26", NONE, done=True, same=True, kind="chats"),
    option("response_template", "### Question:", ALL, kind="texts"),
    option("instruction_template", "and more", ALL, kind="texts"),
    option("dataset_text_field", "output", ALL, kind="tokenized", same=True),
    data("retain_columns", [*RETAINED, "topic"], ALL, name="another column retained"),
    data("retain_columns", [], ALL, name="nothing retained"),
    data("retain_columns", RETAINED[::-1], NONE, done=True, same=True, name="the order of retained columns"),
    data("rename_columns", {"topic": "subject"}, ALL, same=True),
    data("remove_columns", ["topic"], ALL, same=True),
    data("reader", {"encoding": "latin-1"}, ALL, same=True, name="the encoding"),
    data("reader", {"encoding": "utf8"}, NONE, done=True, same=True, name="the usual encoding"),
    Case("the cuts", lambda world: world.config.update(unit_size=700), ALL, done=True, same=True, keys=("unit_size",)),
]  # fmt: skip

WITHOUT_DATA_CONFIG = [
    Case("a data config that says the same", as_data_config, NONE, kind="simple", done=True, same=True),
    Case("a validation set", validation_set, NONE, kind="simple", keys=("training_data_path", "validation_data_path")),
    Case("the fields of pairs", lambda world: world.config.update(input_field_name="text", output_field_name="output"),
         ALL, kind="simple", keys=("input_field_name", "output_field_name")),
    Case("a formatting template", lambda world: world.config.update(data_formatter_template="{{input}}\n{{output}}",
         response_template="\nanswer"), ALL, kind="simple", keys=("data_formatter_template",)),
    option("dataset_conversation_field", "messages", ALL, kind="simple"),
    option("chat", True, ALL, kind="simple"),
]  # fmt: skip

AFTER_STAGING = [
    option("engine", "reference", NONE, done=True, same=True),
    option("engine_verify", 1.0, NONE, done=True, same=True),
    option("num_workers", 2, NONE, done=True, same=True),
    option("log_level", "error", NONE, done=True, same=True),
    option("max_bad_rows", 7, NONE, done=True, same=True),
    option("max_dropped_rows", 7, NONE, done=True, same=True),
    option("keep_dropped", 7, NONE, done=True, same=True),
    option("ignore_columns", ["topic"], NONE, done=True, same=True),
    data("ignore_columns", ["topic"], NONE, done=True, same=True),
    data("max_samples", 5, 1),
    data("validation_rows", 3, NONE),
    option("max_samples", 5, 1, kind="simple"),
    option("val_size", 3, NONE, kind="simple"),
    option("packing", "bfd", NONE, name="packing", kind="packed"),
    option("pack_length", 300, NONE, name="the length of packs", kind="packed"),
    Case("packs where there were none", lambda world: world.config.update(packing="bfd", pack_length=64), NONE),
    option("pack_window", 4, NONE, kind="packed"),
    option("pad_pack_to_multiple_of", 4, NONE, kind="packed"),
    option("pack_count_multiple_of", 5, NONE, kind="packed"),
    Case("packs and what becomes of longer rows",
         lambda world: world.config.update(packing="bfd", pack_length=20, overflow="drop"), NONE, kind="packed"),
    option("num_dataset_shards", 3, NONE),
    option("parquet_columns", "trl", NONE),
    option("num_eval_dataset_shards", 2, NONE, same=True),
    processor("seed", 7, NONE, kind="mixed"),
    processor("sampling_stopping_strategy", "first_exhausted", NONE, kind="mixed"),
    processor("deduplicate", "exact", NONE, same=True),
    processor("deduplicate", {"compare": "trained", "ignore_case": True}, NONE, same=True,
              name="duplicates of what is trained"),
    processor("deduplicate", {"method": "near", "ngram": 1, "threshold": 0.5}, NONE, name="near duplicates"),
    processor("deduplicate", {"columns": ["topic"]}, NONE, name="duplicates of a column"),
    Case("evaluation questions", lambda world: evaluation_questions(world, "answer 8 and more and more and more"), ALL,
         keys=("dataprocessor.decontaminate",)),
    processor("type", "default", NONE, done=True, same=True),
    Case("repeat and what it counts", lambda world: (world.data.update(repeat=1.5), world.config.update(
         dataprocessor={"mix_by": "tokens"})), NONE, keys=("datasets.repeat", "dataprocessor.mix_by")),
    data("repeat", 2, NONE),
    processor("order", "by_length", NONE),
    processor("order", "as_is", NONE, same=True, name="the order that rows have anyway"),
    processor("order", {"curriculum": "-id"}, NONE, name="a curriculum"),
    data("max_rows", 9, NONE),
    data("max_tokens", 90, NONE),
    data("target_tokens", 900, NONE),
    Case("weights instead of sampling", lambda world: relative(world, (3, 1)), NONE, kind="mixed",
         keys=("datasets.weight",)),
    Case("a total of rows", lambda world: relative(world, (3, 1), total_rows=50), NONE, kind="mixed",
         keys=("dataprocessor.total_rows",)),
    Case("a total of tokens", lambda world: relative(world, (3, 1), total_tokens=500), NONE, kind="mixed",
         keys=("dataprocessor.total_tokens",)),
    Case("stages", lambda world: relative(world, (None, None), stages=[{"until": 0.5, "weights": {"*": 1}},
         {"weights": {"most": 1}}]), NONE, kind="mixed", keys=("dataprocessor.stages",)),
    data("shuffle", True, NONE),
    data("split", {"validation": 0.25}, NONE),
    data("sampling", 1.0, NONE, same=True),
    Case("the weights", lambda world: [each.update(sampling=0.5) for each in world.config["datasets"]], NONE,
         kind="mixed"),
    data("loss_weight", 0.5, NONE),
    data("loss_weight", 1, NONE, done=True, same=True, name="the usual loss weight"),
    option("source_column", True, NONE),
    option("output_format", ["parquet", "jsonl"], NONE, same=True),
    Case("padded sequences", padded_sequences, NONE, keys=("pad_seq_to_multiple", "output_format")),
    data("name", "other", NONE, done=True, same=True),
    Case("a name with a column of sources", named_sources, NONE, keys=("source_column", "datasets.name")),
    data("builder", "json", NONE, done=True, same=True),
    data("dataset_split_name", "train", NONE, done=True, same=True),
    data("subset", "default", NONE, done=True, same=True),
    option("output_dir", "elsewhere", NONE, done=True, same=True),
    option("overwrite", True, NONE, done=True, same=True),
    option("append", True, NONE, done=True, same=True),
    option("keep_staging", True, NONE, done=True, same=True),
    option("split_batches", True, NONE, done=True, same=True),
    option("use_flash_attn", True, NONE, done=True, same=True),
]  # fmt: skip

CASES = [*SOURCES, *CUT, *HANDLERS, *TOKENIZERS, *ROWS, *WITHOUT_DATA_CONFIG, *AFTER_STAGING]


# --- The table --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder of one kind with all units staged and the data set finished; not to be changed."""

    @cache
    def make(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        make_folder(folder)
        with pytest.MonkeyPatch.context() as patch:
            enter(folder, patch)
            manifest = World.of(folder, kind).preprocess()
        assert (manifest.units, manifest.units_found) == (12 if kind == "cut" else 3, 0)
        return folder

    return make


def enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Work in a folder like a process that was started there."""
    patch.chdir(folder)
    # Other tests of this process may have imported modules of the same name from other folders.
    patch.setattr(sys, "path", [each for each in sys.path if not Path(each, f"{OWN_MODULE}.py").is_file()])
    patch.setattr(sys, "dont_write_bytecode", True)


def quarantined(output: Path) -> str | None:
    path = output / "quarantine.jsonl"
    return path.read_text(encoding="utf-8") if path.exists() else None


def reported(manifest: Manifest) -> Manifest:
    """What a manifest says about the data set: row counts, findings, shards."""
    return dataclasses.replace(manifest, seconds={}, worker_seconds={}, rows_by_programs=0, units_found=0, config={})


@pytest.mark.sampled(3)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_exactly_the_units_that_a_change_affects_are_run_again(
    case: Case, made: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "world"
    shutil.copytree(made(case.kind), folder)
    enter(folder, monkeypatch)
    before = shard_bytes(folder / "out")
    world = World.of(folder, case.kind)
    case.change(world)
    done = find_finished(world.plan(output_dir=str(folder / "out"))) is not None
    after = world.preprocess(output_dir=str(folder / "again"))
    fresh = world.preprocess(output_dir=str(folder / "fresh"), staging_dir=None)
    run = after.units - after.units_found
    assert run == (after.units if case.run == ALL else case.run)
    assert fresh.units_found == 0 or "copy" in case.name
    assert shard_bytes(folder / "again") == shard_bytes(folder / "fresh"), "stale rows"
    assert quarantined(folder / "again") == quarantined(folder / "fresh")
    assert reported(after) == reported(fresh)
    assert done == case.done
    assert (shard_bytes(folder / "again") == before) == case.same
    assert not (done and not case.same)


# --- Nothing left out of the table ------------------------------------------------------------------------------------

ABOUT_THE_RUN = {
    *("config", "data_config_path", "dry_run"),  # where a config comes from; a dry run writes nothing
    *("datasets", "dataprocessor", "staging_dir"),  # their keys have cases; staging is the subject of all cases
    "max_expansion",  # may end a run, but changes no row
    *(
        "executor",
        "ray_address",
        "storage_options",
        "datasets.storage_options",
    ),  # where units run and how files are read
}


def test_every_key_of_a_config_has_a_case() -> None:
    sections = {"": PreprocessConfig, "dataprocessor.": ProcessorConfig, "datasets.": DatasetConfig,
                "datasets.data_handlers.": HandlerConfig}  # fmt: skip
    every = {prefix + field.name for prefix, schema in sections.items() for field in dataclasses.fields(schema)}
    covered = {key for case in CASES for key in case.keys}
    assert sorted(every - covered - ABOUT_THE_RUN) == ["dataprocessor.streaming"]  # used by `train`
    assert sorted(covered - every) == []


def values_of(field: dataclasses.Field[Any]) -> list[Any]:
    """Up to three values of an argument."""
    if choices := option_info(field).choices:
        return [*choices[:3]]
    return {
        "str": ["one", "two", "three"], "bool": [True, False], "int": [7, 8, 9], "str | None": ["one", "two", None],
        "int | None": [7, 8, None], "tuple[str, ...]": [["one"], ["two"], ["one", "two"]],
        "Mapping[str, str]": [{"one": "user"}, {"one": "system"}, {"two": "user"}],
        "Mapping[str, Any]": [{"max_length": 8}, {"max_length": 9}, {"truncation": True}],
    }[str(field.type)]  # fmt: skip


ALSO_NEEDED: dict[str, dict[str, dict[str, Any]]] = {
    "filter": {name: {"condition": "turns > 1"} for name in ("reason", "conversation_column")},
    "filter_length": {"conversation_column": {"min_turns": 1}},
}
"""What an argument of a handler needs beside it, where handlers need one of several arguments."""

FUNCTIONS = {("filter", "function"), ("filter", "function_kwargs")}
"""Arguments with functions of the user, which have cases above."""

ARGUMENTS = [
    (name, field)
    for name, kind in sorted(EVERY_HANDLER.items())
    for field in dataclasses.fields(kind)
    if (name, field.name) not in FUNCTIONS
]


@pytest.mark.parametrize(("name", "field"), ARGUMENTS, ids=[f"{name}.{field.name}" for name, field in ARGUMENTS])
def test_every_argument_of_every_handler_changes_the_recipe_key(name: str, field: dataclasses.Field[Any]) -> None:
    needed = {each.name: values_of(each)[0] for each in dataclasses.fields(EVERY_HANDLER[name]) if is_required(each)}
    needed |= ALSO_NEEDED.get(name, {}).get(field.name, {})
    config = PreprocessConfig(output_dir="out")
    recipes = []
    for value in [each for each in values_of(field) if each is not None or name not in ALSO_NEEDED]:
        arguments = {"fn_kwargs": {**needed, field.name: value}}
        handler = HandlerConfig(name=name, arguments=arguments)
        data = DatasetConfig(name="data", data_paths=("x",), data_handlers=(handler,))
        recipes.append(recipe_key(data, config, {}))
    assert len(set(recipes)) == len(recipes)


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a": 1, "b": 2}, {"b": 2, "a": 1}), ({1: "x"}, {"1": "x"}), ([1], ["1"]), (1, True), (1, 1.0)],
    ids=["order", "keys", "items", "truth", "numbers"],
)
def test_arguments_that_a_user_function_can_distinguish_have_different_keys(
    one: Any, other: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(tmp_path, monkeypatch)
    (tmp_path / "own_functions_distinguished.py").write_text("def keep(row, mark):\n    return row\n")
    keys = []
    for value in (one, other, other):
        own = HandlerConfig(name="own_functions_distinguished:keep", arguments={"fn_kwargs": {"mark": value}})
        data = DatasetConfig(name="data", data_paths=("x",), data_handlers=(own,))
        keys.append(recipe_key(data, PreprocessConfig(output_dir="out"), {}))
    assert keys[0] != keys[1] == keys[2]


@pytest.mark.parametrize("name", ["ROW_SEMANTICS", "version"])
def test_units_of_other_versions_are_not_reused(
    name: str, made: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "world"
    shutil.copytree(made("pairs"), folder)
    enter(folder, monkeypatch)
    monkeypatch.setattr(
        f"sftkit.preprocessing.plan.unit_keys.{name}", {"ROW_SEMANTICS": -1, "version": lambda _: "0.0"}[name]
    )
    after = World.of(folder, "pairs").preprocess(output_dir="again")
    assert (after.units, after.units_found) == (3, 0)
