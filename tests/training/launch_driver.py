"""Run training launches of one or several processes, one after the other. Used by `material.run_launches`.

The argument is a JSON list of `material.Launch`. Imports happen once; the processes of each launch are forked from this
one, which never computes, so that forking is safe.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import accelerate.state
from accelerate.utils import DistributedType

from sftkit.config.commands import TrainConfig
from sftkit.config.loading import load_config
from sftkit.shards.reading import open_shards
from sftkit.training.arguments import build_arguments
from sftkit.training.run import train


def pretend_to_have_gpus() -> None:
    """Let accelerate set up FSDP or tensor parallelism, which it only does if each process has a GPU."""
    original = accelerate.state.PartialState.__init__

    def with_gpus(self: Any, *args: Any, **kwargs: Any) -> None:
        first = not self._shared_state
        original(self, *args, **kwargs)
        if first:
            self.distributed_type = DistributedType.MULTI_GPU

    accelerate.state.PartialState.__init__ = with_gpus
    build_arguments.disable_fsdp_on_cpu = lambda use_cpu: None


def train_process(rank: int, launch: dict[str, Any], port: str) -> None:
    os.environ.update(launch["environment"])
    if launch["processes"] > 1:
        world = str(launch["processes"])
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=world, LOCAL_WORLD_SIZE=world)
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    if "ACCELERATE_USE_FSDP" in os.environ or "PARALLELISM_CONFIG_TP_SIZE" in os.environ:
        pretend_to_have_gpus()
    config = load_config(TrainConfig, launch["argv"], extra_keys=build_arguments.extra_keys())
    report = train(config, build_arguments.make_training_arguments(config), open_shards(config.training_data_path[0]))
    if rank == 0:
        Path(config.output_dir, "report.json").write_text(json.dumps(asdict(report), default=str))


def run_launch(launch: dict[str, Any]) -> None:
    for path in launch["remove"]:
        shutil.rmtree(path)
    for source, target in launch["copy"]:
        shutil.copytree(source, target)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    children: set[int] = set()
    for rank in range(launch["processes"]):
        child = os.fork()
        if not child:
            try:
                train_process(rank, launch, port)
            except BaseException as error:
                sys.stderr.write(f"{launch['argv']} {error!r}\n")
                sys.stderr.flush()
                os._exit(1)
            sys.stderr.flush()
            os._exit(0)
        children.add(child)
    while children:
        child, status = os.wait()
        children.discard(child)
        if status:
            for other in children:  # they would wait for it
                os.kill(other, signal.SIGKILL)
            sys.exit(f"a process of {launch['argv']} failed with status {status}")


if __name__ == "__main__":
    for each in json.loads(sys.argv[1]):
        run_launch(each)
