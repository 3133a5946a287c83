"""The predefined data configs of fms-hf-tuning, written again for data of our own.

Each has the name of the file that it stands for. Paths are names of files in `write_data`.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

TWEET = "### Text:{{Tweet text}} \n\n### Label: {{text_label}}"
JINJA = "### Text: {{ element['Tweet text'] }} \n\n### Label: {{ text_label }}{{ eos_token }}"
WHOLE_ROW = (
    "{% for message in messages['messages'] %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token }}"
    "{% endfor %}"
)
LIST = (
    "{%- if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}"
    "{%- if tools %}{{ '<|im_start|>tools\n' + (tools | tojson) + '<|im_end|>\n' }}{% endif %}"
    "{%- for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def pairs_handler(source: str = "input", target: str = "output", **more: Any) -> dict[str, Any]:
    keywords = {"input_column_name": source, "output_column_name": target, **more}
    return handler("tokenize_and_apply_input_masking", {"remove_columns": "all", "batched": False}, **keywords)


def handler(handler_name: str, arguments: Mapping[str, Any] = MappingProxyType({}), **keywords: Any) -> dict[str, Any]:
    return {"name": handler_name, "arguments": {**arguments, "fn_kwargs": keywords}}


def dataset(name: str, *files: str, handlers: Any = (), **keys: Any) -> dict[str, Any]:
    handlers = {"data_handlers": list(handlers)} if handlers else {}
    return {"name": name, "data_paths": list(files), **keys, **handlers}


ALL = {"remove_columns": "all", "batched": False}
MASKING = handler(
    "tokenize_and_apply_chat_template_with_masking",
    {"remove_columns": "all"},
    max_seq_length=1024,
    conversation_column="messages",
)
MIX = {"type": "default", "sampling_stopping_strategy": "first_exhausted", "seed": 66}
TEXTS = handler("apply_tokenizer_chat_template", {"remove_columns": "all"}, dataset_text_field="formatted_chat_data")
CHATS = ("chats_1.jsonl", "chats_2.jsonl", "chats_3.jsonl")
PAIRS = ("pairs_1.jsonl", "pairs_2.jsonl", "pairs_3.jsonl")
ODM = {"update_interval": 1, "sampling_interval": 1, "reward_type": "validation_loss", "gamma": 0.1, "eta": 0.2}


def of_three(handlers: Any, files: tuple[str, ...], *weights: float) -> list[dict[str, Any]]:
    keys = [{"sampling": weight} for weight in weights] or [{}] * 3
    return [
        dataset(f"dataset_{number}", file, handlers=[handlers], **more)
        for number, (file, more) in enumerate(zip(files, keys, strict=True), 1)
    ]


def config(*datasets: Any, processor: Any = None) -> dict[str, Any]:
    return copy.deepcopy({"dataprocessor": {"type": "default"} if processor is None else processor,
                          "datasets": list(datasets)})  # fmt: skip


def split_of(number: int, weight: float | None, **fractions: float) -> dict[str, Any]:
    keys = {} if weight is None else {"sampling": weight}
    file = f"pairs_{(number - 1) % 3 + 1}.jsonl"
    return dataset(f"dataset_{number}", file, handlers=[pairs_handler()], split=fractions, **keys)


TOKENIZE_OUTPUT = handler("tokenize", {"remove_columns": "all", "batched": True}, dataset_text_field="output")
COPY_IDS = handler("duplicate_columns", {"batched": True}, old_column="input_ids", new_column="labels")

CONFIGS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "apply_custom_jinja_template": config(
            dataset(
                "jinja",
                "tweets.jsonl",
                handlers=[
                    handler(
                        "apply_custom_jinja_template", ALL, formatted_text_column_name="formatted_text", template=JINJA
                    )
                ],
            )
        ),
        "apply_custom_jinja_template (older)": config(
            dataset(
                "jinja",
                "tweets.jsonl",
                handlers=[
                    handler(
                        "apply_custom_jinja_template",
                        ALL,
                        dataset_text_field="formatted_text",
                        template="{{ element['Tweet text'] }}: {{ text_label }}",
                        add_eos_token=True,
                    )
                ],
            )
        ),
        "apply_custom_template": config(
            dataset(
                "template",
                "tweets.jsonl",
                handlers=[
                    handler(
                        "apply_custom_data_formatting_template", ALL, dataset_text_field="formatted", template=TWEET
                    )
                ],
            )
        ),
        "dataset_with_custom_split": config(
            dataset(
                "dataset_split_custom_split_name",
                "splits_1",
                split={"train": 0.8, "validation": 0.2},
                sampling=0.5,
                dataset_split_name="train_sft",
                handlers=[
                    handler(
                        "tokenize_and_apply_chat_template_with_masking",
                        ALL,
                        formatted_text_column_name="formatted_chat_data",
                        conversation_column="messages",
                    )
                ],
            ),
            dataset(
                "dataset_wo_split_custom_split_name",
                "splits_2",
                sampling=0.5,
                dataset_split_name="train_sft",
                handlers=[
                    handler(
                        "tokenize_and_apply_chat_template_with_masking",
                        ALL,
                        formatted_text_column_name="formatted_chat_data",
                        conversation_column="messages",
                    )
                ],
            ),
            processor={**MIX, "chat_template": LIST},
        ),
        "duplicate_columns": config(
            dataset(
                "pre_tokenized_with_only_input_ids",
                "only_ids.jsonl",
                handlers=[
                    handler(
                        "duplicate_columns",
                        {"batched": False},
                        existing_column_name="input_ids",
                        new_column_name="labels",
                    )
                ],
            )
        ),
        "duplicate_columns (older)": config(
            dataset(
                "pre_tokenized_with_only_input_ids",
                "only_ids.jsonl",
                handlers=[handler("duplicate_columns", ALL, old_column_name="input_ids", new_column_name="labels")],
            )
        ),
        "granite_3_1b_valid_base64_data_handler": config(
            *of_three(MASKING, CHATS),
            processor={"type": "default", "chat_template_base64": base64.b64encode(LIST.encode()).decode()},
        ),
        "mt_data_granite_3_1B_tokenize_and_mask_handler": config(
            *of_three(MASKING, CHATS), processor={"type": "default", "chat_template": LIST}
        ),
        "multi_turn_data_with_chat_template": config(
            *of_three(TEXTS, CHATS), processor={"type": "default", "chat_template": WHOLE_ROW}
        ),
        "multi_turn_data_with_chat_template_granite_3_1B": config(
            *of_three(
                handler(
                    "apply_tokenizer_chat_template",
                    {"remove_columns": "all"},
                    formatted_text_column_name="formatted_chat_data",
                    conversation_column_name="messages",
                ),
                CHATS,
            ),
            processor={"type": "default", "chat_template": LIST},
        ),
        "multiple_datasets_with_sampling": config(*of_three(pairs_handler(), PAIRS, 0.3, 0.4, 0.3), processor=MIX),
        "multiple_datasets_with_sampling_and_split": config(
            split_of(1, 0.3, train=0.8, validation=0.2),
            split_of(2, 0.4, train=0.6, validation=0.2),
            split_of(3, 0.3, train=0.4, validation=0.1),
            split_of(4, None, train=0.0, validation=0.3),
            processor=MIX,
        ),
        "multiple_datasets_with_sampling_and_split_2": config(
            split_of(1, 0.6, train=0.8, validation=0.2),
            split_of(2, 0.4, train=0.6),
            split_of(3, None, validation=0.1),
            split_of(4, None, train=0.0, validation=0.3),
            processor=MIX,
        ),
        "multiple_datasets_with_sampling_with_chat_template": {
            "chat_template": WHOLE_ROW,
            **config(*of_three(pairs_handler(), PAIRS, 0.3, 0.4, 0.3), processor=MIX),
        },
        "pretokenized_data": {"datasets": [dataset("pretokenized_dataset", "tokenized.jsonl")]},
        "rename_retain_columns": config(
            dataset(
                "text_dataset_input_output_masking",
                "pairs_1.jsonl",
                rename_columns={"input": "instruction", "output": "response"},
                retain_columns=["instruction", "response"],
                handlers=[
                    handler(
                        "tokenize_and_apply_input_masking",
                        ALL,
                        input_field_name="instruction",
                        output_field_name="response",
                    )
                ],
            )
        ),
        "rename_select_columns": config(
            dataset(
                "text_dataset_input_output_masking",
                "pairs_1.jsonl",
                handlers=[
                    handler("rename_columns", column_mapping={"input": "instruction", "output": "response"}),
                    handler("select_columns", column_names=["instruction", "response"]),
                    pairs_handler("instruction", "response"),
                ],
            )
        ),
        "skip_large_columns_data_handler_template": config(
            dataset(
                "non_tokenized",
                "pairs_1.jsonl",
                handlers=[
                    TOKENIZE_OUTPUT,
                    handler(
                        "duplicate_columns",
                        {"remove_columns": "all", "batched": True},
                        old_column="input_ids",
                        new_column="labels",
                    ),
                    handler("skip_large_columns", column_name="input_ids", max_length=9),
                ],
            )
        ),
        "skip_large_columns_data_handler_template (newer)": config(
            dataset(
                "non_tokenized",
                "pairs_1.jsonl",
                handlers=[
                    TOKENIZE_OUTPUT,
                    COPY_IDS,
                    handler("skip_samples_with_large_columns", column_name="input_ids", max_allowed_length=9),
                ],
            )
        ),
        "skip_large_text_data_handler_template": config(
            dataset(
                "pre_tokenized",
                "pairs_1.jsonl",
                handlers=[
                    TOKENIZE_OUTPUT,
                    COPY_IDS,
                    handler("skip_large_text", column_name="input_ids", max_length=9),
                ],
            )
        ),
        "tokenize_and_apply_input_masking": config(
            dataset(
                "text_dataset_input_output_masking",
                "pairs_1.jsonl",
                handlers=[
                    handler(
                        "tokenize_and_apply_input_masking",
                        ALL,
                        input_field_name="input",
                        output_field_name="output",
                        add_eos_token=False,
                    )
                ],
            )
        ),
        "tokenize_using_handler_and_train": config(
            dataset(
                "non_tokenized_dataset",
                "pairs_1.jsonl",
                handlers=[
                    handler(
                        "tokenize",
                        {"remove_columns": "all", "batched": True},
                        text_column_name="output",
                        truncation=True,
                        max_length=7,
                    ),
                    handler(
                        "duplicate_columns",
                        {"batched": True},
                        existing_column_name="input_ids",
                        new_column_name="labels",
                    ),
                ],
            )
        ),
    }
)
"""Those that make shards. Some have an older or newer form as well, with other names of handlers and arguments."""


def _streaming(made: Mapping[str, Any]) -> dict[str, Any]:
    return {**made, "dataprocessor": {"type": "default", "streaming": True}}


_STREAMS = "streaming: true cannot be used to preprocess"
_MIXES = "online data mixing changes the weights by the losses of a running training"

REFUSED: Mapping[str, tuple[dict[str, Any], str]] = MappingProxyType(
    {
        "apply_custom_jinja_template_streaming": (_streaming(CONFIGS["apply_custom_jinja_template"]), _STREAMS),
        "apply_custom_template_streaming": (_streaming(CONFIGS["apply_custom_template"]), _STREAMS),
        "pretokenized_json_data_streaming": (_streaming(CONFIGS["pretokenized_data"]), _STREAMS),
        "tokenize_and_apply_input_masking_streaming": (
            _streaming(CONFIGS["tokenize_and_apply_input_masking"]), _STREAMS
        ),
        "tokenize_and_apply_input_masking_streaming (older)": (
            config(dataset("pairs", "pairs_1.jsonl", streaming=True, handlers=[pairs_handler()])),
            "datasets[0].streaming: set it for all data sets, in dataprocessor",
        ),
        "multiple_datasets_with_odm": (
            config(
                split_of(1, 0.3, train=0.8, validation=0.2),
                split_of(2, 0.7, train=0.6, validation=0.2),
                processor={"type": "odm", "sampling_stopping_strategy": "first_exhausted", "seed": 66, "odm": ODM},
            ),
            _MIXES,
        ),
        "single_dataset_with_odm": (
            config(
                split_of(1, None, train=0.8, validation=0.2),
                processor={"type": "odm", "seed": 66, "odm": {**ODM, "auto_categorize_input_column": "input"}},
            ),
            _MIXES,
        ),
        "granite_3_1b_invalid_base64_data_handler": (
            config(*of_three(MASKING, CHATS), processor={"type": "default", "chat_template_base64": "a" + "e1=="}),
            "dataprocessor.chat_template_base64 must be base64-encoded UTF-8 text",
        ),
        "a config with images": (
            config(
                dataset(
                    "images",
                    "pairs_1.jsonl",
                    handlers=[
                        handler(
                            "prepare_multimodal_data_processor",
                            fields_name={"dataset_text_field": "text", "dataset_image_field": "images"},
                            processor_kwargs={"return_tensors": "pt"},
                        )
                    ],
                )
            ),
            "sftkit trains language models, and has no rows with images",
        ),
    }
)  # fmt: skip
"""Those that are refused, with a part of the sentence that says why."""

_WORDS = (
    "the cat sat",
    "on the mat",
    "the capital of France",
    "is Paris",
    "add two numbers",
    "Köln",
    "complaint",
    "你好",
)


def _pair(number: int) -> dict[str, str]:
    ends = (" ", "\n", "", ":")[number % 4]
    return {
        "input": f"{_WORDS[number % 8]} {number}{ends}",
        "output": (" " if number % 5 == 0 else "") + " ".join(_WORDS[: 1 + number % 4]) + ".",
        "id": str(number),
    }


def _chat(number: int) -> dict[str, Any]:
    turns = [
        {"role": role, "content": f"{_WORDS[(number + turn) % 8]} {turn}"}
        for turn, role in enumerate(("user", "assistant") * (1 + number % 2))
    ]
    system = [{"role": "system", "content": "Say what is asked."}] if number % 3 == 0 else []
    return {"messages": [*system, *turns], "source": f"s{number}"}


def rows_of(name: str) -> list[dict[str, Any]]:
    """The rows of a file of `write_data`."""
    kind, _, number = name.removesuffix(".jsonl").partition("_")
    start = 100 * int(number) if number.isdecimal() else 0
    count = 11 + start // 100
    if kind in ("pairs", "chats", "splits"):
        make = _pair if kind == "pairs" else _chat
        return [make(start + index) for index in range(count)]
    if kind == "tweets":
        return [{"Tweet text": _pair(index)["input"], "text_label": "complaint", "ID": index} for index in range(count)]
    ids = [[3 + (index * step) % 90 for step in range(1, 4 + index % 5)] for index in range(count)]
    if name == "only_ids.jsonl":
        return [{"input_ids": each} for each in ids]
    return [{"input_ids": each, "labels": [-100, *each[1:]], "attention_mask": [1] * len(each)} for each in ids]


def write_data(folder: Path) -> None:
    """Write the files that the configs name. `splits_*` are directories of splits with names of their own."""
    names = (*PAIRS, *CHATS, "tweets.jsonl", "only_ids.jsonl", "tokenized.jsonl")
    files = {name: rows_of(name) for name in names}
    files |= {f"{name}/train_sft-00000.jsonl": rows_of(name) for name in ("splits_1", "splits_2")}
    files |= {f"{name}/test_sft-00000.jsonl": rows_of("chats_9") for name in ("splits_1", "splits_2")}
    for name, rows in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
