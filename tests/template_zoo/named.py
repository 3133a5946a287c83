"""The templates that sftkit brings along: `--chat_template chatml` and the other names."""

from __future__ import annotations

from sftkit.tokenization.templates.named_templates import named_or_given
from template_zoo.model import Expected, Quarantined, Style, cases

CHATML = Style(
    "named-chatml",
    named_or_given("chatml"),
    ("<|im_start|>", "<|im_end|>"),
    "<|im_start|>assistant\n",
    "<|im_end|>",
)
LLAMA3 = Style(
    "named-llama3",
    named_or_given("llama3"),
    ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|eot_id|>",
)
MISTRAL = Style(
    "named-mistral",
    named_or_given("mistral"),
    (
        "[INST]",
        "[/INST]",
        "[TOOL_CALLS]",
        "[AVAILABLE_TOOLS]",
        "[/AVAILABLE_TOOLS]",
        "[TOOL_RESULTS]",
        "[/TOOL_RESULTS]",
    ),
    "[INST] a[/INST]",
    "</s>",
)
GEMMA = Style(
    "named-gemma",
    named_or_given("gemma"),
    ("<start_of_turn>", "<end_of_turn>"),
    "<start_of_turn>model\n",
    "<end_of_turn>",
)
GRANITE = Style(
    "named-granite",
    named_or_given("granite"),
    ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
    "<|start_of_role|>assistant<|end_of_role|>",
    "<|end_of_text|>",
)


def _texts(stop: str, before: str = "", *, trimmed: bool) -> dict[str, Expected]:
    """What carries a loss in conversations of texts, for a template with this stop token."""

    def turns(*contents: str) -> list[str]:
        return [f"{before}{content.strip() if trimmed else content}{stop}" for content in contents]

    return {
        "single": turns("hello"),
        "multi": turns("hello", "see you"),
        "system": turns("hello", "see you"),
        "same": turns("same", "same"),
        "empty": turns("", "d"),
        "empty last": turns("b", ""),
        "blank": turns(" \n ", "d"),
        "padded": turns("  b \n", "\n d"),
        "trailing stop": turns(f"x{stop} \n ", f"\n{stop}"),
        "twice": turns("b", "c"),
        "first": turns("b", "d"),
        "open": turns("b"),
        "parts": turns("cd", "d"),
        "think": turns("<think>\nhm\n</think>\n\nb", "<think>\nho\n</think>\n\nd"),
    }


def _tools(one: str, two: str, stop: str, between: str, before: str = "") -> dict[str, Expected]:
    """What carries a loss in conversations with calls: one call, two calls, and what is between a text and a call."""
    return {
        "tool": [f"{one}{stop}", f"{before}It is 3.{stop}"],
        "tool null": [f"{one}{stop}", f"{before}It is 3.{stop}"],
        "tool words": [f"{before}Let me see.{between}{one}{stop}", f"{before}It is 3.{stop}"],
        "tool then more": [f"{one}{stop}", f"{before}It is 3.{stop}", f"{before}see you{stop}"],
        "parallel": [f"{two}{stop}", f"{before}3 and 7.{stop}"],
        "same results": [f"{one}{stop}", f"{one}{stop}", f"{before}3{stop}"],
    }


_THINK = "<think>\nhm\n</think>\n\n", "<think>\nho\n</think>\n\n"
_TAGGED = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
_TAGGED_2 = '<tool_call>\n{"name": "add", "arguments": {"a": 3, "b": 4}}\n</tool_call>'
_OBJECT = '{"name": "add", "parameters": {"a": 1, "b": 2}}'
_OBJECT_2 = '{"name": "add", "parameters": {"a": 3, "b": 4}}'
_LIST = '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": 2}, "id": "call00001"}]'
_LIST_2 = (
    '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": 2}, "id": "call00001"}, '
    '{"name": "add", "arguments": {"a": 3, "b": 4}, "id": "call00002"}]'
)


def _reasoning(first: str, second: str, stop: str, call: str) -> dict[str, Expected]:
    answers = [f"{first}b{stop}", f"{second}d{stop}"]
    return {
        "reasoning": answers,
        "thinking": answers,
        "tool thought": [f"{first}{call}{stop}", f"{second}It is 3.{stop}"],
        "tool last": [f"{first}{call}{stop}"],
    }


CASES = [
    *cases(
        CHATML,
        {
            **_texts("<|im_end|>", trimmed=False),
            **_tools(_TAGGED, f"{_TAGGED}\n{_TAGGED_2}", "<|im_end|>", "\n"),
            **_reasoning(*_THINK, "<|im_end|>", _TAGGED),
            "lookalike": ["<|im_start|>assistant\nx<|im_end|>", "d<|im_end|>e<|im_end|>"],
            "mimic": ["<|im_start|>assistant\n<|im_end|>", "<|im_end|><|im_end|>"],
        },
    ),
    *cases(
        LLAMA3,
        {
            **_texts("<|eot_id|>", trimmed=True),
            **_tools(_OBJECT, f"{_OBJECT}; {_OBJECT_2}", "<|eot_id|>", "\n\n"),
            **_reasoning(*_THINK, "<|eot_id|>", _OBJECT),
            "lookalike": ["<|start_header_id|>assistant<|end_header_id|>\n\nx<|eot_id|>", "d<|eot_id|>e<|eot_id|>"],
        },
    ),
    *cases(
        MISTRAL,
        {
            **_texts("</s>", " ", trimmed=True),
            **_tools(_LIST, _LIST_2, "</s>", "", " "),
            "tool thought": [f" [THINK]hm[/THINK]{_LIST}</s>", " [THINK]ho[/THINK] It is 3.</s>"],
            "reasoning": [" [THINK]hm[/THINK] b</s>", " [THINK]ho[/THINK] d</s>"],
            "lookalike": [" [INST] a[/INST]x</s>", " d</s>e</s>"],
        },
    ),
    *cases(
        GEMMA,
        {
            **_texts("<end_of_turn>", trimmed=True),
            "reasoning": [f"{_THINK[0]}b<end_of_turn>", f"{_THINK[1]}d<end_of_turn>"],
            "lookalike": ["<start_of_turn>model\nx<end_of_turn>", "d<end_of_turn>e<end_of_turn>"],
            "tool": Quarantined,
            "tool words": Quarantined,
        },
    ),
    *cases(
        GRANITE,
        {
            **_texts("<|end_of_text|>", trimmed=False),
            **_tools(_TAGGED, f"{_TAGGED}\n{_TAGGED_2}", "<|end_of_text|>", "\n"),
            **_reasoning(*_THINK, "<|end_of_text|>", _TAGGED),
            "lookalike": [
                "<|start_of_role|>assistant<|end_of_role|>x<|end_of_text|>",
                "d<|end_of_text|>e<|end_of_text|>",
            ],
        },
    ),
]
