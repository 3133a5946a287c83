"""Faults of many batches -> findings: rows counted by rule, the first of them named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ERROR, WARNING = "error", "warning"

EXAMPLES = 5
"""Rows that a finding names."""

NO_TRAINED_TOKEN = "no_trained_token"
STOP_TOKEN_UNTRAINED = "stop_token_untrained"
BOS_DOUBLED = "bos_doubled"
BOS_MISSING = "bos_missing"
HEADER_TRAINED = "header_trained"
COLUMNS_MISMATCH = "columns_misfit"
SEQ_LENGTHS_MISMATCH = "seq_lengths_misfit"
PACK_TOO_LONG = "pack_too_long"
LABELS_DIFFER = "labels_differ"
IDS_OUTSIDE_VOCABULARY = "ids_outside_vocabulary"
FIRST_TOKEN_TRAINED = "first_token_trained"
ANSWER_CUT = "answer_cut"
SPECIAL_TOKEN_IN_CONTENT = "special_token_in_content"
PROMPT_MISMATCH = "prompt_mismatch"
DUPLICATE_ROW = "duplicate_row"


@dataclass(frozen=True)
class Rule:
    """One thing that may be wrong with a row.

    level: error or warning. what: what is wrong, of "rows" (in packs: sequences). advice: what to do about it.
    """

    name: str
    level: str
    description: str
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
        COLUMNS_MISMATCH,
        ERROR,
        "labels (or masks) and input_ids differ in length",
        "write all columns of a row from the same tokens",
    ),
    Rule(
        SEQ_LENGTHS_MISMATCH,
        ERROR,
        "seq_lengths do not sum to the tokens of the pack, or hold a length below 1: nobody can tell where its "
        "sequences begin",
        "pack again with sftkit, or write seq_lengths from the sequences that were laid together",
    ),
    Rule(
        PACK_TOO_LONG,
        ERROR,
        "the pack has more tokens than the manifest's pack_length",
        "pack again with sftkit; whatever changed these shards has to write a new data set, not change this one",
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
        FIRST_TOKEN_TRAINED,
        WARNING,
        "the first token of a sequence in a pack carries a loss, though it is the sequence before it that predicts it",
        "set the first label of every sequence to -100, unless whatever trains on the packs leaves it out",
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

PACK_RULES = frozenset({COLUMNS_MISMATCH, SEQ_LENGTHS_MISMATCH, PACK_TOO_LONG})
"""Rules that packs break as a whole; the others are broken by their sequences."""

LABEL_RULES = frozenset(
    {NO_TRAINED_TOKEN, STOP_TOKEN_UNTRAINED, HEADER_TRAINED, LABELS_DIFFER}
    | {FIRST_TOKEN_TRAINED, ANSWER_CUT, PROMPT_MISMATCH}
)
"""Rules that cannot be judged in a row whose labels (or masks) do not fit its tokens."""


@dataclass(frozen=True)
class Finding:
    """A rule that rows break.

    rows: how many; of packed rows sequences, but for the rules `PACK_RULES`. examples: the first of them, at most
    `EXAMPLES`, by `path:row`, `shard:row` or `shard:row (sequence n)`.
    """

    rule: str
    level: str
    rows: int
    examples: tuple[str, ...]


def reaches(findings: Iterable[Finding], level: str) -> bool:
    """Whether any finding is of a level (error, warning) or worse."""
    return any(finding.level == ERROR or level == WARNING for finding in findings)


@dataclass(frozen=True)
class RuleCount:
    """Rows that break a rule: how many, and the names of the first of them."""

    rows: int
    examples: tuple[str, ...]


Counts = Mapping[str, RuleCount]
"""By the names of rules."""


def merge_counts(parts: Iterable[Counts]) -> dict[str, RuleCount]:
    """The counts of several parts, which come in the order of the rows, together."""
    rows: dict[str, int] = {}
    examples: dict[str, list[str]] = {}
    for part in parts:
        for rule, count in part.items():
            rows[rule] = rows.get(rule, 0) + count.rows
            named = examples.setdefault(rule, [])
            named.extend(count.examples[: EXAMPLES - len(named)])
    return {rule: RuleCount(rows[rule], tuple(examples[rule])) for rule in rows}


def findings_of(counts: Counts) -> tuple[Finding, ...]:
    """The findings of some counts, in the order of the rules: errors first."""
    found: Sequence[tuple[str, RuleCount]] = [(name, counts[name]) for name in RULES if name in counts]
    return tuple(Finding(name, RULES[name].level, each.rows, each.examples) for name, each in found if each.rows)
