"""The Alpaca format, and its text for tokenizers without a chat template."""

from __future__ import annotations

from dataclasses import dataclass

from sftkit.core.rows import Row
from sftkit.handlers.formats.exchanges import HISTORY, Exchange
from sftkit.handlers.formats.values import history_of, optional_text, role_of, system_of

_INTRODUCTION = "Below is an instruction that describes a task. "
_INTRODUCTION_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
)
_REQUEST = "Write a response that appropriately completes the request."


@dataclass(frozen=True)
class Alpaca(Exchange):
    """`instruction`, `input`, `output`, and as in LLaMA-Factory `system` and `history`; also Dolly's `context` and
    `response`.

    Without a chat template, the text is the prompt of Stanford Alpaca, with a line break after `### Response:` as in
    its successors. Earlier turns come before, in the same form; a system prompt replaces the introduction.
    """

    def to_pair(self, row: Row) -> tuple[str, str]:
        """Make the prompt, and the answer."""
        answer = self.answer_text(row)
        question = self.question_text(row)
        instruction = optional_text(row, self.question)
        context = "\n".join(filter(None, (optional_text(row, column) for column in self.contexts)))
        has_both = bool(instruction and context)
        introduction = system_of(row) or (_INTRODUCTION_WITH_INPUT if has_both else _INTRODUCTION) + _REQUEST
        sections = [introduction]
        for turn in history_of(row, HISTORY):
            title = "Response" if role_of(turn) == "assistant" else "Instruction"
            sections.append(f"### {title}:\n{turn.get('content') or turn.get('value')}")
        sections.append(f"### Instruction:\n{instruction if has_both else question}")
        sections += [f"### Input:\n{context}"] if has_both else []
        return "\n\n".join([*sections, "### Response:\n"]), answer
