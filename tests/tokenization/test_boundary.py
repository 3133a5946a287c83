"""`boundary: inference`: the tokens of a prompt are those that it has alone, whatever the answer begins with.

The oracle is transformers: it renders the prompt with `add_generation_prompt`, encodes it, and encodes the answer by
itself, with a tokenizer that puts no space before a text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_slow_encoder import PythonTokenizer

from sftkit.core.row_log import EngineDifferenceError
from sftkit.core.rows import IGNORE_INDEX, Mask, Ragged, Row
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.encoding.boundary.inference_encoder import InferenceEncoder
from sftkit.tokenization.encoding.boundary.prompt_check import PromptCheck
from sftkit.tokenization.encoding.reference_encoder import Encoder, ReferenceEncoder
from sftkit.tokenization.encoding.slow_encoder import SlowEncoder
from sftkit.tokenization.encoding.spans import Span
from support import dataset, handler, preprocess, write_jsonl, written
from template_zoo.conversations import assistant, user

Make = Callable[..., ChatTokenizer]
Reference = Callable[[str], Any]

END = "<|im_end|>"
HEADERS = {
    "line end": "<|im_start|>{role}\n",
    "space": "<|im_start|>{role}: ",
    "two spaces": "{role}:  ",
    "colon": "<|im_start|>{role}:",
    "letter": "<|im_start|>{role}",
    "digit": "<|im_start|>{role} 12",
    "quote": "{role} '",
    "tab": "{role}\t",
    "nothing": "{role}<|im_start|>",
}
TOKENIZERS = ["bpe", "metaspace", "qwen3", "granite", "tinyllama"]
BEGINNINGS = [
    "\n",
    "\n\n",
    " ",
    "  ",
    "   the",
    "\t",
    "\r\n",
    "5",
    "345",
    "the",
    "s",
    "'s",
    ".",
    "...",
    "é",
    "你好",
    "😀",
]

texts = st.lists(
    st.sampled_from([*BEGINNINGS, " the cat", "\u0301", "\u3000", "▁", "-", ":", "\u200d", "A"]), max_size=4
).map("".join)


def template(header: str) -> str:
    turn = header.replace("{role}", "{{ message.role }}") + "{{ message.content }}" + END
    prompt = header.replace("{role}", "assistant")
    loop = f"{{% for message in messages %}}{turn}\n{{% endfor %}}"
    return f"{loop}{{% if add_generation_prompt %}}{prompt}{{% endif %}}"


TEMPLATES = {name: template(header) for name, header in HEADERS.items()}


@cache
def without_space_before_texts(backend: Any) -> Any:
    """The same tokenizer without what puts a space before a text."""
    from tokenizers import Tokenizer

    state = json.loads(backend.to_str())
    normalizer = state["normalizer"] or {}
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    steps = [step for step in steps if step["type"] != "Prepend"]
    state["normalizer"] = {"type": "Sequence", "normalizers": steps} if steps else None
    if (state["pre_tokenizer"] or {}).get("type") == "Metaspace":
        state["pre_tokenizer"]["prepend_scheme"] = "never"
    return Tokenizer.from_str(json.dumps(state))


def expected(reference: Any, source: str, messages: list[Row]) -> tuple[list[int], int]:
    """The tokens up to the end of the last message, which is trained, and how many of them are of its prompt."""
    prompt, whole = (
        reference.apply_chat_template(some, chat_template=source, tokenize=False, add_generation_prompt=asks)
        for some, asks in ((messages[:-1], True), (messages, False))
    )
    assert whole.startswith(prompt)
    assert whole.endswith(f"{END}\n")
    ids = reference(prompt, add_special_tokens=False)["input_ids"]
    joint = reference(whole, add_special_tokens=False)["input_ids"]
    if joint[: len(ids)] == ids:
        after_stop = len(reference(f"{END}\n", add_special_tokens=False)["input_ids"]) - 1
        return joint[:-after_stop], len(ids)
    answer = without_space_before_texts(reference.backend_tokenizer).encode(
        whole[len(prompt) : -1], add_special_tokens=False
    )
    return [*ids, *answer.ids], len(ids)


def encoded(tokenizer: ChatTokenizer, messages: list[Row], **row: Any) -> Any:
    return tokenizer.encode_prepared([tokenizer.conversations.prepare({"messages": messages, **row}, "messages")])


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40)
@given(header=st.sampled_from(sorted(TEMPLATES)), answer=texts, question=texts)
@example(header="line end", answer="\nYes", question="Is it?")
@example(header="two spaces", answer="5", question="2+3?")
@example(header="digit", answer="345", question="x")
@example(header="letter", answer="s", question="x")
def test_a_prompt_has_its_own_tokens(
    chat_tokenizer: Make, reference: Reference, name: str, header: str, answer: str, question: str
) -> None:
    if header == "nothing" and name in ("metaspace", "tinyllama"):
        return  # these tokenizers put a space after the prompt, at inference and in training
    tokenizer, messages = (
        chat_tokenizer(TEMPLATES[header], name=name, special=(END,)),
        [user(question), assistant(answer)],
    )
    made = encoded(tokenizer, messages)
    ids, prompt = expected(tokenizer.tokenizer, TEMPLATES[header], messages)
    assert made.input_ids.values[: len(ids)].tolist() == ids
    trained = np.flatnonzero(made.labels.values != IGNORE_INDEX).tolist()
    assert trained == list(range(prompt, len(ids)))
    assert not made.inexact.any()


def test_the_text_is_encoded_at_once_with_joint(chat_tokenizer: Make) -> None:
    tokenizer = chat_tokenizer(TEMPLATES["space"], boundary="joint")
    messages = [user("so"), assistant("the cat")]
    made = encoded(tokenizer, messages)
    text = tokenizer.conversations.render({"messages": messages}, "messages")
    assert made.input_ids.values.tolist() == tokenizer.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert (
        made.input_ids.values.tolist()
        != encoded(chat_tokenizer(TEMPLATES["space"]), messages).input_ids.values.tolist()
    )


TALK = [user("so"), assistant("the cat"), user("and"), assistant("the dog")]


@pytest.mark.parametrize("name", ["bpe", "metaspace"])
def test_each_turn_whose_prompt_merges_is_a_sample(chat_tokenizer: Make, name: str) -> None:
    source = TEMPLATES["space"]
    tokenizer = chat_tokenizer(source, name=name, special=(END,), render="per_turn")
    found = tokenizer.conversations.samples({"messages": TALK}, "messages", None, compares_all_tokens=True)
    assert len(found.rows) == 2
    assert not found.differs_from_prompts
    for row, turn in zip(found.rows, (1, 3), strict=True):
        right = expected(tokenizer.tokenizer, source, TALK[: turn + 1])
        made = encoded(tokenizer, row["messages"])
        assert made.input_ids.values[: len(right[0])].tolist() == right[0]
        assert int(np.argmax(made.labels.values != IGNORE_INDEX)) == right[1]
        assert not made.inexact.any()
    joint = chat_tokenizer(source, name=name, special=(END,), render="per_turn", boundary="joint")
    kept = joint.conversations.samples({"messages": TALK}, "messages", None, compares_all_tokens=True)
    assert kept.rows == [{"messages": TALK}]


def test_a_prompt_that_contains_a_cut_is_not_exact(chat_tokenizer: Make) -> None:
    tokenizer = chat_tokenizer(TEMPLATES["space"], special=(END,))
    assert encoded(tokenizer, TALK).inexact.tolist() == [True]
    assert "prompt_mismatch" in tokenizer.conversations.prepare({"messages": TALK}, "messages").notes.rules
    only_last = [TALK[0], {**TALK[1], "train": False}, *TALK[2:]]
    assert encoded(tokenizer, only_last).inexact.tolist() == [False]
    assert not tokenizer.conversations.prepare({"messages": only_last}, "messages").notes.rules


REASONED = [user("so"), assistant("</think>the cat", reasoning_content="hm")]


@pytest.mark.parametrize(
    "options",
    [{"reasoning": "mask"}, {"train_on_stop": "none"}, {"token_kinds": True}, {"mask_pattern": "the"}],
    ids=str,
)
def test_masks_change_no_token(chat_tokenizer: Make, options: dict[str, Any]) -> None:
    """The prompt ends before what carries no loss, too."""
    if "mask_pattern" in options:
        pytest.importorskip("re2")
    plain, masked = (chat_tokenizer(TEMPLATES["space"], special=(END,), **each) for each in ({}, options))
    for messages in (TALK, [user("so"), assistant("<think>the hm</think>the cat")]):
        right, made = encoded(plain, messages), encoded(masked, messages)
        assert made.input_ids.values.tolist() == right.input_ids.values.tolist()
        carries = made.labels.values != IGNORE_INDEX
        assert (right.labels.values[carries] != IGNORE_INDEX).all()
        assert made.inexact.tolist() == right.inexact.tolist()
        if made.kinds is not None:
            assert (carries == (made.kinds.values != 0)).all()


def test_ranges_and_weights_of_merged_answers(chat_tokenizer: Make) -> None:
    tokenizer = chat_tokenizer(TEMPLATES["space"], special=(END,))
    right = encoded(tokenizer, TALK[:2])
    ranged = encoded(tokenizer, [TALK[0], {**TALK[1], "train_ranges": [{"begin": 0, "end": 3, "train": False}]}])
    weighed = encoded(tokenizer, [TALK[0], {**TALK[1], "weight": 0.5}])
    assert ranged.input_ids.values.tolist() == weighed.input_ids.values.tolist() == right.input_ids.values.tolist()
    carries = right.labels.values != IGNORE_INDEX
    assert weighed.weights.values[carries].tolist() == [0.5] * int(carries.sum())
    text = tokenizer.tokenizer.decode(ranged.input_ids.values[ranged.labels.values != IGNORE_INDEX])
    assert text == f" cat{END}"


def test_a_stop_token_that_takes_white_space(reference: Reference) -> None:
    """Such a token takes the line end of a prompt in a text, and not at inference."""
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(reference("bpe").backend_tokenizer.to_str())
    backend.add_special_tokens(["<|ask|>", AddedToken("<|stop|>", lstrip=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    prompt, answer = "<|ask|>so\n", "<|stop|>"
    encoder = InferenceEncoder(ReferenceEncoder(tokenizer), tokenizer)
    text, end = prompt + answer, len(prompt)
    made = encoder.encode_spans([text], [[(end, len(text))]], [[end]])
    ids = [tokenizer(each, add_special_tokens=False)["input_ids"] for each in (prompt, answer)]
    assert made.ids.values.tolist() == [*ids[0], *ids[1]]
    assert made.inside.tolist() == [False] * len(ids[0]) + [True] * len(ids[1])
    assert made.ids.values.tolist() != tokenizer(text, add_special_tokens=False)["input_ids"]


def test_tokenizers_in_python(reference: Reference) -> None:
    fast = reference("bpe")
    slow = PythonTokenizer(fast)
    text, end = "<|im_start|>so: the cat<|im_end|>", len("<|im_start|>so: ")
    each = [
        InferenceEncoder(encoder, tokenizer).encode_spans([text, text], [[(end, len(text))], []], [[end], []])
        for encoder, tokenizer in (
            (ReferenceEncoder(fast), fast),
            (SlowEncoder(slow, ReferenceEncoder(slow)), slow),
        )
    ]
    assert each[0].ids.values.tolist() == each[1].ids.values.tolist()
    assert each[0].inside.tolist() == each[1].inside.tolist()
    assert each[0].ids.lengths[0] > each[0].ids.lengths[1]


class Failing:
    """An encoder that finds a difference between engines in texts with a mark."""

    name = "failing"

    def __init__(self, encoder: Encoder, mark: str) -> None:
        self._encoder, self._mark = encoder, mark

    def _check(self, texts: list[str]) -> None:
        for index, text in enumerate(texts):
            if text == self._mark:
                raise EngineDifferenceError("encoder", text, index)

    def encode(self, texts: list[str], *, add_special_tokens: bool = True, limit: int | None = None) -> Ragged:
        self._check(texts)
        return self._encoder.encode(texts, add_special_tokens=add_special_tokens, limit=limit)

    def encode_spans(
        self, texts: list[str], spans: list[list[Span]], *, add_special_tokens: bool
    ) -> tuple[Ragged, Mask]:
        self._check(texts)
        return self._encoder.encode_spans(texts, spans, add_special_tokens=add_special_tokens)


@pytest.mark.parametrize("mark", ["so: ", "the cat!"])
def test_a_difference_between_engines_has_its_row(reference: Reference, mark: str) -> None:
    """It is found in the prompt or in the answer of the second text, which is cut."""
    fast = reference("bpe")
    encoder = InferenceEncoder(Failing(ReferenceEncoder(fast), mark), fast)  # type: ignore[arg-type]
    texts = ["one", "so: the cat!"]
    with pytest.raises(EngineDifferenceError) as found:
        encoder.encode_spans(texts, [[], [(4, 12)]], [[], [4]])
    assert found.value.index == 1


def test_a_text_is_kept_whole_if_nothing_encodes_its_pieces(reference: Reference) -> None:
    fast = reference("metaspace")
    encoder = InferenceEncoder(ReferenceEncoder(fast), fast)
    encoder._continuation.__dict__["_leads"] = []
    text, end = "so: the cat", 4
    made = encoder.encode_spans([text], [[(end, len(text))]], [[end]])
    assert made.ids.values.tolist() == fast(text, add_special_tokens=False)["input_ids"]
    assert made.inexact.tolist() == [True]


def test_ordinary_prompts_are_encoded_once(reference: Reference) -> None:
    """What the check costs: a tail that is known is not encoded again."""
    fast = reference("bpe")

    class Counting(ReferenceEncoder):
        texts = 0

        def encode(self, texts: Any, **options: Any) -> Ragged:
            self.texts += len(texts)
            return super().encode(texts, **options)

    encoder = Counting(fast)
    check = PromptCheck(encoder, fast)
    texts = [f"<|im_start|>user\n{k}{END}\n<|im_start|>assistant\nthe{END}" for k in range(9)]
    ends = [[text.index("the")] for text in texts]
    spans = [[(end, len(text))] for text, (end,) in zip(texts, ends, strict=True)]
    for _ in range(2):
        ids, inside = encoder.encode_spans(texts, spans, add_special_tokens=False)
        assert check.find_cuts(texts, spans, ends, ids, inside) == {}
    assert encoder.texts == 1


def test_rows_in_shards(tmp_path: Path, tokenizer_path: Callable[[str], str], reference: Reference) -> None:
    source = write_jsonl(tmp_path / "chats.jsonl", [{"messages": TALK}, {"messages": TALK[:2]}])
    data = dataset(source, data_handlers=[handler("tokenize_and_apply_chat_template_with_masking")])
    shards = {}
    runs = {"once": {"render": "once"}, "joint": {"boundary": "joint", "render": "once"}, "turns": {}}
    for name, options in runs.items():
        manifest = preprocess(
            tmp_path / name, data, processor={"chat_template": TEMPLATES["space"]},
            model_name_or_path=tokenizer_path("bpe"), engine_verify=0.0, **options,
        )  # fmt: skip
        assert manifest.audit is not None
        mismatches = [each.rows for each in manifest.audit.findings if each.rule == "prompt_mismatch"]
        shards[name] = [row["input_ids"] for row in written(tmp_path / name)], mismatches
    fast = reference("bpe")
    samples = [expected(fast, TEMPLATES["space"], TALK[:count])[0] for count in (2, 4)]

    def exact(name: str) -> list[bool]:
        """Which of the samples, each of which is in some row of the shards, with what follows its stop token."""
        return [any(row[: len(ids)] == ids for row in shards[name][0]) for ids in samples]

    assert [exact(name) for name in shards] == [[True, False], [False, False], [True, True]]
    assert [mismatches for _, mismatches in shards.values()] == [[1], [2], []]
