"""What fms-hf-tuning makes of a data config, written from what its handlers are documented to do.

Rows go through the handlers one at a time, with nothing but transformers, Jinja and `datasets`; nothing of sftkit is
used. Its handlers get a row and the tokenizer, and what they return is merged into the row (`Dataset.map`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import datasets
from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

Row = dict[str, Any]
WHITE = (" ", "\n", "\t")


def run(config: Mapping[str, Any], rows_of: Callable[[str], list[Row]], tokenizer: Any) -> dict[str, list[Row]]:
    """Return the rows of both splits, in order. `rows_of` reads a data path."""
    processor = config.get("dataprocessor") or {}
    seed = processor.get("seed", 42)
    template = processor.get("chat_template") or config.get("chat_template")
    if template is not None:
        tokenizer.chat_template = template
    training: list[list[Row]] = []
    validation: list[Row] = []
    weights: list[float] = []
    for dataset in config["datasets"]:
        rows = [row for path in dataset["data_paths"] for row in rows_of(path)]
        renamed = dataset.get("rename_columns") or {}
        rows = [{renamed.get(name, name): value for name, value in row.items()} for row in rows]
        if dataset.get("retain_columns"):
            rows = [{name: row[name] for name in dataset["retain_columns"]} for row in rows]
        parts = _split(rows, dataset.get("split"), dataset.get("shuffle", True), seed)
        handled = {name: _handled(part, dataset.get("data_handlers") or [], tokenizer) for name, part in parts.items()}
        if "train" in handled:
            training.append(handled["train"])
        validation += handled.get("test", [])
        if dataset.get("sampling"):
            weights.append(dataset["sampling"])
    if weights and len(training) > 1:
        assert len(weights) == len(training)
        strategy = processor.get("sampling_stopping_strategy", "all_exhausted")
        places = datasets.interleave_datasets(
            [
                datasets.Dataset.from_dict({"part": [part] * len(rows), "row": list(range(len(rows)))})
                for part, rows in enumerate(training)
            ],
            probabilities=weights,
            seed=seed,
            stopping_strategy=strategy,
        )
        mixed = [training[place["part"]][place["row"]] for place in places]
    else:
        mixed = [row for rows in training for row in rows]
    return {"train": mixed, "validation": validation}


def _split(rows: list[Row], split: Mapping[str, float] | None, shuffle: bool, seed: int) -> dict[str, list[Row]]:
    if split is None:
        return {"train": rows}
    train, validation = split.get("train", 0.0), split.get("validation", 0.0)
    if train == 1.0:
        return {"train": rows}
    if validation == 1.0:
        return {"test": rows}
    places = datasets.Dataset.from_dict({"place": list(range(len(rows)))}).train_test_split(
        train_size=train or None, test_size=validation or None, shuffle=shuffle, seed=seed
    )
    parts = {name: [rows[place] for place in part["place"]] for name, part in places.items()}
    return {name: parts[name] for name, fraction in (("train", train), ("test", validation)) if fraction}


def _handled(rows: list[Row], handlers: list[Mapping[str, Any]], tokenizer: Any) -> list[Row]:
    for handler in handlers:
        arguments = dict(handler["arguments"])
        keywords = {**arguments.pop("fn_kwargs", {})}
        removed = arguments.pop("remove_columns", None)
        function = HANDLERS[handler["name"]]
        kept = []
        for row in rows:
            made = function(row, tokenizer, **{**arguments, **keywords})
            if made is True:
                kept.append(row)
            elif handler["name"] in REPLACING:
                kept.append(made)
            elif made is not False:
                left = {} if removed == "all" else row
                kept.append({**left, **made})
        rows = kept
    return rows


def _joined(before: str, after: str) -> str:
    return before + ("" if before.endswith(WHITE) or after.startswith(WHITE) else " ") + after


def _pairs(row: Row, tokenizer: Any, tokenizer_kwargs: Any = None, add_eos_token: bool = True, **names: Any) -> Row:
    before = row[names.get("input_field_name") or names["input_column_name"]]
    after = row[names.get("output_field_name") or names["output_column_name"]]
    text = _joined(before, after) + (tokenizer.eos_token if add_eos_token else "")
    whole = tokenizer(text, **(tokenizer_kwargs or {}))["input_ids"]
    masked = len(tokenizer(before, **(tokenizer_kwargs or {}))["input_ids"])
    return {"input_ids": whole, "labels": [-100] * masked + whole[masked:]}


def _text_name(names: Mapping[str, Any]) -> str:
    found = ("dataset_text_field", "text_column_name", "formatted_text_column_name")
    return str(next(names[name] for name in found if name in names))


def _placeholders(row: Row, tokenizer: Any, template: str, add_eos_token: bool = True, **names: Any) -> Row:
    text = re.sub(r"{{([\s0-9a-zA-Z_\-\.]+)}}", lambda match: str(row[match[1]]), template)
    return {_text_name(names): text + (tokenizer.eos_token if add_eos_token else "")}


def _jinja(row: Row, tokenizer: Any, template: str, add_eos_token: bool = False, **names: Any) -> Row:
    """Newer versions leave the eos token to the template; older ones add it (`add_eos_token`)."""
    made = SandboxedEnvironment(undefined=StrictUndefined).from_string(template)
    text = made.render({**tokenizer.special_tokens_map, **row, "element": row})
    return {_text_name(names): text + (tokenizer.eos_token if add_eos_token else "")}


def _rendered(row: Row, tokenizer: Any, names: Mapping[str, Any]) -> str:
    """Render a column, or the whole row: transformers 4 took a row in place of messages, which 5 refuses."""
    name = names.get("conversation_column") or names.get("conversation_column_name")
    given = {"tools": row.get("tools"), "documents": row.get("documents"), "tokenize": False}
    if name is not None:
        return str(tokenizer.apply_chat_template(row[name], **given))
    template = "{% set messages = whole_row %}" + tokenizer.chat_template
    said = [{"role": "user", "content": ""}]
    return str(tokenizer.apply_chat_template(said, chat_template=template, whole_row=row, **given))


def _chat_text(row: Row, tokenizer: Any, **names: Any) -> Row:
    return {_text_name(names): _rendered(row, tokenizer, names)}


def _chat_ids(row: Row, tokenizer: Any, max_seq_length: int | None = None, **names: Any) -> Row:
    ids = tokenizer(_rendered(row, tokenizer, names), add_special_tokens=False)["input_ids"]
    return {"input_ids": ids[:max_seq_length]}


def _tokens(
    row: Row, tokenizer: Any, truncation: Any = True, max_length: int | None = None, tokenizer_kwargs: Any = None,
    **names: Any,
) -> Row:  # fmt: skip
    made = tokenizer(row[_text_name(names)], truncation=truncation, max_length=max_length, **(tokenizer_kwargs or {}))
    return {"input_ids": made["input_ids"], "attention_mask": made["attention_mask"]}


def _copied(row: Row, tokenizer: Any, **names: Any) -> Row:
    old = names.get("old_column") or names.get("old_column_name") or names["existing_column_name"]
    return {old: row[old], names.get("new_column") or names["new_column_name"]: row[old]}


HANDLERS: Mapping[str, Callable[..., Any]] = {
    "tokenize_and_apply_input_masking": _pairs,
    "apply_custom_data_formatting_template": _placeholders,
    "apply_custom_jinja_template": _jinja,
    "apply_tokenizer_chat_template": _chat_text,
    "tokenize_and_apply_chat_template_with_masking": _chat_ids,
    "tokenize": _tokens,
    "duplicate_columns": _copied,
    "skip_large_text": lambda row, _, column_name, max_length: len(row[column_name]) < max_length,
    "skip_large_columns": lambda row, _, column_name, max_length: len(row[column_name]) <= max_length,
    "skip_samples_with_large_columns": lambda row, _, column_name, max_allowed_length: (
        len(row[column_name]) <= max_allowed_length
    ),
    "rename_columns": lambda row, _, column_mapping: {column_mapping.get(name, name): row[name] for name in row},
    "select_columns": lambda row, _, column_names: {name: row[name] for name in column_names},
}
REPLACING = frozenset({"rename_columns", "select_columns"})
