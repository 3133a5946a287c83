"""Make the Trainer of a run, and name what can go wrong in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from transformers import TrainerCallback, TrainingArguments

from sftkit.core.error_text import single_line
from sftkit.errors import ConfigError, OutputError, RequirementError, SftkitError, TrainingError
from sftkit.training.arguments.trackers import tracker_failure
from sftkit.training.loss.batch_loss import BatchLoss
from sftkit.training.trainer import SftTrainer

if TYPE_CHECKING:
    from sftkit.training.data.feed import Feed
    from sftkit.training.setup.model_setup import PreparedModel


def make_trainer(
    arguments: TrainingArguments, prepared: PreparedModel, feed: Feed, callbacks: list[TrainerCallback]
) -> SftTrainer:
    """Make the Trainer of a run.

    Raises:
        ConfigError: the Trainer refuses the arguments.
        RequirementError: it needs a package that is not installed.
        TrainingError: it cannot use them on this machine, or memory runs out.
    """
    try:
        return SftTrainer(
            model=prepared.model,
            arguments=arguments,
            feed=feed,
            loss=BatchLoss(prepared.capabilities.sums_loss, prepared.loss_chunk_size),
            router_loss=prepared.router_loss,
            tokenizer=prepared.tokenizer.tokenizer,
            callbacks=callbacks,
            meter=prepared.meter,
            rates=prepared.rates,
            processor_files=prepared.processor_files,
        )
    except torch.OutOfMemoryError as error:
        raise _out_of_memory() from error
    except ImportError as error:
        raise RequirementError(f"the run cannot be set up: {single_line(error)}") from error
    except ValueError as error:  # training arguments that contradict each other
        raise ConfigError(f"the run cannot be set up: {single_line(error)}") from error
    except (RuntimeError, NotImplementedError, OSError) as error:
        raise TrainingError(f"the run cannot be set up: {single_line(error)}") from error


@contextmanager
def errors_of_a_run(output_dir: str) -> Iterator[None]:
    """Turn what training or evaluation raises into errors that say what to do.

    Raises:
        TrainingError: memory runs out, a tracker fails, or a computation is not available on this device.
        RequirementError: a package is missing.
        OutputError: a file cannot be written.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _out_of_memory() from error
    except OSError as error:
        path = error.filename or output_dir
        raise OutputError(f"{path}: cannot be written or read: {error.strerror or error}") from error
    except SftkitError as error:
        raise _without_traceback(error) from error
    except ImportError as error:
        raise RequirementError(f"transformers needs a package that is not installed: {single_line(error)}") from error
    except NotImplementedError as error:
        raise TrainingError(f"this model cannot be trained here with these settings: {single_line(error)}") from error
    except Exception as error:
        failure = tracker_failure(error)
        if failure is None:
            raise
        raise failure from error


def _without_traceback(error: SftkitError) -> SftkitError:
    """Remove the traceback that DataLoader adds to the message of an error in a worker process."""
    kind = type(error)
    text = str(error)
    return kind(text.rpartition(f"{kind.__name__}: ")[2].strip()) if text.startswith("Caught ") else error


def _out_of_memory() -> TrainingError:
    return TrainingError(
        "the GPU is out of memory: lower per_device_train_batch_size or max_seq_length,"
        " or set gradient_checkpointing=true"
    )
