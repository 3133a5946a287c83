"""Alternative names for keys, options and handlers: those of newer fms-hf-tuning versions and of other tools."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

NO_ONLINE_MIXING = (
    "online data mixing changes the weights by the losses of a running training, so its rows cannot be made before; "
    "set type: default and fixed sampling weights"
)

REFUSED_KEYS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "dataprocessor": MappingProxyType({"odm": NO_ONLINE_MIXING}),
        "datasets": MappingProxyType(
            {"streaming": "set it for all data sets, in dataprocessor, and only for `train`, which can stream shards"}
        ),
    }
)
"""Key of another tool -> why it is refused, for each section of a config."""

KEY_ALIASES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "": MappingProxyType(
            {
                "num_train_dataset_shards": "num_dataset_shards",
                "tokenizer": "tokenizer_name_or_path",
                "dtype": "torch_dtype",
                "evaluation_strategy": "eval_strategy",
                "use_lora": "use_peft",
                "lora_rank": "lora_r",
                "r": "lora_r",
                "target_modules": "lora_target_modules",
                "modules_to_save": "lora_modules_to_save",
                "target_parameters": "lora_target_parameters",
            }
        ),
        "dataprocessor": MappingProxyType({"sampling_seed": "seed"}),
        "datasets": MappingProxyType({"select_columns": "retain_columns"}),
    }
)
"""Alias -> key, for each section of a config; "" is the top level."""

PATH_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "chat_template": "dataprocessor.chat_template",
        "chat_template_path": "dataprocessor.chat_template_path",
        "chat_template_base64": "dataprocessor.chat_template_base64",
        "streaming": "dataprocessor.streaming",
        "sampling_seed": "dataprocessor.seed",
        "sampling_stopping_strategy": "dataprocessor.sampling_stopping_strategy",
    }
)
"""Top-level name -> dotted path of a nested key."""

HANDLER_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "select_columns": "retain_columns",
        "skip_large_columns": "skip_samples_with_large_columns",
        "apply_dataset_formatting": "add_tokenizer_eos_token",
        "apply_custom_data_formatting_jinja_template": "apply_custom_jinja_template",
        "tokenize_and_apply_instruction_masking": "tokenize_and_apply_input_masking",
        "duplicate_column": "duplicate_columns",
        "convert_sharegpt": "convert_to_messages",
        "sharegpt_to_messages": "convert_to_messages",
    }
)
"""Alias -> handler."""

HANDLER_ARGUMENT_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "input_column_name": "input_field_name",
        "output_column_name": "output_field_name",
        "text_column_name": "dataset_text_field",
        "formatted_text_column_name": "dataset_text_field",
        "conversation_column_name": "conversation_column",
        "max_allowed_length": "max_length",
        "existing_column_name": "old_column",
        "old_column_name": "old_column",
        "new_column_name": "new_column",
        "column_names": "columns",
        "column_mapping": "columns",
    }
)
"""Alias -> argument, for all handlers."""

UNUSED_HANDLER_ARGUMENTS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "apply_tokenizer_chat_template": frozenset({"tokenizer_kwargs"}),
        "apply_custom_jinja_template": frozenset({"tokenizer_kwargs"}),
        "apply_custom_data_formatting_template": frozenset({"tokenizer_kwargs"}),
        "tokenize_and_apply_chat_template_with_masking": frozenset({"dataset_text_field", "tokenizer_kwargs"}),
    }
)
"""Handler -> arguments that configs of fms-hf-tuning give it and that it has no use for, there as here."""

REFUSED_HANDLERS: Mapping[str, str] = MappingProxyType(
    {
        "prepare_multimodal_data_processor": "sftkit trains language models, and has no rows with images; use "
        "fms-hf-tuning for vision models",
    }
)
"""Handler of fms-hf-tuning -> why there is none here."""
