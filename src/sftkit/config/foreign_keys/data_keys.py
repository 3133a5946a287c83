"""Keys of other tools about data: where it is, what becomes of rows, what carries a loss, packing."""

from __future__ import annotations

from sftkit.config.foreign_keys.foreign_key import (
    AXOLOTL,
    LLAMA_FACTORY,
    MS_SWIFT,
    OPEN_INSTRUCT,
    TRL,
    ForeignKey,
    of,
)

_DATA_CONFIG = "list them in `datasets` of a data config"
_PACKING = "`true` is packing=bfd, and needs max_seq_length; `false` is the default"
_SAME_PACKING = "validation rows are packed as the training rows are"
_BEST_FIT = "best-fit packing looks at all rows; leave it out"
_LOSS_ON_PROMPTS = "`true` is train_on=all; `false` is the default"
_LOSS_ON_ANSWERS = "`true` is the default (train_on=assistant); `false` is train_on=all"
_STOP_TOKENS = "`turn` is the default (all), `last` and `none` are its values; for `all`, see train_on=all"
_NOTHING_CACHED = "staged rows are used again by what they are made of; leave it out"
_ORDER = "training draws an order for every epoch; in a data config, `shuffle` is a key of each data set"
_DUPLICATES = "`true` is exact; the default is to keep duplicates"
_NO_BATCHES = "the batches of workers do not change rows; leave it out"
_INSTEAD_OF_CACHE = "tokenize with `sftkit preprocess`, and give `train` its output_dir as training_data_path"
_SFT_ONLY = "sftkit does supervised fine-tuning only"

