"""What a run will do: its inputs, recipe and work units, with the keys and fingerprints that identify its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sftkit.config.commands import PreprocessConfig
from sftkit.core.splits import TRAIN, VALIDATION
from sftkit.errors import TokenizerError
from sftkit.execution.processes import SMALL_SOURCE, available_cores
from sftkit.preprocessing.pipeline.column_use import ColumnSample
from sftkit.preprocessing.pipeline.recipe import Recipe
from sftkit.preprocessing.pipeline.unit_pipeline import Pipeline
from sftkit.preprocessing.plan.plan_identity import plan_fingerprint, tokenizer_identity, tokenizer_info
from sftkit.preprocessing.plan.unit_keys import unit_keys
from sftkit.sandbox.chat_templates import tells_date
from sftkit.shards.manifest import TokenizerInfo
from sftkit.shards.writing.shard_writer import shard_name
from sftkit.sources.small_files import group_small_files
from sftkit.sources.work_units import ScannedFile, WorkUnit
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.loading.tokenizer_loading import TOKENIZER_CHANGED


@dataclass(frozen=True)
class Plan:
    """What a run will do: the result of `planning.plan`, and the input of `sftkit.preprocessing.build.run`.

    All inputs were found and checked, and nothing was written. The source files are divided into work units, which are
    processed independently of each other.
    """

    config: PreprocessConfig
    recipe: Recipe
    """What becomes of a row; every worker process gets it."""
    pipeline: Pipeline
    """The recipe, ready to run in this process."""
    files: tuple[ScannedFile, ...]
    """Every source file, in the order of the rows."""
    units: tuple[WorkUnit, ...]
    """All work units, in the order of the rows."""
    keys: tuple[str, ...]
    """The key of each work unit, in the order of `units`. Units with equal keys give equal rows."""
    tokenizer: TokenizerInfo | None
    left_out: tuple[str, ...]
    """Data files next to those that are read, which are not read because they belong to another split."""
    fingerprint: str
    """Equal for plans that give the same shards."""
    undated_fingerprint: str
    """The fingerprint without the template date, unless the config of the user sets that."""
    identity: Mapping[str, Any]
    """What rows depend on of the tokenizer, and the template date if they depend on it; part of the fingerprint."""
    samples: Mapping[str, ColumnSample]
    """What the first rows of each data set, by its name, tell about columns that are not used."""
    seconds: float
    """How long planning took."""
    shards_before: Mapping[str, int] = field(default_factory=dict)
    """How many shards each split has already, if new ones are added to them."""

    @property
    def workers(self) -> int:
        """The number of processes that the run will use."""
        if any(file.file.path.startswith("memory:") for file in self.files):
            return 1  # only this process can see its memory
        if self.config.num_workers is None and sum(file.file.size for file in self.files) < SMALL_SOURCE:
            return 1
        return max(1, min(self.config.num_workers or available_cores(), len(self.units)))

    def shard_names(self, split: str) -> list[str]:
        """Name the shards of a split, without suffixes: they follow those that it has already, whose names stay."""
        counts = {TRAIN: self.config.num_dataset_shards, VALIDATION: self.config.num_eval_dataset_shards}
        first = self.shards_before.get(split, 0)
        stop = first + counts[split]
        return [shard_name(split, number, stop) for number in range(first, stop)]

    @property
    def has_default_date(self) -> bool:
        """Whether the rows depend on a template date that the user did not choose."""
        return self.config.template_date is not None and self.recipe.options.template_date is None

    def on_day(self, day: str) -> Plan:
        """Return the plan with another template date, YYYY-MM-DD."""
        if day == self.config.template_date:
            return self
        recipe = replace(self.recipe, chat_tokenizer=replace(self.recipe.chat_tokenizer, template_date=day))
        pipeline = Pipeline(recipe, ChatTokenizer(recipe.chat_tokenizer))
        planned = make_plan(self.config, recipe, pipeline, self.files, self.left_out, self.samples)
        return replace(planned, seconds=self.seconds, shards_before=self.shards_before)

    def without_engine(self, engine: str) -> Plan:
        """Return the plan without one fast engine. It gives the same shards.

        Raises:
            TokenizerError: the files of the tokenizer, which is loaded again, have changed since.
        """
        recipe = replace(self.recipe, chat_tokenizer=self.recipe.chat_tokenizer.without_engine(engine))
        chat_tokenizer = ChatTokenizer(recipe.chat_tokenizer)
        if self.tokenizer is not None and chat_tokenizer.identity != self.pipeline.chat_tokenizer.identity:
            raise TokenizerError(TOKENIZER_CHANGED)
        return replace(self, recipe=recipe, pipeline=Pipeline(recipe, chat_tokenizer))


def make_plan(
    config: PreprocessConfig,
    recipe: Recipe,
    pipeline: Pipeline,
    files: tuple[ScannedFile, ...],
    left_out: tuple[str, ...],
    samples: Mapping[str, ColumnSample],
) -> Plan:
    """Make a plan of inputs that were found and checked.

    This adds what identifies the plan: its keys and fingerprints, and the template date if rows depend on it.
    """
    tokenizer = tokenizer_info(pipeline.chat_tokenizer, recipe.chat_tokenizer.tokenizer)
    identity = tokenizer_identity(pipeline.chat_tokenizer, tokenizer) if tokenizer is not None else {}
    dated, day = identity, pipeline.chat_tokenizer.template_date
    if tokenizer is not None and tells_date(pipeline.chat_tokenizer.tokenizer):
        dated, config = {**identity, "template_date": day}, replace(config, template_date=day)
    units = group_small_files(files, config.unit_size)
    keys = unit_keys(files, units, recipe.datasets, recipe.options, dated, recipe.questions)
    fingerprint = plan_fingerprint(recipe, files, dated)
    is_chosen = dated is identity or recipe.options.template_date is not None
    undated = fingerprint if is_chosen else plan_fingerprint(recipe, files, identity)
    return Plan(
        config, recipe, pipeline, files, units, keys, tokenizer, left_out, fingerprint, undated, dated, samples, 0
    )
