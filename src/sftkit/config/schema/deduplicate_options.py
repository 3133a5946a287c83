"""The section `dataprocessor.deduplicate` of a data config: which rows are duplicates, and which of them is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from sftkit.config.fields import option

EXACT, NEAR = "exact", "near"
"""Methods."""

WHOLE_ROW, TRAINED, PROMPTS, ANSWERS, BOTH = "row", "trained", "prompts", "answers", "both"
"""What is compared."""

TURN_PARTS = (PROMPTS, ANSWERS, BOTH)
"""What needs the turns of a conversation, or the input and the output of a pair."""

DEFAULT_THRESHOLD, DEFAULT_NGRAM = 0.8, 5


@dataclass(frozen=True, kw_only=True)
class DeduplicateConfig:
    """Removes rows that repeat another row. The first is kept."""

    method: str = option(
        EXACT,
        choices=(EXACT, NEAR),
        short_form=True,
        help="exact: rows that are equal; near: rows that have most runs of words in common (MinHash).",
    )
    compare: str | None = option(
        None,
        choices=(WHOLE_ROW, TRAINED, PROMPTS, ANSWERS, BOTH),
        help="What is compared. row: all tokens, and which of them are trained; trained: the trained tokens; prompts: "
        "the user turns, or the inputs of pairs; answers: the assistant turns, or the outputs; both: prompts and "
        "answers. Default: row if the method is exact, both if it is near.",
    )
    columns: tuple[str, ...] = option(
        (), help="Columns to compare instead, by their names after `rename_columns`. They need not be used otherwise."
    )
    ignore_case: bool | None = option(
        None, help="Whether texts that differ only in upper and lower case are equal. Default: true if near."
    )
    ignore_white_space: bool = option(
        False, help="Whether texts that differ only in white space are equal. `near` ignores white space in any case."
    )
    threshold: float | None = option(
        None,
        minimum=0.5,
        maximum=1,
        help="For near: the Jaccard similarity (runs of words in common, of all that either row has) from which rows "
        "are duplicates. Default: 0.8.",
    )
    ngram: int | None = option(None, minimum=1, help="For near: words in a run. Default: 5.")
    priority: tuple[str, ...] = option(
        (),
        help="Names of data sets, or patterns such as `eval*`: of equal rows, the one of the data set that comes first "
        "here is kept. Data sets that are not named follow, in the order of `datasets`.",
    )

    @property
    def compared(self) -> str:
        """What is compared, unless `columns` are."""
        return self.compare or (WHOLE_ROW if self.method == EXACT else BOTH)

    @property
    def folds_case(self) -> bool:
        """Whether case is ignored."""
        return self.method == NEAR if self.ignore_case is None else self.ignore_case

    @property
    def similarity(self) -> float:
        """The Jaccard similarity of near duplicates."""
        return DEFAULT_THRESHOLD if self.threshold is None else self.threshold

    @property
    def run_length(self) -> int:
        """Words in a run."""
        return self.ngram or DEFAULT_NGRAM

    @property
    def needs_turns(self) -> bool:
        """Whether user and assistant turns are compared."""
        return not self.columns and self.compared in TURN_PARTS

    def priority_of(self, dataset: str) -> int:
        """Return the place of a data set in `priority`; data sets that it does not name have the last place.

        Example:
            >>> config = DeduplicateConfig(method="exact", priority=("eval*", "chat"))
            >>> config.priority_of("chat"), config.priority_of("eval-1"), config.priority_of("web")
            (1, 0, 2)
        """
        places = (place for place, pattern in enumerate(self.priority) if fnmatchcase(dataset, pattern))
        return next(places, len(self.priority))


def deduplicate_identity(config: DeduplicateConfig, datasets: Sequence[str]) -> list[Any]:
    """Return what decides which rows are removed, as JSON can hold it, given the names of the data sets in order."""
    what: list[Any] = [config.method, list(config.columns) or config.compared, config.folds_case]
    near = [config.similarity, config.run_length] if config.method == NEAR else [config.ignore_white_space]
    return [*what, *near, [config.priority_of(name) for name in datasets]]


def deduplicate_problems(config: DeduplicateConfig, datasets: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the section as a whole, given the names of the data sets in the config."""
    where = "dataprocessor.deduplicate"
    if config.columns and config.compare is not None:
        yield f"{where}: compare and columns are both given; set only one of them"
    if config.method == EXACT:
        for key in ("threshold", "ngram"):
            if getattr(config, key) is not None:
                yield f"{where}.{key} is for method=near; leave it out, or set method=near"
    if config.priority and not datasets:
        yield f"{where}.priority names data sets; give `datasets`, or leave it out"
    for pattern in config.priority if datasets else ():
        if not any(fnmatchcase(name, pattern) for name in datasets):
            yield f"{where}.priority: {pattern!r} matches no data set; the data sets are {', '.join(datasets)}"
