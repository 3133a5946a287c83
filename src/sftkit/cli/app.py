"""The `sftkit` command. Each of its three commands reads a config, calls a function of the Python API, and prints."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperGroup

from sftkit import __version__
from sftkit.cli.console.option import Option
from sftkit.cli.options import HELP, HELP_ALL, ExtraOptions, config_command, shown_default
from sftkit.cli.process_exit import exit_before_finalization
from sftkit.config.commands import InspectConfig, PreprocessConfig, TrainConfig, to_processing_only
from sftkit.core.startup.garbage_collection import paused_garbage_collection
from sftkit.core.startup.transformers_import import leave_out_torch, quiet_libraries
from sftkit.errors import EXIT_BUG, EXIT_INTERRUPTED, SftkitError, TrainingError
from sftkit.training.arguments.usual_arguments import OWN_DEFAULTS, USUAL_ARGUMENTS

if TYPE_CHECKING:
    from rich.console import Console

    from sftkit.cli.console.show_phases import Phases

T = TypeVar("T")

app = typer.Typer(
    name="sftkit",
    help="Turn raw fine-tuning data into training-ready shards, inspect them, and train on them.",
    epilog="Options can also be written as key=value, or given in a YAML file with --config.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line."""
    is_one_of_several = os.environ.get("WORLD_SIZE", "1") not in ("", "1")
    with exit_before_finalization() if is_one_of_several else nullcontext():
        _run_command()


def _run_command() -> None:
    try:
        group = typer.main.get_command(app)
        name, arguments = next(iter(sys.argv[1:]), ""), sys.argv[2:]
        if isinstance(group, TyperGroup) and name in group.commands and {*HELP, *HELP_ALL}.isdisjoint(arguments):
            group.commands[name].main(arguments)  # the group would import pydantic to parse options before the command
        else:
            group.main()
    finally:
        gc.freeze()  # skips a last garbage collection at exit


def _training_options() -> list[Option]:
    from sftkit.training.arguments.build_arguments import training_argument_fields
    from sftkit.training.arguments.fms_arguments import FMS_ARGUMENTS

    own = set(TrainConfig.__dataclass_fields__)
    fields = {name: field for name, field in training_argument_fields().items() if name not in own}
    usual = [name for name in USUAL_ARGUMENTS if name in fields]
    others = [name for name in fields if name not in USUAL_ARGUMENTS]
    return [
        Option(
            name=name,
            help=USUAL_ARGUMENTS.get(name, fields[name].help),
            kind=fields[name].kind,
            default=shown_default(OWN_DEFAULTS[name]) if name in OWN_DEFAULTS else fields[name].shown_default,
            panel="Training" if name in USUAL_ARGUMENTS else _OF_FMS if name in FMS_ARGUMENTS else _OF_TRANSFORMERS,
            choices=fields[name].choices,
        )
        for name in [*usual, *others]
    ]


_OF_TRANSFORMERS, _OF_FMS = "All other fields of transformers.TrainingArguments", "Of fms-hf-tuning"
_OF_THE_TRAINER = ExtraOptions(
    _training_options,
    USUAL_ARGUMENTS,
    "Every other field of transformers.TrainingArguments is an option, too: sftkit train --help_all shows all of them.",
)


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
    """Options before a command."""


@app.command(cls=config_command(PreprocessConfig), options_metavar="[--KEY VALUE | KEY=VALUE]...")
def preprocess(context: typer.Context) -> None:
    """Turn raw data into tokenized, loss-masked, sharded Parquet.

    sftkit preprocess --data_config_path data.yaml --model_name_or_path MODEL --output_dir shards
    """
    with _exit_codes():
        _preprocess(_load(PreprocessConfig, context))


def _preprocess(config: PreprocessConfig) -> None:
    quiet_libraries(config.log_level)
    if config.executor == "local":
        from sftkit.preprocessing.worker_warmup import warm_up_workers

        warm_up_workers(config)  # they start up while this process plans
    with paused_garbage_collection():
        from sftkit.api.use_cases import run_preprocess
        from sftkit.cli.console.output import results, start_logging
        from sftkit.cli.console.reports.show_preprocess import print_outcome
        from sftkit.cli.console.show_progress import make_progress

    start_logging(config.log_level)
    leave_out_torch()
    print_outcome(run_preprocess(config, make_progress()), results())


