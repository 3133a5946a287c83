"""The rules of the audit, and what is found by them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ERROR, WARNING = "error", "warning"

EXAMPLES = 5
"""Rows that a finding names."""

NO_TRAINED_TOKEN = "no_trained_token"
STOP_TOKEN_UNTRAINED = "stop_token_untrained"
BOS_DOUBLED = "bos_doubled"
BOS_MISSING = "bos_missing"
HEADER_TRAINED = "header_trained"
COLUMNS_MISFIT = "columns_misfit"
LABELS_DIFFER = "labels_differ"
IDS_OUTSIDE_VOCABULARY = "ids_outside_vocabulary"
ANSWER_CUT = "answer_cut"
SPECIAL_TOKEN_IN_CONTENT = "special_token_in_content"
PROMPT_MISMATCH = "prompt_mismatch"
DUPLICATE_ROW = "duplicate_row"


@dataclass(frozen=True)
class Rule:
    """One thing that may be wrong with a row.

    level: error or warning. what: what is wrong, of "rows". advice: what to do about it.
    """

    name: str
    level: str
    what: str
    advice: str


_TABLE = (
    Rule(
        NO_TRAINED_TOKEN,
        ERROR,
        "no token carries a loss, so nothing is learnt from the row",
        "leave such rows out; where truncation took the answer away, raise max_seq_length or say overflow: drop",
    ),
    Rule(
        STOP_TOKEN_UNTRAINED,
        ERROR,
        "an answer carries a loss and the stop token behind it none, so the model does not learn to stop",
        "put {% generation %} marks of the chat template around the stop token too, or mask again with sftkit",
    ),
    Rule(
        BOS_DOUBLED,
        ERROR,
        "the row begins with two BOS tokens",
        "one is the chat template's and one the tokenizer's: use a handler that renders and tokenizes at once, or "
        "take one of them away",
    ),
    Rule(
        BOS_MISSING,
        ERROR,
        "the row does not begin with the BOS token that the tokenizer or the chat template puts there at inference",
        "tokenize with special tokens, or let the chat template write the BOS",
    ),
    Rule(
        HEADER_TRAINED,
        ERROR,
        "tokens of the generation prompt or of a role's header carry a loss, which no model is asked to produce",
        "mask again with sftkit, or begin the {% generation %} marks of the chat template after the header",
    ),
    Rule(
        COLUMNS_MISFIT,
        ERROR,
        "labels (or masks) and input_ids differ in length, or seq_lengths do not sum to it",
        "write all columns of a row from the same tokens",
    ),
    Rule(
        LABELS_DIFFER,
        ERROR,
        "labels differ from input_ids where they are not -100",
        "write labels unshifted (the model shifts them), made from the same ids",
    ),
    Rule(
        IDS_OUTSIDE_VOCABULARY,
        ERROR,
        "input_ids hold numbers that stand for no token of the tokenizer",
        "tokenize again with this tokenizer, or name the one (with its added tokens) that made the ids",
    ),
    Rule(
        ANSWER_CUT,
        WARNING,
        "the last answer reaches the end of the row without a stop token: cut by truncation, or it never had one",
        "raise max_seq_length or say overflow: drop; give texts an eos token",
    ),
    Rule(
        SPECIAL_TOKEN_IN_CONTENT,
        WARNING,
        "a special token stands where the chat template writes none, so it came from the content",
        "say special_tokens_in_content: escape, drop or error",
    ),
    Rule(
        PROMPT_MISMATCH,
        WARNING,
        "what stands before an answer is, as tokens, not what the model is given at inference (preprocess renders this "
        "for a sample of rows: there may be more)",
        "compare with add_generation_prompt=True: strip white space from the content, give the chat_template_kwargs "
        "of inference, or train on the last answer only (train_on: last_assistant)",
    ),
    Rule(
        DUPLICATE_ROW,
        WARNING,
        "the row has the same tokens as one before it",
        "deduplicate the sources, unless the repetition is meant as a weight",
    ),
)

RULES = {rule.name: rule for rule in _TABLE}
"""Every rule by its name, in the order of reports."""


@dataclass(frozen=True)
class Finding:
    """A rule that rows break.

    rows: how many. examples: the first of them, at most `EXAMPLES`, by `path:row` or `shard:row`.
    """

    rule: str
    level: str
    rows: int
    examples: tuple[str, ...]


def reaches(findings: Iterable[Finding], level: str) -> bool:
    """Whether any finding is of a level (error, warning) or worse."""
    return any(finding.level == ERROR or level == WARNING for finding in findings)
