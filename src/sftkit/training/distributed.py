"""One run, several processes: who speaks, who works first, and what the launcher asked for that cannot be had."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from sftkit.errors import TrainingError

if TYPE_CHECKING:
    from transformers import TrainingArguments

_log = logging.getLogger(__name__)

# Building a large data set takes hours; waiting for it is no sign of a fault.
_PATIENCE = timedelta(days=30)

# Launchers end the other processes within a second of the first failure.
_GRACE = 5.0  # seconds

_LAUNCHED_WITH_FSDP = "ACCELERATE_USE_FSDP"
_DEEPSPEED = "ACCELERATE_USE_DEEPSPEED"


def is_main_process() -> bool:
    """Whether this process is the first of those that a launcher started (true without a launcher)."""
    return os.environ.get("RANK", "0") in ("", "0")


def world_size() -> int:
    """How many processes a launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def warn_on_main_process(logger: logging.Logger, message: str) -> None:
    """Log a warning from the main process alone, so that eight processes do not say it eight times."""
    if is_main_process():
        logger.warning(message)


def silence_other_processes() -> None:
    """Keep every process but the main one from repeating Python's and the libraries' warnings."""
    if not is_main_process():
        warnings.simplefilter("ignore")
        for name in ("accelerate", "torch", "transformers"):
            logging.getLogger(name).setLevel(logging.ERROR)


def accelerator_available() -> bool:
    """Whether torch can compute on something other than the CPU."""
    import torch

    return bool(torch.accelerator.is_available())


def disable_fsdp_on_cpu(use_cpu: bool = False) -> None:
    """On the CPU, take back what `accelerate launch --use_fsdp` has asked for; on anything else, do nothing.

    accelerate refuses to set up FSDP where there is no accelerator. Its other half would still be on: with
    `fsdp_cpu_ram_efficient_loading` every process but the first may load empty weights, counting on FSDP to send them
    the real ones. Both are turned off in this process, and the processes train data-parallel (DDP over gloo).

    Args:
        use_cpu: the run computes on the CPU although there may be an accelerator.
    """
    if os.environ.get(_LAUNCHED_WITH_FSDP, "false").lower() not in ("true", "1"):
        return
    if use_cpu or not accelerator_available():
        os.environ[_LAUNCHED_WITH_FSDP] = "false"
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        os.environ["ACCELERATE_USE_PARALLELISM_CONFIG"] = "false"  # which of them share a copy of the model
        warn_on_main_process(
            _log, "FSDP needs a GPU and this run has none: the processes train data-parallel on the CPU instead"
        )


@contextmanager
def main_process_first() -> Iterator[bool]:
    """The main process runs the block while the others wait, then they run it too; yields whether this is main.

    A block that raises in the main process makes the others raise as well, so that no process waits for ever.

    Raises:
        TrainingError: in a process that waited, when the main process failed or was ended.
    """
    if world_size() == 1:
        yield True
        return
    import torch.distributed as dist
    from accelerate import PartialState

    if not dist.is_initialized():
        PartialState()
    # A group of its own: gloo is there on every machine, and the run's own timeout stays as it was asked for.
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    try:
        if is_main_process():
            failed = True
            try:
                yield True
                failed = False
            finally:
                _tell(failed, group)
        else:
            if _tell(False, group):
                raise TrainingError("the main process failed while this one waited for it; its message says why")
            yield False
    finally:
        dist.destroy_process_group(group)


def _tell(failed: bool, group: object) -> bool:
    """Meet the other processes; whether the main one failed."""
    import torch
    import torch.distributed as dist

    outcome = torch.tensor([int(failed)])
    try:
        dist.all_reduce(outcome, group=group)
    except RuntimeError:  # gloo: the other end of the connection has gone
        return True
    return bool(outcome.item())


def leave_process_group() -> None:
    """End what the processes have in common, once all of them are done; every process must call it.

    gloo's own thread needs the GIL to let go of a tensor that Python has sent, and holds the group's lock meanwhile
    (torch 2.13). A process that goes on to free its DDP model, or to exit, within those milliseconds waits for ever or
    is aborted: about one run in five. The barrier, which waits without the GIL and sends no tensor, lets it finish.
    gloo's group is then left to the end of the process; NCCL asks for its own to be destroyed.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return
    dist.barrier()
    if dist.get_backend() != dist.Backend.GLOO:
        dist.destroy_process_group()


def main_process_reports_failure() -> bool:
    """Whether the main process has failed as well, and so has said why; returns at once in the main process (False).

    The processes of a launch mostly make the same mistake, and one message is enough. But a launcher ends them all as
    soon as the first has failed: if that were another than the main one, nobody would say anything. So the others give
    it some seconds to fail first. Who is not ended by then has failed alone, and must say so itself.
    """
    if is_main_process():
        return False
    try:
        time.sleep(_GRACE)
    except KeyboardInterrupt:  # what the launcher's signal becomes
        return True
    return False


@contextmanager
def report_lost_processes() -> Iterator[None]:
    """Say in a sentence that another process of the run has gone, where gloo and NCCL tell of their connections.

    Raises:
        TrainingError: instead of what they raise.
    """
    try:
        yield
    except RuntimeError as error:
        import torch.distributed as dist

        if world_size() == 1 or not (isinstance(error, dist.DistError) or "gloo/transport" in str(error)):
            raise
        raise TrainingError(
            "another process of this run has ended, and this one cannot go on alone; what the other said, or the "
            "launcher's summary, tells why"
        ) from error


def weights_are_sharded(arguments: TrainingArguments) -> bool:
    """Whether each process holds a part of the model only (FSDP, DeepSpeed)."""
    launched = (os.environ.get(name, "false").lower() in ("true", "1") for name in (_LAUNCHED_WITH_FSDP, _DEEPSPEED))
    return any(launched) or bool(getattr(arguments, "fsdp", None)) or bool(getattr(arguments, "deepspeed", None))
