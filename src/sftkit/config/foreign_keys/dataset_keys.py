"""Keys of other tools in an entry of `datasets`: axolotl's `datasets` and LLaMA-Factory's `dataset_info.json`."""

from __future__ import annotations

from sftkit.config.foreign_keys.foreign_key import AXOLOTL, LLAMA_FACTORY, ForeignKey, of

_CONVERT = "an argument of the handler convert_to_messages: {}"
_FORMAT = "handlers say what becomes of the rows; without `datasets` (training_data_path) their format is recognised"
_TEMPLATE = "one template for all data sets; its names are chatml, llama3, mistral, gemma and granite"
_COLUMNS = "old name: new name; the columns of a known format are found without it"
_REVISION = "download that revision, and name its directory"
_REASONING = "the chat template reads `reasoning_content`; rename the key in the messages"
_PARTS = (
    "messages with `train_detail` or `training_detail` need no key; for another name, rename the key in the messages"
)
_FLAG = "a message with `training: false` (or `train`, `trainable`, `loss`) carries no loss; use one of these names"
_STOP_TOKENS = "one value for all data sets: `turn` is the default (all), `last` and `none` are its values"
_SHARD = "list the files to read in data_paths"

DATASET_KEYS: tuple[ForeignKey, ...] = (
    *of(
        AXOLOTL,
        ("path", "data_paths"),
        ("data_files", "data_paths"),
        ("type", "data_handlers", _FORMAT),
        ("ds_type", "builder"),
        ("field", "data_handlers", "the column is the argument dataset_text_field of a handler"),
        ("field_messages", "data_handlers", _CONVERT.format("conversation_column")),
        ("field_tools", "data_handlers", _CONVERT.format("tools_column")),
        ("field_system", "data_handlers", _CONVERT.format("system_column")),
        ("field_thinking", "rename_columns", _REASONING),
        ("template_thinking_key", "rename_columns", _REASONING),
        ("split_thinking", "", "reasoning in the content is left there; the chat template may move it"),
        ("message_field_role", "data_handlers", _CONVERT.format("role_key")),
        ("message_field_content", "data_handlers", _CONVERT.format("content_key")),
        ("message_property_mappings", "data_handlers", _CONVERT.format("role_key and content_key")),
        ("message_field_training", "", _FLAG),
        ("message_field_training_detail", "", _PARTS),
        ("roles", "data_handlers", _CONVERT.format("roles, from the name in the data to the role")),
        ("roles_to_train", "roles_to_train", "a top-level key here, for all data sets"),
        ("train_on_eos", "train_on_stop", _STOP_TOKENS),
        ("train_on_eot", "train_on_stop", _STOP_TOKENS),
        ("chat_template", "dataprocessor.chat_template", _TEMPLATE),
        ("chat_template_jinja", "dataprocessor.chat_template", "it takes the Jinja text; a file is chat_template_path"),
        ("drop_system_message", "", "remove the system messages from the data"),
        ("conversation", "dataprocessor.chat_template", _TEMPLATE),
        ("input_format", "data_handlers", _FORMAT),
        ("input_transform", "data_handlers", "a function of your own is a handler: package.module:function"),
        ("field_human", "rename_columns", _COLUMNS),
        ("field_model", "rename_columns", _COLUMNS),
        ("field_instruction", "rename_columns", _COLUMNS),
        ("field_input", "rename_columns", _COLUMNS),
        ("field_output", "rename_columns", _COLUMNS),
        ("shards", "data_paths", _SHARD),
        ("shards_idx", "data_paths", _SHARD),
        ("preprocess_shards", "", "memory does not grow with the data; leave it out"),
        ("trust_remote_code", "", "data sets with code of their own are not loaded; convert them first"),
        ("revision", "data_paths", _REVISION),
        ("logprobs_field", "", "sftkit does supervised fine-tuning only"),
        ("temperature", "", "sftkit does supervised fine-tuning only"),
    ),
    *of(
        LLAMA_FACTORY,
        ("file_name", "data_paths"),
        ("hf_hub_url", "data_paths"),
        ("ms_hub_url", "data_paths", "a Hugging Face id, or a directory"),
        ("cloud_file_name", "data_paths", "any fsspec URL"),
        ("script_url", "data_paths", "data sets with code of their own are not loaded; convert them first"),
        ("folder", "data_paths", "a pattern such as `org/name/folder/*`"),
        ("formatting", "data_handlers", _FORMAT),
        ("columns", "rename_columns", _COLUMNS),
        ("tags", "data_handlers", _CONVERT.format("role_key, content_key and roles")),
        ("ranking", "", "sftkit does supervised fine-tuning only; output_field_name takes the chosen side"),
        ("num_samples", "max_samples", "or `split` of the data set"),
    ),
)

FOREIGN_VALUES = {
    "datasets.split": "; for the name of the split to read, set dataset_split_name",
}
"""What to add to the error for a value of a key that another tool has, too, with other values. By dotted path."""
