"""Peak performance and memory of the hardware of a run, and the memory that the run used."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class PeakFlops:
    """Dense teraflops of one device."""

    half: float
    """bfloat16 and float16, on matrix units."""

    tf32: float
    """TF32, on matrix units; 0 without support for it."""

    single: float
    """float32, on general units."""


# The first pattern found in the name of the device applies. Sources: the vendors' data sheets and architecture white
# papers, without sparsity (half of NVIDIA's figure where only one with 2:4 sparsity is given), at boost clock; for
# GeForce and RTX boards 16 bits with accumulation in float32, as torch computes.
_PEAKS: tuple[tuple[str, PeakFlops], ...] = (
    (r"GB200", PeakFlops(2500, 1250, 80)),
    (r"B200", PeakFlops(2250, 1125, 75)),
    (r"B100", PeakFlops(1750, 875, 60)),
    (r"GH200", PeakFlops(989.4, 494.7, 66.9)),
    (r"H[12]00 NVL", PeakFlops(835.5, 417.7, 60)),
    (r"H[18]00 PCIe", PeakFlops(756, 378, 51)),
    (r"H[128]00", PeakFlops(989.4, 494.7, 66.9)),
    (r"H20\b", PeakFlops(148, 74, 44)),
    (r"A[18]00\b", PeakFlops(312, 156, 19.5)),
    (r"A30\b", PeakFlops(165, 82, 10.3)),
    (r"A40\b", PeakFlops(149.7, 74.8, 37.4)),
    (r"A10G", PeakFlops(70, 35, 35)),
    (r"A10\b", PeakFlops(125, 62.5, 31.2)),
    (r"RTX A6000", PeakFlops(154.8, 77.4, 38.7)),
    (r"RTX 6000 Ada", PeakFlops(364.2, 182.1, 91.1)),
    (r"L40S", PeakFlops(362, 183, 91.6)),
    (r"L40\b", PeakFlops(181, 90.5, 90.5)),
    (r"L4\b", PeakFlops(121, 60, 30.3)),
    (r"RTX 5090(?! D| Laptop)", PeakFlops(209.5, 104.8, 104.8)),
    (r"RTX 4090(?! D| Laptop)", PeakFlops(165.2, 82.6, 82.6)),
    (r"RTX 3090(?! Ti| Laptop)", PeakFlops(71, 35.6, 35.6)),
    (r"MI300A", PeakFlops(980.6, 490.3, 122.6)),
    (r"MI3(?:00|25)X", PeakFlops(1307.4, 653.7, 163.4)),
    (r"MI355X", PeakFlops(2516.6, 0, 157.3)),
    (r"MI350X", PeakFlops(2309.6, 0, 144.2)),
    (r"MI250", PeakFlops(191.5, 0, 23.9)),  # one of the two dies of a card; torch sees each as a device
)

# GiB as the driver reports them (`nvidia-smi`, `rocm-smi`), which is less than on the label where error correction or
# the driver itself takes a part. The first pattern found in the name of the device applies. Boards that are sold with
# several sizes: the larger one, unless the name says otherwise.
_MEMORY: tuple[tuple[str, float], ...] = (
    (r"GB200", 185.0),
    (r"B[12]00", 179.1),
    (r"GH200", 95.6),
    (r"H200", 140.4),
    (r"H100 NVL", 93.6),
    (r"H[18]00", 79.6),
    (r"H20\b", 95.6),
    (r"A100.*40 ?GB", 40.0),
    (r"A[18]00\b", 80.0),
    (r"A40\b", 45.0),
    (r"A30\b", 24.0),
    (r"A10G?\b", 22.5),
    (r"RTX A6000", 48.0),
    (r"RTX 6000 Ada", 48.0),
    (r"L40S?\b", 45.0),
    (r"L4\b", 22.5),
    (r"RTX 5090(?! D| Laptop)", 31.8),
    (r"RTX [34]090(?! D| Ti| Laptop)", 24.0),
    (r"MI300A", 128.0),
    (r"MI300X", 192.0),
    (r"MI325X", 256.0),
    (r"MI35[05]X", 288.0),
    (r"MI250", 64.0),
)


def memory_size(name: str) -> int | None:
    """The memory of a device in bytes; None if it is not known.

    Args:
        name: name of the device, as returned by `torch.cuda.get_device_name`.

    Example:
        >>> memory_size("NVIDIA A100-SXM4-40GB") / 2**30
        40.0
    """
    size = next((size for pattern, size in _MEMORY if re.search(pattern, name)), None)
    return None if size is None else round(size * 2**30)


def peak_flops(name: str, dtype: torch.dtype, *, tf32: bool = False) -> float | None:
    """The peak of a device in floating-point operations per second; None if it is not known.

    Args:
        name: name of the device, as returned by `torch.cuda.get_device_name`.
        dtype: data type in which matrices are multiplied (with autocast, that of autocast).
        tf32: whether float32 matrices may be multiplied in TF32.

    Example:
        >>> peak_flops("NVIDIA A100-SXM4-80GB", torch.bfloat16)
        312000000000000.0
    """
    peak = next((peak for pattern, peak in _PEAKS if re.search(pattern, name)), None)
    if peak is None:
        return None
    if dtype in (torch.bfloat16, torch.float16):
        return peak.half * 1e12
    if dtype != torch.float32:
        return None
    return (peak.tf32 if tf32 and peak.tf32 else peak.single) * 1e12


def device_peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """The peak of a device of this machine in floating-point operations per second; None for the CPU."""
    if device.type != "cuda":
        return None
    tf32 = torch.backends.cuda.matmul.allow_tf32
    return peak_flops(torch.cuda.get_device_name(device), dtype, tf32=tf32)


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of torch on a GPU, otherwise of this process in main memory (0 on Windows)."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
