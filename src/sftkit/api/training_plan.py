"""`sftkit.plan_training`, and what `sftkit train --dry_run` calls with its config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sftkit.api.use_cases import ConfigFiles, checked_settings, restored_transformers_logging
from sftkit.config.commands import TrainConfig
from sftkit.config.reading.python_values import load_values
from sftkit.core.panics import panics_as_errors
from sftkit.errors import ConfigError

if TYPE_CHECKING:
    from sftkit.training.planning.plan_run import TrainingPlan


def plan_training(config: TrainConfig | ConfigFiles | None = None, **keys: Any) -> TrainingPlan:
    """Tell what `train` would do and cost, without training; the same as `sftkit train --dry_run`.

    No weights are loaded, and nothing is written.

    Args:
        config: a config object, or the path of a config file, or several paths; later files win.
        **keys: keys of `sftkit train` and their values, which win over `config`.

    Returns:
        Steps, learning rates, evaluations, checkpoints and cost of the run.

    Raises:
        ConfigError: keys or values are wrong or exclude each other, or the data are not tokenized yet.
        SourceError: a data path cannot be found or read.
        DataError: a row cannot be used; it is named as `path:row`.
        TokenizerError: the tokenizer or the chat template cannot be loaded or used.
        TrainingError: the model, the arguments and the shards do not fit together.

    Example:
        >>> import sftkit
        >>> plan = sftkit.plan_training(
        ...     training_data_path="shards", model_name_or_path="sample:model", init_from_config=True,
        ...     output_dir="model", num_train_epochs=2, per_device_train_batch_size=8, use_cpu=True,
        ... )
        >>> plan.steps.total == 2 * plan.steps.per_epoch
        True
    """
    from sftkit.training.arguments.build_arguments import argument_problems, extra_keys

    settings = load_values(
        TrainConfig, config, {"dry_run": True, **keys}, extra_keys=extra_keys(), check_extra=argument_problems
    )
    return run_plan(settings)


@panics_as_errors()
def run_plan(settings: TrainConfig) -> TrainingPlan:
    """Do what `plan_training` does with a config that is complete."""
    from sftkit.preprocessing.training_shards import find_data
    from sftkit.training.arguments.build_arguments import make_training_arguments
    from sftkit.training.distributed import leave_process_group, world_size

    problems = list(_problems(settings, world_size()))
    if problems:
        raise ConfigError(problems)
    settings = checked_settings(settings)
    arguments = make_training_arguments(settings)
    if not arguments.do_train:
        raise ConfigError("dry_run: with do_train=false there is no training to plan; remove one of them")
    arguments.planned_processes = settings.processes
    data = find_data(settings)
    from sftkit.training.planning.plan_run import plan_run

    with restored_transformers_logging():
        plan = plan_run(settings, arguments, data.shards, data.evaluation_sets)
    leave_process_group()
    return plan


def _problems(settings: TrainConfig, launched: int) -> Iterator[str]:
    if settings.merge_only:
        yield "dry_run: merge_only trains nothing, so there is nothing to plan; remove one of them"
    if not 0 < settings.mfu <= 1:
        yield f"mfu must be above 0 and at most 1, not {settings.mfu:.10g}"
    if settings.price_per_hour is not None and settings.gpu is None:
        yield "price_per_hour needs gpu, which decides how many hours the run takes"
    if launched > 1 and settings.processes not in (None, launched):
        yield (
            f"processes={settings.processes}, but {launched} processes were launched; remove processes, or plan without"
            " a launcher"
        )
