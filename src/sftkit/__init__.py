"""Turn raw supervised fine-tuning data into training-ready shards, and train on them.

`docs/python.md` shows how to use the names below. They are imported when they are first used, so that `import sftkit`
itself costs nothing.
"""

import os

TYPE_CHECKING = False  # type checkers take it for true; importing `typing` would cost more than all the rest
if TYPE_CHECKING:
    from sftkit.api.adapter_merging import merge_adapters
    from sftkit.api.inspection import inspect_shards
    from sftkit.api.shard_rows import ShardRow, Shards, ShardSplit, open_shards
    from sftkit.api.torch_data import ShardDataset, collator_for
    from sftkit.api.training_plan import plan_training
    from sftkit.api.use_cases import PreprocessResult, preprocess, train
    from sftkit.config.commands import InspectConfig, PreprocessConfig, TrainConfig
    from sftkit.config.schema.data_config import DatasetConfig, HandlerConfig, ProcessorConfig, SplitConfig
    from sftkit.core.progress import Progress
    from sftkit.errors import (
        ConfigError,
        DataError,
        OutputError,
        SftkitError,
        SourceError,
        TokenizerError,
        TrainingError,
    )
    from sftkit.inspection.compare.comparison import Comparison
    from sftkit.inspection.report import Report
    from sftkit.inspection.verify.outcome import Verification
    from sftkit.sample import sample_path
    from sftkit.shards.manifest import Manifest
    from sftkit.training.callbacks.listener import RunListener
    from sftkit.training.data.collation import FlatCollator, PaddingCollator
    from sftkit.training.planning.plan_run import TrainingPlan
    from sftkit.training.training_report import TrainingReport

# Arrow's own allocators keep what they freed, so that memory creeps up with the data; the system's gives it back.
# Arrow reads this once, when it is first imported.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

__version__ = "0.1.0"

_EXPORTS = {
    "sftkit.api.adapter_merging": ("merge_adapters",),
    "sftkit.api.shard_rows": ("ShardRow", "ShardSplit", "Shards", "open_shards"),
    "sftkit.api.torch_data": ("ShardDataset", "collator_for"),
    "sftkit.api.inspection": ("inspect_shards",),
    "sftkit.api.training_plan": ("plan_training",),
    "sftkit.api.use_cases": ("PreprocessResult", "preprocess", "train"),
    "sftkit.config.commands": ("InspectConfig", "PreprocessConfig", "TrainConfig"),
    "sftkit.config.schema.data_config": ("DatasetConfig", "HandlerConfig", "ProcessorConfig", "SplitConfig"),
    "sftkit.core.progress": ("Progress",),
    "sftkit.errors": (
        *("ConfigError", "DataError", "OutputError", "SftkitError", "SourceError", "TokenizerError", "TrainingError"),
    ),
    "sftkit.inspection.compare.comparison": ("Comparison",),
    "sftkit.inspection.report": ("Report",),
    "sftkit.inspection.verify.outcome": ("Verification",),
    "sftkit.sample": ("sample_path",),
    "sftkit.shards.manifest": ("Manifest",),
    "sftkit.training.data.collation": ("FlatCollator", "PaddingCollator"),
    "sftkit.training.callbacks.listener": ("RunListener",),
    "sftkit.training.planning.plan_run": ("TrainingPlan",),
    "sftkit.training.training_report": ("TrainingReport",),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [
    "Comparison",
    "ConfigError",
    "DataError",
    "DatasetConfig",
    "FlatCollator",
    "HandlerConfig",
    "InspectConfig",
    "Manifest",
    "OutputError",
    "PaddingCollator",
    "PreprocessConfig",
    "PreprocessResult",
    "ProcessorConfig",
    "Progress",
    "Report",
    "RunListener",
    "SftkitError",
    "ShardDataset",
    "ShardRow",
    "ShardSplit",
    "Shards",
    "SourceError",
    "SplitConfig",
    "TokenizerError",
    "TrainConfig",
    "TrainingError",
    "TrainingPlan",
    "TrainingReport",
    "Verification",
    "__version__",
    "collator_for",
    "inspect_shards",
    "merge_adapters",
    "open_shards",
    "plan_training",
    "preprocess",
    "sample_path",
    "train",
]


if not TYPE_CHECKING:  # type checkers know the names from above, and any other as a mistake

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