@app.command(
    "inspect-shards", cls=config_command(InspectConfig), options_metavar="[DIRECTORY] [--KEY VALUE | KEY=VALUE]..."
)
def inspect_shards(context: typer.Context) -> None:
    """Show shards as the model will see them: counts, lengths, and rows token by token; or check every row.

    sftkit inspect-shards shards --rows 3

    sftkit inspect-shards shards --audit --fail_on error

    sftkit inspect-shards shards --report report.html

    sftkit inspect-shards shards --verify

    sftkit inspect-shards before --compare after --fail_on_difference

    The exit code is 0, whatever the audit finds. With --fail_on it is 1 when there are findings of that level or
    worse, with --verify when anything differs from the manifest, and with --fail_on_difference when any row differs.
    """
    with _exit_codes():
        config = _load(InspectConfig, context, first_word="directory")
        quiet_libraries(config.log_level)
        from sftkit.api.inspection import run_inspect
        from sftkit.cli.console.output import results, start_logging
        from sftkit.cli.console.reports.show_report import has_failed, print_inspection
        from sftkit.cli.console.show_progress import make_progress
        from sftkit.inspection.page.page_file import PageError

        start_logging(config.log_level)
        leave_out_torch()
        try:
            found = run_inspect(config, make_progress())
        except PageError as error:
            print_inspection(error.found, replace(config, report=None), results())
            raise
        print_inspection(found, config, results())
        if has_failed(found, config):
            raise typer.Exit(SftkitError.exit_code)


@app.command(cls=config_command(TrainConfig, _OF_THE_TRAINER), options_metavar="[--KEY VALUE | KEY=VALUE]...")
def train(context: typer.Context) -> None:
    """Fine-tune a model on shards, on tokenized Parquet, or on a data config.

    sftkit train --training_data_path shards --model_name_or_path MODEL --output_dir out

    Before a run, --dry_run prints its steps, learning rates and cost:

    sftkit train ... --dry_run true --processes 8 --gpu H100 --mfu 0.4 --price_per_hour 3
    """
    with _exit_codes():
        from sftkit.cli.console.output import messages
        from sftkit.cli.console.show_phases import NoPhases, show_phases
        from sftkit.training.distributed import is_main_process

        console = messages()
        with show_phases(console) if is_main_process() else nullcontext(NoPhases()) as phases:
            phases.show("reading the config")
            from sftkit.training.arguments.build_arguments import argument_problems, extra_keys

            config = _load(TrainConfig, context, extra_keys=extra_keys(), check_extra=argument_problems)
            quiet_libraries(config.log_level)
            if config.do_dataprocessing_only:
                phases.hide()
                if is_main_process():
                    _preprocess(to_processing_only(config))
                return
            _train(config, console, phases)


def _train(config: TrainConfig, console: Console, phases: Phases) -> None:
    """Train, or do what a config of `train` asks for instead, and print the results.

    Raises:
        TrainingError: the run diverged. Other errors are those of the Python API.
    """
    phases.show("loading torch and transformers")
    from sftkit.api.adapter_merging import run_merge
    from sftkit.api.use_cases import run_train
    from sftkit.cli.console.output import results, start_logging
    from sftkit.cli.console.reports.training.show_training import print_merge, print_training, show_training
    from sftkit.cli.console.show_phases import ProgressAmongPhases
    from sftkit.cli.console.show_progress import make_progress
    from sftkit.training.distributed import is_main_process

    start_logging(config.log_level)
    if config.merge_only:
        if is_main_process():
            folder = run_merge(config)
            phases.hide()
            print_merge(folder, results())
        return
    if config.dry_run:
        from sftkit.api.training_plan import run_plan

        planned = run_plan(config)
        phases.hide()
        if is_main_process():
            from sftkit.cli.console.reports.training.show_training_plan import print_training_plan

            print_training_plan(planned, results())
        return
    with show_training(console, phases) as listener:
        progress = ProgressAmongPhases(make_progress(), phases, "preparing the data")
        report = run_train(config, progress, listener)
    phases.hide()
    if is_main_process():
        print_training(report, results())
    if report.diverged_at is not None:
        raise TrainingError(
            f"the run diverged: its loss is not finite since step {report.diverged_at}, and the weights that it "
            "saved are of no use; lower learning_rate, or set max_grad_norm"
        )


def _load(
    schema: type[T],
    context: typer.Context,
    *,
    first_word: str | None = None,
    extra_keys: Mapping[str, Any] | None = None,
    check_extra: Callable[[Mapping[str, Any]], list[str]] = lambda _: [],
) -> T:
    """Load the config of a command from its command line; the other arguments are those of `load_config`."""
    from sftkit.config.loading import load_config
    from sftkit.execution.processes import deferred_interrupts

    with deferred_interrupts():  # OmegaConf turns an interrupt into an error of its own
        return load_config(schema, context.args, first_word=first_word, extra_keys=extra_keys, check_extra=check_extra)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turn errors into a short message and an exit code. Only a bug shows a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)  # clean up as after Ctrl-C
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
        if "sftkit.cli.console.output" in sys.modules:
            from sftkit.cli.console.output import finish_logging

            finish_logging()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a late signal would only print a traceback


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
