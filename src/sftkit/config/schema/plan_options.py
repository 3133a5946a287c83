"""The keys of `train` about the plan of a run, which `dry_run` prints."""

from __future__ import annotations

from dataclasses import dataclass

from sftkit.config.fields import option

_PLAN = "Plan"

GPUS = (
    *("GB200", "B200", "B100", "GH200", "H200", "H100", "H100 NVL", "H100 PCIe", "H800", "H20"),
    *("A100", "A100 40GB", "A800", "A40", "A30", "A10G", "A10", "L40S", "L40", "L4"),
    *("RTX 6000 Ada", "RTX A6000", "RTX 5090", "RTX 4090", "RTX 3090"),
    *("MI355X", "MI350X", "MI325X", "MI300X", "MI300A", "MI250"),
)
"""Devices whose peak and memory are known, see `sftkit.training.metrics.hardware`."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What `train` offers to plan a run without training."""

    dry_run: bool = option(
        False,
        per_run=True,
        panel=_PLAN,
        trusted_only=True,
        help="Print the steps, the learning rates, the memory and the cost of the run. No weights are loaded, and "
        "nothing is written.",
    )
    processes: int | None = option(
        None,
        minimum=1,
        per_run=True,
        panel=_PLAN,
        help="With dry_run: plan a launch of this many processes, one for each device. Default: one.",
    )
    gpu: str | None = option(
        None,
        choices=GPUS,
        words={name.lower(): name for name in GPUS},
        panel=_PLAN,
        help="With dry_run: estimate the time on devices of this kind, and whether the run fits into their memory.",
    )
    mfu: float = option(
        0.4,
        panel=_PLAN,
        help="With dry_run and gpu: the share of the device's peak that the run will use (MFU), above 0 and at most 1.",
    )
    price_per_hour: float | None = option(
        None, minimum=0, panel=_PLAN, help="With dry_run and gpu: price of one device for an hour, in any currency."
    )
