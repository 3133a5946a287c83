"""The rules of the audit, and findings: how many rows break a rule, and which ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ERROR, WARNING = "error", "warning"

EXAMPLES = 5
"""Maximum number of rows that a finding names."""

NO_TRAINED_TOKEN = "no_trained_token"
STOP_TOKEN_UNTRAINED = "stop_token_untrained"
BOS_DOUBLED = "bos_doubled"
BOS_MISSING = "bos_missing"
HEADER_TRAINED = "header_trained"
COLUMNS_MISMATCH = "columns_misfit"  # manifests contain these two names, so they stay
SEQ_LENGTHS_MISMATCH = "seq_lengths_misfit"
PACK_TOO_LONG = "pack_too_long"
LABELS_DIFFER = "labels_differ"
IDS_OUTSIDE_VOCABULARY = "ids_outside_vocabulary"
FIRST_TOKEN_TRAINED = "first_token_trained"
ANSWER_CUT = "answer_cut"
SPECIAL_TOKEN_IN_CONTENT = "special_token_in_content"
PROMPT_MISMATCH = "prompt_mismatch"
INFERENCE_DIFFERS = "inference_differs"
INFERENCE_EXACT_WRONG = "inference_exact_wrong"
BOUNDARY_MERGED = "boundary_merged"
LOSS_FLAG_UNUSED = "loss_flag_unused"
EMPTY_ANSWER = "empty_answer"
MESSAGE_NOT_RENDERED = "message_not_rendered"
FIELD_NOT_RENDERED = "field_not_rendered"
TOOL_JSON_INVALID = "tool_json_invalid"
TOOL_NOT_OFFERED = "tool_not_offered"
TOOL_ARGUMENTS_INVALID = "tool_arguments_invalid"
TOOL_RESULT_UNPAIRED = "tool_result_unpaired"
TOOL_ORDER = "tool_order"
TOOL_SCHEMA_UNUSABLE = "tool_schema_unusable"
DUPLICATE_ROW = "duplicate_row"


@dataclass(frozen=True)
class Rule:
    """One thing that may be wrong with a row (in packs: with a sequence)."""

    name: str
    """The name shown in reports and manifests."""
    level: str
    """`error` or `warning`."""
    description: str
    """What is wrong, and what it does to training."""
    advice: str
    """What to do about it."""


_TABLE = (
    Rule(
        NO_TRAINED_TOKEN,
        ERROR,
        "no token carries a loss, so the model learns nothing from the row",
        "remove such rows; if truncation removed the answer, raise max_seq_length or set overflow: drop",
    ),
    Rule(
        STOP_TOKEN_UNTRAINED,
        ERROR,
        "an answer carries a loss but the stop token after it does not, so the model does not learn to stop",
        "mask again with sftkit; if the chat template has a {% generation %} block, extend it to include the stop "
        "token",
    ),
    Rule(
        BOS_DOUBLED,
        ERROR,
        "the row begins with two BOS tokens",
        "the chat template writes one and the tokenizer adds one: use a handler that renders and tokenizes in one "
        "step, or remove one of them",
    ),
    Rule(
        BOS_MISSING,
        ERROR,
        "the row does not begin with the BOS token that the tokenizer or the chat template adds at inference",
        "tokenize with special tokens, or let the chat template write the BOS",
    ),
    Rule(
        HEADER_TRAINED,
        ERROR,
        "tokens of the generation prompt or of a role's header carry a loss, but the model never generates them",
        "mask again with sftkit; if the chat template has a {% generation %} block, start it after the header",
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
        "seq_lengths do not sum to the tokens of the pack, or contain a length below 1, so the starts "
        "of its sequences are unknown",
        "pack again with sftkit, or write seq_lengths from the sequences in the pack",
    ),
    Rule(
        PACK_TOO_LONG,
        ERROR,
        "the pack has more tokens than the manifest's pack_length",
        "pack again with sftkit; a tool that changes shards must write a new data set, not edit this one",
    ),
    Rule(
        LABELS_DIFFER,
        ERROR,
        "labels differ from input_ids where they are not -100",
        "write labels from the same ids, unshifted (the model shifts them)",
    ),
    Rule(
        IDS_OUTSIDE_VOCABULARY,
        ERROR,
        "input_ids contain ids that the tokenizer does not have",
        "tokenize again with this tokenizer, or set the tokenizer (with its added tokens) that made the ids",
    ),
    Rule(
        MESSAGE_NOT_RENDERED,
        ERROR,
        "the chat template leaves out a message or its tool calls, so the model learns to answer what it does not see, "
        "or to end where it should call a tool",
        "use a chat template that renders them (dataprocessor.chat_template), or map the role to one that it renders "
        "with convert_to_messages",
    ),
    Rule(
        INFERENCE_EXACT_WRONG,
        ERROR,
        "the manifest says inference_exact: true, and a trained token does not follow the tokens that the model has at "
        "inference",
        "run preprocess again; if the shards were not changed and the tokenizer and its chat template are the same, "
        "report it as a bug",
    ),
    Rule(
        FIRST_TOKEN_TRAINED,
        WARNING,
        "the first token of a sequence in a pack carries a loss, but the previous sequence predicts it",
        "set the first label of every sequence to -100, unless the trainer ignores it",
    ),
    Rule(
        ANSWER_CUT,
        WARNING,
        "the last answer ends the row without a stop token: it was truncated, or never had one",
        "raise max_seq_length or set overflow: drop; add an eos token to texts",
    ),
    Rule(
        SPECIAL_TOKEN_IN_CONTENT,
        WARNING,
        "a special token appears where the chat template never writes one, so it came from the content",
        "set special_tokens_in_content to escape, drop or error",
    ),
    Rule(
        PROMPT_MISMATCH,
        WARNING,
        "the tokens before an answer differ from the prompt that the model gets at inference (preprocess checks this "
        "for a sample of rows, so there may be more)",
        "compare with add_generation_prompt=True: strip white space from the content, use the chat_template_kwargs "
        "of inference, train each turn after its own prompt (render: per_turn), or the last answer only "
        "(train_on: last_assistant)",
    ),
    Rule(
        INFERENCE_DIFFERS,
        WARNING,
        "a trained token does not follow the tokens that the model has at inference: those of the prompt that "
        "apply_chat_template(add_generation_prompt=True) gives for the retained conversation, then those of the turn",
        "train each turn after its own prompt (render: auto, boundary: inference), or the last answer only (train_on: "
        "last_assistant), with the chat_template_kwargs of inference",
    ),
    Rule(
        BOUNDARY_MERGED,
        WARNING,
        "a token covers the end of a pair's input and the start of its output, so at inference the input ends with "
        "other tokens (with compat: fms, the token also carries no loss, and the start of the output is not learned)",
        "remove the white space at the end of the input",
    ),
    Rule(
        LOSS_FLAG_UNUSED,
        WARNING,
        "a message asks for a loss (train: true, weight: 1) that it does not get: it is not of the assistant, or "
        "train_on leaves it out",
        "remove the flag; flags only exclude messages, and train_on chooses among the assistant's",
    ),
    Rule(
        EMPTY_ANSWER,
        WARNING,
        "an answer that carries a loss is empty or only white space, so the model learns to say nothing",
        "correct the data, set drop_empty_answers: true, or exclude the message from the loss (train: false)",
    ),
    Rule(
        FIELD_NOT_RENDERED,
        WARNING,
        "the chat template leaves out tools, documents, the reasoning of the last answer, media, or the words beside a "
        "tool call ('not rendered' names the keys)",
        "use a chat template that renders them (dataprocessor.chat_template), or remove them from the data",
    ),
    Rule(
        TOOL_JSON_INVALID,
        WARNING,
        "the JSON of a tool call, of its arguments or of the tools does not parse, or has no name or no object where "
        "one belongs",
        "correct the data, or set check_tools to drop",
    ),
    Rule(
        TOOL_NOT_OFFERED,
        WARNING,
        "a call names a tool that the row does not offer, so the model learns to invent tools",
        "correct the data (its `tools`, or the name in the call), or set check_tools to drop",
    ),
    Rule(
        TOOL_ARGUMENTS_INVALID,
        WARNING,
        "the arguments of a call are not valid against the JSON schema of the tool",
        "correct the data, or set check_tools to drop",
    ),
    Rule(
        TOOL_RESULT_UNPAIRED,
        WARNING,
        "a result belongs to no call before it: its id or name is of none, or all of them have a result",
        "correct the data, or set check_tools to drop",
    ),
    Rule(
        TOOL_ORDER,
        WARNING,
        "the order is not call, result, answer: a message comes before the result of a call, or a result has no answer",
        "correct the data, or set check_tools to drop",
    ),
    Rule(
        TOOL_SCHEMA_UNUSABLE,
        WARNING,
        "the schema of a tool that is called is not a JSON schema or exceeds a limit, so arguments cannot be checked",
        "correct the schema in `tools`, or set check_tools to drop",
    ),
    Rule(
        DUPLICATE_ROW,
        WARNING,
        "the row has the same tokens as an earlier row",
        "set dataprocessor.deduplicate, unless the repetition is intended as a weight",
    ),
)

RULES = {rule.name: rule for rule in _TABLE}
"""All rules by name, in the order of reports."""

TOOL_RULES = frozenset(
    {TOOL_JSON_INVALID, TOOL_NOT_OFFERED, TOOL_ARGUMENTS_INVALID, TOOL_RESULT_UNPAIRED, TOOL_ORDER}
    | {TOOL_SCHEMA_UNUSABLE}
)
"""Rules about tool calls, which `check_tools` asks for."""

RECORDED_RULES = TOOL_RULES | frozenset(
    {PROMPT_MISMATCH, BOUNDARY_MERGED, LOSS_FLAG_UNUSED, EMPTY_ANSWER, MESSAGE_NOT_RENDERED, FIELD_NOT_RENDERED}
)
"""Rules about more than the tokens of a row: of shards, an audit also gives the findings in the manifest."""

PACK_RULES = frozenset({COLUMNS_MISMATCH, SEQ_LENGTHS_MISMATCH, PACK_TOO_LONG})
"""Rules about whole packs; all others are about the sequences in them."""

LABEL_RULES = frozenset(
    {NO_TRAINED_TOKEN, STOP_TOKEN_UNTRAINED, HEADER_TRAINED, LABELS_DIFFER}
    | {FIRST_TOKEN_TRAINED, ANSWER_CUT, PROMPT_MISMATCH}
)
"""Rules that cannot be checked if the labels (or masks) of a row do not match its tokens."""


@dataclass(frozen=True)
class Finding:
    """A rule that some rows break."""

    rule: str
    """Name of the rule."""
    level: str
    """`error` or `warning`."""
    rows: int
    """Number of rows; in packs the number of sequences, except for `PACK_RULES`."""
    examples: tuple[str, ...]
    """The first of them, at most `EXAMPLES`: `path:row`, `shard:row` or `shard:row (sequence n)`."""


def reaches(findings: Iterable[Finding], level: str) -> bool:
    """Whether any finding has this level (error, warning) or a more severe one."""
    return any(finding.level == ERROR or level == WARNING for finding in findings)


@dataclass(frozen=True)
class RuleCount:
    """How many rows break a rule, and the names of the first ones."""

    rows: int
    examples: tuple[str, ...]


Counts = Mapping[str, RuleCount]
"""Counts by the name of the rule."""


def merge_counts(parts: Iterable[Counts]) -> dict[str, RuleCount]:
    """Add up the counts of several parts, given in the order of the rows."""
    rows: dict[str, int] = {}
    examples: dict[str, list[str]] = {}
    for part in parts:
        for rule, count in part.items():
            rows[rule] = rows.get(rule, 0) + count.rows
            named = examples.setdefault(rule, [])
            named.extend(count.examples[: EXAMPLES - len(named)])
    return {rule: RuleCount(rows[rule], tuple(examples[rule])) for rule in rows}


def findings_of(counts: Counts) -> tuple[Finding, ...]:
    """Turn counts into findings, in the order of the rules: errors first."""
    found: Sequence[tuple[str, RuleCount]] = [(name, counts[name]) for name in RULES if name in counts]
    return tuple(Finding(name, RULES[name].level, each.rows, each.examples) for name, each in found if each.rows)
