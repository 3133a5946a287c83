"""What the processes of one run must agree on: who logs, who works first, and which launcher settings apply."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sftkit.errors import TrainingError

if TYPE_CHECKING:
    from transformers import TrainingArguments

_log = logging.getLogger(__name__)

# Building a large data set takes hours, so a long wait is not a sign of a failure.
_WAIT_TIMEOUT = timedelta(days=30)

# Launchers end the other processes within a second of the first failure.
_FAILURE_GRACE = 5.0  # seconds

_GLOO_PAUSE = 0.2  # seconds

_USE_FSDP = "ACCELERATE_USE_FSDP"
_USE_DEEPSPEED = "ACCELERATE_USE_DEEPSPEED"
_USE_PARALLELISM = "ACCELERATE_USE_PARALLELISM_CONFIG"


def is_main_process() -> bool:
    """Whether this is the first of the processes that a launcher started; true without a launcher."""
    return os.environ.get("RANK", "0") in ("", "0")


def world_size() -> int:
    """How many processes a launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def warn_on_main_process(logger: logging.Logger, message: str) -> None:
    """Log a warning in the main process only, so that eight processes do not log it eight times."""
    if is_main_process():
        logger.warning(message)


def silence_other_processes() -> None:
    """Keep every process except the main one from repeating warnings of Python and the libraries."""
    if not is_main_process():
        warnings.simplefilter("ignore")
        for name in ("accelerate", "torch", "transformers"):
            logging.getLogger(name).setLevel(logging.ERROR)


def accelerator_available() -> bool:
    """Whether torch can compute on something other than the CPU."""
    import torch

    return bool(torch.accelerator.is_available())


def disable_fsdp_on_cpu(use_cpu: bool = False) -> None:
    """Undo `accelerate launch --use_fsdp` for a run on the CPU; do nothing on an accelerator.

    accelerate does not set up FSDP without an accelerator, but `fsdp_cpu_ram_efficient_loading` would stay in effect:
    every process except the first would load empty weights and expect FSDP to send the real ones. Both are turned off
    in this process, and the processes train data-parallel (DDP over gloo).

    Args:
        use_cpu: the run computes on the CPU even if there is an accelerator.
    """
    if os.environ.get(_USE_FSDP, "false").lower() not in ("true", "1"):
        return
    if use_cpu or not accelerator_available():
        os.environ[_USE_FSDP] = "false"
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        os.environ[_USE_PARALLELISM] = "false"  # which processes share a copy of the model
        warn_on_main_process(
            _log, "FSDP needs a GPU and this run has none: the processes train data-parallel on the CPU instead"
        )


@contextmanager
def main_process_first() -> Iterator[bool]:
    """Run the block in the main process while the others wait, then in the others; yields whether this is the main one.

    If the block raises in the main process, the others raise too, so that no process waits forever.

    Raises:
        TrainingError: in a waiting process, when the main process failed or was ended.
    """
    if world_size() == 1:
        yield True
        return
    import torch.distributed as dist
    from accelerate import PartialState

    if not dist.is_initialized():
        PartialState()
    # A separate group: gloo exists on every machine, and the timeout of the run's own group stays as configured.
    group = dist.new_group(backend="gloo", timeout=_WAIT_TIMEOUT)
    try:
        if is_main_process():
            failed = True
            try:
                yield True
                failed = False
            finally:
                _share_outcome(failed, group)
        else:
            if _share_outcome(False, group):
                raise TrainingError("the main process failed while this one waited for it; see its error message")
            yield False
    finally:
        dist.destroy_process_group(group)


def _share_outcome(failed: bool, group: object) -> bool:
    """Wait for the other processes; whether the main one failed."""
    import torch
    import torch.distributed as dist

    outcome = torch.tensor([int(failed)])
    try:
        dist.all_reduce(outcome, group=group)
    except RuntimeError:  # gloo: the other end of the connection has closed
        return True
    return bool(outcome.item())


def leave_process_group() -> None:
    """Shut down communication once all processes are done; every process must call it.

    With torch 2.13, gloo's own threads need the GIL to release a tensor that Python has sent, and hold the lock of the
    group meanwhile. A process that frees its DDP model within those milliseconds deadlocks, and one that ends is
    aborted, in about one run of five. The barrier and the pause wait without the GIL, so gloo's threads can finish. The
    gloo group is then left to the end of the process; NCCL requires that its group is destroyed. A busy machine may
    stop a thread of gloo for longer than the pause: `sftkit.cli.process_exit` keeps the command from being aborted
    then.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return
    dist.barrier()
    if dist.get_backend() == dist.Backend.GLOO:
        time.sleep(_GLOO_PAUSE)
    else:
        dist.destroy_process_group()


def main_process_reports_failure() -> bool:
    """Whether the main process has failed too and reports the error; always False, at once, in the main process.

    The processes of a launch usually fail with the same error, and one message is enough. But a launcher ends all
    processes as soon as the first one fails: if that is not the main process, no error would be shown at all. So the
    others wait some seconds for the main process to fail first, which makes the launcher end them. A process that is
    not ended in that time failed alone and must report its error itself.
    """
    if is_main_process():
        return False
    try:
        time.sleep(_FAILURE_GRACE)
    except KeyboardInterrupt:  # the launcher's signal is turned into this
        return True
    return False


@contextmanager
def report_lost_processes() -> Iterator[None]:
    """Replace the connection errors of gloo and NCCL by a message that another process of the run has ended.

    Raises:
        TrainingError: in place of a connection error.
    """
    try:
        yield
    except RuntimeError as error:
        import torch.distributed as dist

        if world_size() == 1 or not (isinstance(error, dist.DistError) or "gloo/transport" in str(error)):
            raise
        raise TrainingError(
            "another process of this run has ended, and this one cannot continue alone; see the error message of that "
            "process, or the launcher's summary"
        ) from error


def uses_deepspeed(arguments: TrainingArguments) -> bool:
    """Whether DeepSpeed runs the training, as a training argument or the launcher says."""
    return os.environ.get(_USE_DEEPSPEED, "false").lower() in ("true", "1") or bool(
        getattr(arguments, "deepspeed", None)
    )


def uses_fsdp(arguments: TrainingArguments) -> bool:
    """Whether FSDP shards the model, as a training argument or the launcher says."""
    return os.environ.get(_USE_FSDP, "false").lower() in ("true", "1") or bool(getattr(arguments, "fsdp", None))


def parallel_size(arguments: TrainingArguments, name: str) -> int:
    """A size (such as `tp_size`) in `parallelism_config`, or in the environment that a launcher made."""
    given = getattr(arguments, "parallelism_config", None)
    if given is not None:
        return int(getattr(given, name, None) or 1)
    if os.environ.get(_USE_PARALLELISM, "false").lower() != "true":
        return 1
    return int(os.environ.get(f"PARALLELISM_CONFIG_{name.upper()}") or 1)


def weights_are_sharded(arguments: TrainingArguments) -> bool:
    """Whether each process holds only a part of the model (FSDP, DeepSpeed, tensor parallelism)."""
    return uses_fsdp(arguments) or uses_deepspeed(arguments) or parallel_size(arguments, "tp_size") > 1


def keep_float32_losses(plugin: Any) -> None:
    """Keep losses and sums of gradients in float32; with FSDP2, accelerate would compute both in 16 bits."""
    import torch

    if plugin.fsdp_version == 2 and plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = replace(
            plugin.mixed_precision_policy, output_dtype=None, reduce_dtype=torch.float32
        )
