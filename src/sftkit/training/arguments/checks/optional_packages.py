"""The optional packages that training arguments need, found missing before anything heavy is imported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sftkit.training.arguments.checks.optimizer_checks import MUON


@dataclass(frozen=True)
class OptionalPackage:
    """A package that some values of a training argument need."""

    name: str
    """Its name in package indexes."""

    module: str
    """The Python module."""

    extra: str = ""
    """The extra of sftkit that installs it; empty where the user installs the package itself."""

    minimum: str = "0"
    """The oldest version that transformers takes."""

    @property
    def remedy(self) -> str:
        """What to type."""
        return f"pip install 'sftkit[{self.extra}]'" if self.extra else f"pip install {self.name}"

    def problem(self, needed_by: str) -> str | None:
        """Return a sentence if the package is missing or too old, else None; the package is not imported."""
        found = importlib.util.find_spec(self.module)
        if found is None or found.origin is None:  # a directory of that name is no package
            return f"{needed_by} needs {self.name}, which is not installed; {self.remedy}"
        try:
            version = importlib.metadata.version(self.name)
        except importlib.metadata.PackageNotFoundError:
            return None
        from packaging.version import Version

        if Version(version) >= Version(self.minimum):
            return None
        return f"{needed_by} needs {self.name} {self.minimum} or newer, not {version}; {self.remedy}"


_BITSANDBYTES = OptionalPackage("bitsandbytes", "bitsandbytes", "bitsandbytes", "0.46.1")
_GALORE = OptionalPackage("galore-torch", "galore_torch", "galore")
_APOLLO = OptionalPackage("apollo-torch", "apollo_torch", "apollo")
_LOMO = OptionalPackage("lomo-optim", "lomo_optim", "lomo")
_SCHEDULEFREE = OptionalPackage("schedulefree", "schedulefree", "schedulefree", "1.2.6")
_TORCHAO = OptionalPackage("torchao", "torchao", "torchao", "0.15.0")
_DEEPSPEED = OptionalPackage("deepspeed", "deepspeed", "deepspeed")

OPTIMIZERS: Mapping[str, OptionalPackage] = MappingProxyType(
    {
        **dict.fromkeys(("adamw_torch_4bit", "adamw_torch_8bit"), _TORCHAO),
        **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "ademamix", "ademamix_8bit"), _BITSANDBYTES),
        **dict.fromkeys(("lion_8bit", "lion_32bit", "paged_lion_32bit", "paged_lion_8bit"), _BITSANDBYTES),
        **dict.fromkeys(("paged_adamw_32bit", "paged_adamw_8bit"), _BITSANDBYTES),
        **dict.fromkeys(("paged_ademamix_32bit", "paged_ademamix_8bit"), _BITSANDBYTES),
        **dict.fromkeys(("rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit"), _BITSANDBYTES),
        **dict.fromkeys(("galore_adamw", "galore_adamw_8bit", "galore_adafactor"), _GALORE),
        **dict.fromkeys(("galore_adamw_layerwise", "galore_adamw_8bit_layerwise"), _GALORE),
        "galore_adafactor_layerwise": _GALORE,
        **dict.fromkeys(("apollo_adamw", "apollo_adamw_layerwise"), _APOLLO),
        **dict.fromkeys(("lomo", "adalomo"), _LOMO),
        MUON: OptionalPackage("torch", "torch", minimum="2.9"),
        "grokadamw": OptionalPackage("grokadamw", "grokadamw", "grokadamw"),
        **dict.fromkeys(("schedule_free_radam", "schedule_free_adamw", "schedule_free_sgd"), _SCHEDULEFREE),
        "stable_adamw": OptionalPackage("torch-optimi", "optimi", "optimi"),
        "adamw_anyprecision": OptionalPackage("git+https://github.com/pytorch/torchdistx", "torchdistx"),
        "adamw_torch_xla": OptionalPackage("torch-xla", "torch_xla"),
        "adamw_torch_npu_fused": OptionalPackage("torch-npu", "torch_npu"),
    }
)
"""Values of `optim` and the package that each needs (transformers' trainer_optimizer.py, 5.23)."""


def missing_packages(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each package that training arguments need and that is missing.

    Args:
        values: training arguments with the types of their fields.
    """
    optimizer = str(values.get("optim"))
    if optimizer in OPTIMIZERS:
        yield from filter(None, [OPTIMIZERS[optimizer].problem(f"optim={optimizer}")])
    if values.get("deepspeed"):
        yield from filter(None, [_DEEPSPEED.problem("deepspeed")])