DATA_KEYS: tuple[ForeignKey, ...] = (
    *of(
        AXOLOTL,
        ("sequence_len", "max_seq_length"),
        ("excess_length_strategy", "overflow", "`drop` and `truncate` are its values, `raise` is overflow=error"),
        ("min_sample_len", "", "short rows are kept; remove them from the data"),
        ("max_prompt_len", "", _SFT_ONLY),
        ("sample_packing", "packing", _PACKING),
        ("eval_sample_packing", "packing", _SAME_PACKING),
        ("sample_packing_group_size", "pack_window"),
        ("sample_packing_bin_size", "", _BEST_FIT),
        ("sample_packing_sequentially", "packing", "`true` is packing=next_fit"),
        ("sample_packing_eff_est", "", _BEST_FIT),
        ("multipack_real_batches", "", _BEST_FIT),
        ("max_packed_sequence_len", "pack_length"),
        ("pad_to_sequence_len", "padding_free", "batches have no padding where the model allows it; leave it out"),
        ("batch_flattening", "padding_free"),
        ("pretraining_sample_concatenation", "packing", "`true` is packing=wrapped"),
        ("pretraining_dataset", "training_data_path", "rows with a column `text` are trained as a whole"),
        ("val_set_size", "val_size"),
        ("test_datasets", "validation_data_path", "or eval_data of `train`, where each has a loss of its own"),
        ("train_on_inputs", "train_on", _LOSS_ON_PROMPTS),
        ("train_on_eos", "train_on_stop", _STOP_TOKENS),
        ("train_on_eot", "train_on_stop", _STOP_TOKENS),
        ("eot_tokens", "", "how the template ends turns is found in the template; leave it out"),
        ("dataset_prepared_path", "cache_dir", "or staging_dir of `sftkit preprocess`"),
        ("skip_prepare_dataset", "", _INSTEAD_OF_CACHE),
        ("dataset_processes", "num_workers"),
        ("dataset_exact_deduplication", "dataprocessor.deduplicate", _DUPLICATES),
        ("shuffle_merged_datasets", "", _ORDER),
        (
            "curriculum_sampling",
            "dataprocessor.order",
            "as_is keeps the order of the rows; train with train_sampling_strategy=sequential",
        ),
        ("dataset_keep_in_memory", "", "memory does not grow with the data; leave it out"),
        ("dataset_shard_num", "", "the shards of the output are num_dataset_shards"),
        ("dataset_shard_idx", "", "the shards of the output are num_dataset_shards"),
        ("push_dataset_to_hub", "", "upload the output_dir of `sftkit preprocess` yourself"),
        ("streaming_multipack_buffer_size", "", _BEST_FIT),
        ("preprocess_iterable", "streaming"),
        ("rl", "", _SFT_ONLY),
        ("reward_model", "", _SFT_ONLY),
        ("process_reward_model", "", _SFT_ONLY),
    ),
    *of(
        f"{TRL}, {MS_SWIFT}",
        ("max_length", "max_seq_length"),
    ),
    *of(
        f"{TRL}, {OPEN_INSTRUCT}",
        ("dataset_name", "training_data_path", "a path or Hub id"),
    ),
    *of(
        f"{AXOLOTL}, {TRL}, {MS_SWIFT}",
        ("dataset_num_proc", "num_workers"),
    ),
    *of(
        TRL,
        ("dataset_config", "datasets[0].subset", "in a data config"),
        ("dataset_train_split", "datasets[0].dataset_split_name", "in a data config; `train` is the default"),
        ("dataset_test_split", "validation_data_path", "or eval_data of `train`, where each has a loss of its own"),
        ("dataset_streaming", "streaming"),
        ("dataset_kwargs", "", "rows that are tokenized already are recognised; leave it out"),
        ("dataset_batch_size", "", _NO_BATCHES),
        ("dataset_mixture", "datasets", "their `weight` is the key `weight`, any positive number"),
        ("packing_strategy", "packing", "with the same values"),
        ("eval_packing", "packing", _SAME_PACKING),
        ("truncation_mode", "overflow", "`keep_start` is overflow=truncate, `keep_end` is overflow=truncate_left"),
        ("completion_only_loss", "train_on", _LOSS_ON_ANSWERS),
        ("assistant_only_loss", "train_on", _LOSS_ON_ANSWERS),
        ("shuffle_dataset", "", _ORDER),
        ("pad_to_multiple_of", "padding_free", "batches have no padding where the model allows it; leave it out"),
        ("num_of_sequences", "", _BEST_FIT),
        ("chars_per_token", "", _BEST_FIT),
        ("formatting_func", "data_formatter_template", "or a function of your own as a handler"),
    ),
    *of(
        OPEN_INSTRUCT,
        (
            "dataset_mixer",
            "datasets",
            f"{_DATA_CONFIG}; fractions of a data set are its `repeat`, numbers its max_rows",
        ),
        (
            "dataset_mixer_list",
            "datasets",
            f"{_DATA_CONFIG}; fractions of a data set are its `repeat`, numbers its max_rows",
        ),
        ("dataset_mixer_list_splits", "datasets[0].dataset_split_name", "in a data config; `train` is the default"),
        ("dataset_mixer_eval_list", "validation_data_path"),
        ("dataset_config_name", "datasets[0].subset", "in a data config"),
        ("dataset_transform_fn", "datasets[0].data_handlers", "in a data config; without one, rows are recognised"),
        ("dataset_target_columns", "datasets[0].retain_columns", "in a data config; token columns are always written"),
        ("dataset_local_cache_dir", "cache_dir"),
        ("dataset_cache_mode", "", _NOTHING_CACHED),
        ("dataset_config_hash", "", _NOTHING_CACHED),
        ("dataset_skip_cache", "", _NOTHING_CACHED),
        ("dataset_mix_dir", "output_dir", "of `sftkit preprocess`"),
        ("cache_dataset_only", "", "`sftkit preprocess` tokenizes without training"),
        ("train_file", "training_data_path"),
        ("max_train_samples", "max_samples"),
    ),
    *of(
        f"{LLAMA_FACTORY}, {OPEN_INSTRUCT}",
        ("preprocessing_num_workers", "num_workers"),
        ("overwrite_cache", "", _NOTHING_CACHED),
    ),
    *of(f"{LLAMA_FACTORY}, {MS_SWIFT}", ("dataset", "training_data_path", "the path of the file, not its name")),
    *of(
        LLAMA_FACTORY,
        ("dataset_dir", "training_data_path", "the paths of the files; dataset_info.json is not read"),
        ("eval_dataset", "validation_data_path", "the path of the file, not its name"),
        ("media_dir", "", "only text is trained"),
        ("cutoff_len", "max_seq_length"),
        ("train_on_prompt", "train_on", _LOSS_ON_PROMPTS),
        ("mask_history", "train_on", "`true` is train_on=last_assistant; `false` is the default"),
        ("mix_strategy", "sampling_stopping_strategy", "interleave_under is first_exhausted, _over is all_exhausted"),
        ("interleave_probs", "datasets[0].sampling", "in a data config, a weight for each data set"),
        ("preprocessing_batch_size", "", _NO_BATCHES),
        ("tokenized_path", "output_dir", f"of `sftkit preprocess`: {_INSTEAD_OF_CACHE}"),
        ("neat_packing", "packing", "packs keep their rows apart: `true` is packing=bfd"),
        ("buffer_size", "shuffle_window", "in tokens"),
        ("ignore_pad_token_for_loss", "", "padding never carries a loss; leave it out"),
        ("disable_shuffling", "", _ORDER),
        ("stage", "", f"{_SFT_ONLY}; leave out `stage: sft`"),
        ("eval_on_each_dataset", "eval_data", "names and paths; each has a loss of its own"),
    ),
    *of(
        MS_SWIFT,
        ("val_dataset", "validation_data_path", "the path of the file"),
        ("cached_dataset", "training_data_path", "the output_dir of `sftkit preprocess`"),
        ("split_dataset_ratio", "val_size"),
        ("truncation_strategy", "overflow", "delete is overflow=drop, right is truncate, left is truncate_left"),
        ("loss_scale", "train_on", "`last_round` is train_on=last_assistant, `all` is all, `default` is the default"),
        ("columns", "datasets[0].rename_columns", "in a data config, old name: new name"),
        ("interleave_prob", "datasets[0].sampling", "in a data config, a weight for each data set"),
        ("stopping_strategy", "sampling_stopping_strategy"),
        ("dataset_shuffle", "", _ORDER),
        ("train_dataloader_shuffle", "", _ORDER),
        ("shuffle_buffer_size", "shuffle_window", "in tokens"),
        ("packing_length", "pack_length"),
        ("packing_num_proc", "num_workers"),
        ("lazy_tokenize", "", _INSTEAD_OF_CACHE),
        ("load_from_cache_file", "", _NOTHING_CACHED),
        ("download_mode", "", _NOTHING_CACHED),
        ("custom_dataset_info", "data_config_path", "a data config of sftkit"),
        ("custom_register_path", "data_config_path", "a function of your own is a handler in a data config"),
        ("use_chat_template", "dataset_text_field", "a column of text is trained without a template"),
    ),
)
