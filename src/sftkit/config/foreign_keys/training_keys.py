"""Keys of other tools about training: batches, steps, optimizer, checkpoints, logs."""

from __future__ import annotations

from sftkit.config.foreign_keys.foreign_key import (
    AXOLOTL,
    LLAMA_FACTORY,
    MS_SWIFT,
    OPEN_INSTRUCT,
    ForeignKey,
    of,
)

_LAUNCHER = "the launcher sets it: start `sftkit train` by accelerate or torchrun"
_RATE_OF_NAMES = "with a pattern of the names of these parameters"
_ONE_RATE = "all parameters have the same learning_rate"
_NO_SEQUENCE_PARALLELISM = "sequences are not divided over GPUs; use fsdp or deepspeed, and a shorter max_seq_length"
_VARIABLE = "set the environment variable {}, and report_to=wandb"
_NO_GENERATION = "no answers are generated for a metric; see sample_prompts"
_WATCHDOG = "the loss is watched without a threshold, and spikes are reported; see stop_on_nonfinite"
_NOTHING_UPLOADED = "results stay in output_dir; push_to_hub and hub_model_id upload the model"
_LOSS_PER_TOKEN = "the loss is the mean over all trained tokens of a step, as with `sum` there; leave it out"

TRAINING_KEYS: tuple[ForeignKey, ...] = (
    *of(
        AXOLOTL,
        ("micro_batch_size", "per_device_train_batch_size"),
        ("batch_size", "per_device_train_batch_size", "times gradient_accumulation_steps and the number of GPUs"),
        ("eval_batch_size", "per_device_eval_batch_size"),
        ("num_epochs", "num_train_epochs"),
        ("optimizer", "optim"),
        ("lr_scheduler", "lr_scheduler_type"),
        ("cosine_min_lr_ratio", "lr_scheduler_kwargs", "with lr_scheduler_type=cosine_with_min_lr: min_lr_rate"),
        ("lr_quadratic_warmup", "warmup_steps"),
        ("embedding_lr_scale", "embedding_lr", "a learning rate: multiply learning_rate by the scale"),
        ("lr_groups", "learning_rates", "a mapping of patterns of names to learning rates"),
        ("loraplus_lr_embedding", "embedding_lr"),
        ("noisy_embedding_alpha", "neftune_noise_alpha"),
        ("evals_per_epoch", "eval_steps", "below 1 it is a share of the run: 4 times in one epoch is 0.25"),
        ("saves_per_epoch", "save_steps", "below 1 it is a share of the run: 4 times in one epoch is 0.25"),
        ("auto_resume_from_checkpoints", "resume_from_checkpoint", "the same command continues its run; leave it out"),
        ("loss_watchdog_threshold", "", _WATCHDOG),
        ("loss_watchdog_patience", "", _WATCHDOG),
        ("gc_steps", "torch_empty_cache_steps"),
        ("eval_table_size", "sample_prompts", _NO_GENERATION),
        ("eval_max_new_tokens", "sample_max_new_tokens"),
        ("do_causal_lm_eval", "", _NO_GENERATION),
        ("eval_causal_lm_metrics", "", _NO_GENERATION),
        ("do_bench_eval", "", _NO_GENERATION),
        ("bench_dataset", "", _NO_GENERATION),
        ("wandb_project", "report_to", _VARIABLE.format("WANDB_PROJECT")),
        ("wandb_watch", "report_to", _VARIABLE.format("WANDB_WATCH")),
        ("wandb_log_model", "report_to", _VARIABLE.format("WANDB_LOG_MODEL")),
        ("wandb_mode", "report_to", _VARIABLE.format("WANDB_MODE")),
        ("wandb_name", "run_name"),
        ("wandb_run_id", "report_to", _VARIABLE.format("WANDB_RUN_ID")),
        ("use_wandb", "report_to", "`true` is report_to=wandb"),
        ("use_mlflow", "report_to", "`true` is report_to=mlflow"),
        ("mlflow_experiment_name", "report_to", "set the variable MLFLOW_EXPERIMENT_NAME, and report_to=mlflow"),
        ("mlflow_run_name", "run_name"),
        ("use_comet", "report_to", "its values are tensorboard, mlflow, wandb, trackio and aim"),
        ("use_tensorboard", "report_to", "`true` is report_to=tensorboard"),
        ("profiler_steps", "", "use the profiler of PyTorch"),
        ("fsdp_version", "fsdp_config", "write fsdp_config={fsdp_version: 2}"),
        ("fsdp_final_state_dict_type", "fsdp_config", "write fsdp_config={state_dict_type: FULL_STATE_DICT}"),
        ("dp_shard_size", "parallelism_config"),
        ("dp_replicate_size", "parallelism_config"),
        ("tensor_parallel_size", "parallelism_config"),
        ("sequence_parallel_degree", "", _NO_SEQUENCE_PARALLELISM),
        ("heads_k_stride", "", _NO_SEQUENCE_PARALLELISM),
        ("ring_attn_func", "", _NO_SEQUENCE_PARALLELISM),
        ("world_size", "", _LAUNCHER),
        ("ddp", "", _LAUNCHER),
        ("device", "", _LAUNCHER),
        ("use_ray", "", _LAUNCHER),
        ("hf_use_auth_token", "hub_token", "or set the environment variable HF_TOKEN"),
        ("strict", "", "unknown keys are always errors; leave it out"),
        ("plugins", "", "packages extend sftkit by entry points; leave it out"),
        ("fp8", "", "fp8 is not supported; use bf16=true"),
    ),
    *of(f"{AXOLOTL}, {MS_SWIFT}", ("context_parallel_size", "", _NO_SEQUENCE_PARALLELISM)),
    *of(
        f"{AXOLOTL}, {OPEN_INSTRUCT}",
        ("wandb_entity", "report_to", _VARIABLE.format("WANDB_ENTITY")),
    ),
    *of(f"TRL, {MS_SWIFT}", ("loss_type", "", "the loss is the cross entropy of the trained tokens; leave it out")),
    *of(
        "TRL",
        ("gradient_checkpointing_use_reentrant", "use_reentrant"),
        ("use_liger", "use_liger_kernel"),
        ("ignore_bias_buffers", "", "it is not needed; leave it out"),
    ),
    *of(
        OPEN_INSTRUCT,
        ("exp_name", "run_name"),
        ("clip_grad_norm", "max_grad_norm"),
        ("reduce_loss", "", _LOSS_PER_TOKEN),
        ("max_train_steps", "max_steps"),
        ("checkpointing_steps", "save_steps", "`epoch` is save_strategy=epoch"),
        ("keep_last_n_checkpoints", "save_total_limit"),
        ("do_not_randomize_output_dir", "output_dir", "it is used as it is given; leave this key out"),
        ("use_8bit_optimizer", "optim", "`true` is optim=adamw_8bit"),
        ("fused_optimizer", "optim", "`true` is optim=adamw_torch_fused"),
        ("timeout", "ddp_timeout", "in seconds"),
        ("with_tracking", "report_to", "`true` is report_to=wandb"),
        ("wandb_project_name", "report_to", _VARIABLE.format("WANDB_PROJECT")),
        ("save_to_hub", "hub_model_id", "with push_to_hub=true"),
        ("hf_entity", "hub_model_id", "with push_to_hub=true"),
        ("hf_repo_id", "hub_model_id", "with push_to_hub=true"),
        ("hf_repo_revision", "hub_revision"),
        ("hf_repo_url", "hub_model_id", "with push_to_hub=true"),
        ("hf_metadata_dataset", "", _NOTHING_UPLOADED),
        ("try_launch_beaker_eval_jobs", "", _NOTHING_UPLOADED),
        ("try_auto_save_to_beaker", "", _NOTHING_UPLOADED),
        ("gs_bucket_path", "", _NOTHING_UPLOADED),
        ("oe_eval_tasks", "", _NOTHING_UPLOADED),
        ("oe_eval_max_length", "", _NOTHING_UPLOADED),
        ("load_balancing_loss", "router_aux_loss_coef", "a factor above 0 turns the loss on"),
        ("load_balancing_weight", "router_aux_loss_coef"),
        ("final_lr_ratio", "lr_scheduler_kwargs", "with lr_scheduler_type=cosine_with_min_lr: min_lr_rate"),
        ("sync_each_batch", "", _LAUNCHER),
    ),
    *of(
        f"{LLAMA_FACTORY}, {MS_SWIFT}",
        ("use_galore", "optim", "`true` is optim=galore_adamw, with optim_target_modules"),
        ("use_swanlab", "report_to", "its values are tensorboard, mlflow, wandb, trackio and aim"),
    ),
    *of(
        LLAMA_FACTORY,
        ("plot_loss", "", "training_curve.png is always written; leave it out"),
        ("use_badam", "optim", "its values are those of transformers"),
        ("use_apollo", "optim", "`true` is optim=apollo_adamw, with optim_target_modules"),
        ("use_adam_mini", "optim", "its values are those of transformers"),
        ("use_muon", "optim", "`true` is optim=muon"),
        ("use_dft_loss", "", "the loss is the cross entropy of the trained tokens"),
        ("use_llama_pro", "freeze", "it names the parameters that are not trained"),
        ("moe_aux_loss_coef", "router_aux_loss_coef"),
        ("include_effective_tokens_per_second", "", "tokens per second are always logged; leave it out"),
        ("compute_accuracy", "", _NO_GENERATION),
        ("early_stopping_steps", "early_stopping_patience", "in evaluations"),
        ("predict_with_generate", "", _NO_GENERATION),
        ("print_param_status", "", "a message before the first step says what is trained; leave it out"),
    ),
    *of(
        MS_SWIFT,
        ("lorap_lr_ratio", "loraplus_lr_ratio"),
        ("resume_only_model", "model_name_or_path", "name the checkpoint as the model"),
        ("acc_strategy", "", _NO_GENERATION),
        ("sequence_parallel_size", "", _NO_SEQUENCE_PARALLELISM),
        ("create_checkpoint_symlink", "", "checkpoints are in output_dir by their step; leave it out"),
        ("add_version", "output_dir", "it is used as it is given; leave this key out"),
        ("vit_lr", "learning_rates", _RATE_OF_NAMES),
        ("aligner_lr", "learning_rates", _RATE_OF_NAMES),
    ),
)

USUAL_TRAINING_ARGUMENTS = frozenset(
    {"learning_rate", "num_train_epochs", "max_steps", "optim", "weight_decay", "adam_beta1", "adam_beta2"}
    | {"adam_epsilon", "max_grad_norm", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio"}
    | {"per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"}
    | {"gradient_checkpointing", "gradient_checkpointing_kwargs", "bf16", "fp16", "tf32", "torch_compile"}
    | {"logging_steps", "logging_dir", "report_to", "run_name", "eval_strategy", "eval_steps", "save_strategy"}
    | {"save_steps", "save_total_limit", "save_only_model", "load_best_model_at_end", "resume_from_checkpoint"}
    | {"push_to_hub", "hub_model_id", "hub_token", "deepspeed", "fsdp", "fsdp_config", "ddp_timeout"}
    | {"neftune_noise_alpha", "use_liger_kernel", "group_by_length", "dataloader_num_workers", "do_train", "do_eval"}
    | {"remove_unused_columns", "overwrite_output_dir", "auto_find_batch_size", "seed", "local_rank"}
)
"""Keys of `sftkit train` that all these tools have. Other commands name them without reading those of transformers."""
