"""`sftkit.preprocess` and `sftkit.train`, and what the commands call with their config."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from sftkit.config.commands import PreprocessConfig, TrainConfig
from sftkit.config.reading.python_values import load_values
from sftkit.core.panics import panics_as_errors
from sftkit.core.progress import Progress, SilentProgress
from sftkit.core.startup.transformers_import import import_transformers
from sftkit.errors import ConfigError

if TYPE_CHECKING:
    from sftkit.preprocessing.plan.plan import Plan
    from sftkit.shards.manifest import Manifest
    from sftkit.training.callbacks.listener import RunListener
    from sftkit.training.training_report import TrainingReport

StrPath: TypeAlias = "str | os.PathLike[str]"
ConfigFiles: TypeAlias = "StrPath | Sequence[StrPath]"


@dataclass(frozen=True)
class PreprocessResult:
    """The outcome of `sftkit.preprocess`."""

    output_dir: str
    """Where the shards are: a directory or a URL."""

    manifest: Manifest | None
    """Describes the shards and accounts for every row; None after a dry run."""

    ran: bool
    """Whether rows were processed: False after a dry run, and when `output_dir` already held exactly these shards."""

    plan: Plan
    """The sources, work units and handlers of the run."""


def preprocess(
    config: PreprocessConfig | ConfigFiles | None = None, *, progress: Progress | None = None, **keys: Any
) -> PreprocessResult:
    """Turn raw data into tokenized, loss-masked, sharded Parquet; the same as `sftkit preprocess`.

    Args:
        config: a config object, or the path of a config file, or several paths; later files win.
        progress: receives the progress of the run; without it nothing is shown.
        **keys: keys of `sftkit preprocess` and their values, which win over `config`. Sections are mappings or config
            objects (`datasets=[{"name": "pairs", ...}]`, `dataprocessor={"seed": 1}`).

    Returns:
        The manifest of the shards, and whether anything had to be done.

    Raises:
        ConfigError: keys or values are wrong; all of them are named.
        SourceError: a data path cannot be found or read.
        DataError: too many rows cannot be used, or no rows are left.
        TokenizerError: the tokenizer or the chat template cannot be loaded or used.
        OutputError: `output_dir` cannot be written, or holds another data set.

    Example:
        >>> import sftkit
        >>> result = sftkit.preprocess(
        ...     data_config_path="sample:data_config.yaml", model_name_or_path="sample:model", output_dir="out"
        ... )
        >>> result.ran, result.manifest.rows_written
        (True, 640)
    """
    return run_preprocess(load_values(PreprocessConfig, config, keys), progress)


@panics_as_errors()
def run_preprocess(settings: PreprocessConfig, progress: Progress | None = None) -> PreprocessResult:
    """Do what `preprocess` does with a config that is complete: its data config is merged already."""
    from sftkit.preprocessing.appending.addition import plan_addition
    from sftkit.preprocessing.build import find_finished, open_cluster, output_for, run
    from sftkit.preprocessing.plan.template_date import keep_template_date
    from sftkit.preprocessing.planning import check_config, plan
    from sftkit.sources.discovery.overlap import check_directories_apart, check_sources_stay
    from sftkit.tokenization.loading.tokenizer_loading import check_tokenizer_name

    check_config(settings)
    check_tokenizer_name(settings)
    check_directories_apart(settings.output_dir, settings)
    import_transformers()
    with open_cluster(settings) as cluster:
        planned = plan(settings, cluster)
        check_sources_stay(settings.output_dir, settings, (each.file for each in planned.files))
        planned = keep_template_date(planned, output_for(planned.config))
        addition = plan_addition(planned, output_for(planned.config)) if settings.append else None
        planned = planned if addition is None else addition.plan
        if settings.dry_run:
            return PreprocessResult(settings.output_dir, None, False, planned)
        if addition is not None and not planned.files:
            output_for(planned.config).finish_cleanup()
            return PreprocessResult(settings.output_dir, addition.base, False, planned)
        existing = find_finished(planned) if addition is None else None
        if existing is not None:
            output_for(planned.config).finish_cleanup()
            return PreprocessResult(settings.output_dir, existing, False, planned)
        manifest = run(planned, progress or SilentProgress(), cluster, addition)
        return PreprocessResult(settings.output_dir, manifest, True, planned)


def train(
    config: TrainConfig | ConfigFiles | None = None,
    *,
    progress: Progress | None = None,
    listener: RunListener | None = None,
    **keys: Any,
) -> TrainingReport:
    """Fine-tune a model on shards, on tokenized Parquet or on a data config; the same as `sftkit train`.

    Every process of a launch (`torchrun`, `accelerate launch`) calls it.

    Args:
        config: a config object, or the path of a config file, or several paths; later files win.
        progress: receives the progress of building shards from raw data; without it nothing is shown.
        listener: receives the steps, log events and samples of the run, in the main process.
        **keys: keys of `sftkit train`, those of `transformers.TrainingArguments` included, and their values, which
            win over `config`.

    Returns:
        Steps, losses, times and counts of the run.

    Raises:
        ConfigError: keys or values are wrong or exclude each other; all of them are named.
        SourceError: a data path cannot be found or read.
        DataError: a row cannot be used; it is named as `path:row`.
        TokenizerError: the tokenizer or the chat template cannot be loaded or used.
        TrainingError: the model, the arguments and the shards do not fit together, or memory runs out.
        OutputError: `output_dir` cannot be written.

    Example:
        >>> import sftkit
        >>> report = sftkit.train(
        ...     training_data_path="shards", model_name_or_path="sample:model", init_from_config=True,
        ...     output_dir="model", max_steps=10, learning_rate=1e-3, logging_steps=1, use_cpu=True,
        ... )
        >>> report.steps, report.last_loss < report.first_loss
        (10, True)
    """
    from sftkit.training.arguments.build_arguments import argument_problems, extra_keys

    settings = load_values(TrainConfig, config, keys, extra_keys=extra_keys(), check_extra=argument_problems)
    return run_train(settings, progress, listener)


@panics_as_errors()
def run_train(
    settings: TrainConfig, progress: Progress | None = None, listener: RunListener | None = None
) -> TrainingReport:
    """Do what `train` does with a config that is complete."""
    from sftkit.training.callbacks.listener import tell_phase

    tell_phase(listener, "loading torch and transformers")
    from sftkit.preprocessing.training_shards import find_or_build_data
    from sftkit.training.arguments.build_arguments import make_training_arguments
    from sftkit.training.distributed import main_process_first, report_lost_processes

    if settings.do_dataprocessing_only:
        raise ConfigError("do_dataprocessing_only: there is no training to report; call sftkit.preprocess instead")
    if settings.merge_only:
        raise ConfigError("merge_only: there is no training to report; call sftkit.merge_adapters instead")
    if settings.dry_run:
        raise ConfigError("dry_run: there is no training to report; call sftkit.plan_training instead")
    if settings.processes is not None:
        raise ConfigError("processes is only for dry_run; start several processes with torchrun or accelerate launch")
    settings = checked_settings(settings)
    arguments = make_training_arguments(settings)
    if settings.user_callbacks:
        from sftkit.training.callbacks.user_callbacks import find_user_callbacks

        find_user_callbacks(settings.user_callbacks)  # errors are found before data are built
    tell_phase(listener, "looking for the data")
    with main_process_first() as is_main:
        data = find_or_build_data(settings, progress if is_main and progress is not None else SilentProgress())
    tell_phase(listener, "loading the Trainer")
    from sftkit.training.run import train as run_training

    with report_lost_processes(), restored_transformers_logging():
        return run_training(settings, arguments, data.shards, listener, data.evaluation_sets)


def checked_settings(settings: TrainConfig) -> TrainConfig:
    """Check a complete config of `train` before anything is built or loaded, and complete it from its adapters.

    Raises:
        ConfigError: keys exclude each other.
        TokenizerError, TrainingError, OutputError: a model, tokenizer, adapter or directory cannot be used.
    """
    from sftkit.preprocessing.training_shards import check_training_data
    from sftkit.tokenization.loading.tokenizer_loading import check_tokenizer_name
    from sftkit.training.adapters.adapter_choice import with_adapters
    from sftkit.training.arguments.build_arguments import check_packages
    from sftkit.training.arguments.fms_arguments import with_fms_arguments
    from sftkit.training.distributed import silence_other_processes
    from sftkit.training.loading.model_settings import check_stored_quantization
    from sftkit.training.models.model_name import check_model_name
    from sftkit.training.setup.output_check import check_training_output

    settings = with_fms_arguments(settings)
    check_training_data(settings)
    check_training_output(settings)
    check_packages(settings)
    settings = with_adapters(settings)
    check_model_name(settings)
    check_stored_quantization(settings)
    check_tokenizer_name(settings)
    silence_other_processes()
    return settings


@contextmanager
def restored_transformers_logging() -> Iterator[None]:
    """Restore the verbosity and the progress bars of transformers, which a run sets for itself."""
    from transformers.utils import logging

    verbosity, shows_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows_bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
