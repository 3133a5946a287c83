"""Names that chat data and chat templates use: roles, reasoning, loss flags and template variables."""

from __future__ import annotations

ASSISTANT_ROLES = frozenset(
    {"assistant", "assistant_tool_call", "model", "gpt", "bot", "chatbot", "chatgpt", "ai", "function_call"}
)
"""Names of the assistant role, in lower case."""

USER_ROLES = frozenset({"user", "human"})
"""Names of the user role, in lower case."""

TOOL_ROLES = frozenset(
    {"tool", "function", "observation", "observations", "ipython", "function_response", "tool_response"}
    | {"tool_responses", "tool_result", "tool_results"}
)
"""Names of the role of tool results, in lower case."""

SYSTEM_ROLES = frozenset({"system", "developer"})
"""Names of the role of instructions, in lower case."""

USUAL_ROLES = frozenset({"system", "user", "assistant", "tool"})

ROLE_NAMES = {"assistant": ASSISTANT_ROLES, "user": USER_ROLES, "tool": TOOL_ROLES, "system": SYSTEM_ROLES}
"""The names of roles that `roles_to_train` can have, in lower case."""

KNOWN_ROLES = (
    USUAL_ROLES
    | ASSISTANT_ROLES
    | {
        *USER_ROLES,
        *("developer", "function", "function_response", "observation", "ipython", "context", "documents"),
        *("tool_call", "tool_calls", "tool_response", "tool_responses", "tool_result", "tool_results", "tools"),
    }
)
"""Roles that some format or some chat template has."""

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning", "thought")
"""Message fields that hold the reasoning of an assistant message."""

TEMPLATE_REASONING_FIELDS = ("reasoning_content", "thinking")
"""The fields from which chat templates read reasoning."""

TRANSFORMERS_REASONING_FIELDS = (*TEMPLATE_REASONING_FIELDS, "reasoning")
"""The fields that `apply_chat_template` of transformers copies to `TEMPLATE_REASONING_FIELDS` before it renders
(`transformers.utils.chat_template_utils`), in the order of their precedence. Templates get all other fields
unchanged."""

REASONING_PART_TYPES = frozenset({"thinking", "reasoning", "think"})
"""Values of `type` of the content parts that hold reasoning."""

REASONING_PART_FIELDS = ("thinking", "text", "reasoning")
"""Fields of such a part that may hold its text."""

REASONING_TAG_WORDS = "think|reason|thought"
"""Regular expression for the words in reasoning tags: `<think>`, `<|START_THINKING|>`, `<seed:think>`,
`<|begin_of_thought|>`."""

THINKING_SWITCHES = ("enable_thinking", "thinking")
"""Template variables that switch reasoning on or off."""

NO_THINKING_VALUES = (
    ("enable_thinking", False, True),
    ("thinking", False, True),
    ("reasoning", False, True),
    ("reasoning_effort", "none", "high"),
    ("thinking_budget", 0, 512),
)
"""Template variables with the value for an answer without reasoning, and one for an answer with it."""

TRAIN_FLAGS = ("train", "training", "trainable", "loss")
"""Message fields that say whether a message carries a loss, true or false, in the names of several tools."""

WEIGHT_FLAGS = ("weight", "loss_weight", "loss_scale")
"""Message fields that do so as the weight of its loss: 0, or more."""

LOSS_FLAGS = (*TRAIN_FLAGS, *WEIGHT_FLAGS)
"""All message fields that exclude a message from the loss (`train: false`, `weight: 0`)."""

TRAIN_RANGES = "train_ranges"
"""Message field that says which characters of the content carry a loss."""

PARTIAL_LOSS_FLAGS = (TRAIN_RANGES, "train_detail", "training_detail")
"""All message fields that do; the others are those of axolotl."""

RESERVED_VARIABLES = frozenset(
    {"messages", "conversation", "conversations", "tools", "documents", "chat_template", "add_generation_prompt"}
    | {"continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict"}
    | {"return_assistant_tokens_mask", "tokenizer_kwargs", "sanitize_control_tokens", "self"}
)
"""Names that `chat_template_kwargs` must not contain: they are arguments of transformers' `apply_chat_template`."""
