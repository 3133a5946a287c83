"""The `sftkit` command: three sub-commands; each reads its config, calls one use case, and prints."""

from __future__ import annotations

import gc
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from sftkit import __version__
from sftkit.cli.options import Option, config_command
from sftkit.config.commands import InspectConfig, PreprocessConfig, TrainConfig
from sftkit.core.progress import SilentProgress
from sftkit.core.transformers_import import import_transformers_without_torch
from sftkit.errors import EXIT_BUG, EXIT_INTERRUPTED, SftkitError, UsageError

app = typer.Typer(
    name="sftkit",
    help="Raw fine-tuning data -> training-ready shards -> a trained model.",
    epilog="Every option may also be written key=value, or stand in a YAML file given with --config.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line."""
    try:
        app()
    finally:
        gc.freeze()  # else the interpreter looks through everything once more before it ends


def _training_options() -> list[Option]:
    from sftkit.training.arguments.build_arguments import training_argument_fields

    own = set(TrainConfig.__dataclass_fields__)
    return [
        Option(field.name, field.help, "VALUE", str(field.default or ""), "transformers.TrainingArguments")
        for field in training_argument_fields().values()
        if field.name not in own
    ]


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"sftkit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """What comes before a command."""


@app.command(cls=config_command(PreprocessConfig), options_metavar="[--KEY VALUE | KEY=VALUE]...")
def preprocess(context: typer.Context) -> None:
    """Turn raw data into tokenized, loss-masked, sharded Parquet.

    sftkit preprocess --data_config_path data.yaml --model_name_or_path MODEL --output_dir shards
    """
    with _exit_codes():
        from sftkit.config.loading import load_config
        from sftkit.execution.processes import deferred_interrupts
        from sftkit.preprocessing.worker_warmup import warm_up_workers

        with deferred_interrupts():  # OmegaConf turns an interrupt into an error of its own
            config = load_config(PreprocessConfig, context.args)
        if config.executor == "local":
            warm_up_workers(config)
        _preprocess(config)


@app.command(
    "inspect-shards", cls=config_command(InspectConfig), options_metavar="[DIRECTORY] [--KEY VALUE | KEY=VALUE]..."
)
def inspect_shards(context: typer.Context) -> None:
    """See what the model will see: counts, lengths, and rows token by token with their loss. Or check all of it.

    sftkit inspect-shards shards --rows 3

    sftkit inspect-shards shards --audit --fail_on error

    sftkit inspect-shards shards --verify

    Exit code 0: done, whatever the audit finds; with --fail_on 1 when it finds anything of that level or worse; with
    --verify 1 when anything is not as the manifest says.
    """
    with _exit_codes():
        from sftkit.config.loading import load_config
        from sftkit.execution.processes import deferred_interrupts

        with deferred_interrupts():
            config = load_config(InspectConfig, context.args, first_word="directory")
        _inspect(config)


@app.command(cls=config_command(TrainConfig, _training_options), options_metavar="[--KEY VALUE | KEY=VALUE]...")
def train(context: typer.Context) -> None:
    """Fine-tune a model on shards, on tokenized Parquet, or on a data config.

    sftkit train --training_data_path shards --model_name_or_path MODEL --output_dir out
    """
    with _exit_codes():
        from sftkit.config.loading import load_config
        from sftkit.execution.processes import deferred_interrupts
        from sftkit.training.arguments.build_arguments import argument_problems, extra_keys

        with deferred_interrupts():
            config = load_config(TrainConfig, context.args, extra_keys=extra_keys(), check_extra=argument_problems)
        _train(config)


def _preprocess(config: PreprocessConfig) -> None:
    from sftkit.cli.console.output import printable, results, start_logging
    from sftkit.cli.console.show_preprocess import print_plan, print_result
    from sftkit.cli.console.show_progress import make_progress
    from sftkit.preprocessing.build import find_finished, open_cluster, output_for, run
    from sftkit.preprocessing.planning import check_config, plan

    start_logging(config.log_level)
    check_config(config)
    import_transformers_without_torch()
    with open_cluster(config) as cluster:
        planned = plan(config, cluster)
        if config.dry_run:
            print_plan(planned, results())
        elif find_finished(planned) is not None:
            output_for(planned.config).finish_cleanup()
            typer.echo(printable(f"{config.output_dir}: complete and unchanged, nothing to do"))
        else:
            print_result(run(planned, make_progress(), cluster), config.output_dir, results())


def _inspect(config: InspectConfig) -> None:
    from sftkit.audit.findings import reaches
    from sftkit.cli.console.output import results, start_logging
    from sftkit.cli.console.show_progress import make_progress
    from sftkit.cli.console.show_report import print_report, report_json
    from sftkit.inspection.report import inspect_shards as inspect
    from sftkit.preprocessing.preview import preview_shards
    from sftkit.shards.reading import open_shards

    start_logging(config.log_level)
    if config.verify:
        _verify(config)
        return
    raw = bool(config.datasets or config.training_data_path or config.validation_data_path)
    if raw == bool(config.directory):
        raise UsageError("give either a directory of shards, or a data config (data_config_path) to preview, not both")
    with tempfile.TemporaryDirectory(prefix="sftkit-preview-") as scratch:
        shards = (
            preview_shards(config, Path(scratch))
            if raw
            else open_shards(config.directory or "", config.storage_options)
        )
        report = inspect(config, shards, make_progress())
        if config.format == "json":
            sys.stdout.write(report_json(report) + "\n")
        else:
            print_report(report, config, results())
    if config.fail_on is not None and report.audit is not None and reaches(report.audit.findings, config.fail_on):
        raise typer.Exit(SftkitError.exit_code)


def _verify(config: InspectConfig) -> None:
    from sftkit.cli.console.output import results
    from sftkit.cli.console.show_progress import make_progress
    from sftkit.cli.console.show_verification import print_verification, verification_json
    from sftkit.inspection.verify.verify_dataset import verify

    found = verify(config, make_progress())
    if config.format == "json":
        sys.stdout.write(verification_json(found) + "\n")
    else:
        print_verification(found, results())
    if found.differences:
        raise typer.Exit(SftkitError.exit_code)


def _train(config: TrainConfig) -> None:
    from sftkit.cli.console.output import results, start_logging
    from sftkit.cli.console.show_progress import make_progress
    from sftkit.cli.console.show_training import print_training, show_training
    from sftkit.preprocessing.training_shards import check_training_data, find_or_build_shards
    from sftkit.training.arguments.build_arguments import make_training_arguments
    from sftkit.training.distributed import (
        is_main_process,
        main_process_first,
        report_lost_processes,
        silence_other_processes,
    )

    start_logging(config.log_level)
    check_training_data(config)
    silence_other_processes()
    arguments = make_training_arguments(config)
    with main_process_first() as main:
        shards = find_or_build_shards(config, make_progress() if main else SilentProgress())
    from sftkit.training.run import train

    with show_training() as listener, report_lost_processes():
        report = train(config, arguments, shards, listener)
    if is_main_process():
        print_training(report, results())


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Errors as one short message and the right exit code; only a bug of ours shows a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)  # a terminated run clears up as an interrupted one does
    try:
        yield
    except (typer.Exit, BrokenPipeError):
        raise
    except SftkitError as error:
        from sftkit.cli.console.output import show_error
        from sftkit.training.distributed import main_process_reports_failure

        if not main_process_reports_failure():
            show_error(error)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        from sftkit.training.distributed import is_main_process

        if is_main_process():
            sys.stderr.write("interrupted\n")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as error:
        from sftkit.cli.console.output import show_bug

        show_bug(error)
        raise typer.Exit(EXIT_BUG) from None
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # an interrupt while Python ends would only print a traceback


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
