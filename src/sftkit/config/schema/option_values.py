"""Values of options that other modules name."""

from __future__ import annotations

LOG_LEVELS = ("debug", "info", "warning", "error", "critical", "passive")

NO_COMPAT, FMS = "none", "fms"
"""The values of `compat`: rows as sftkit makes them, or with the choices of fms-hf-tuning where they differ."""

SPLIT_TURNS = "split_turns"
"""The value of `overflow` for conversations that are split into several rows."""

ONCE, PER_TURN, AUTO = "once", "per_turn", "auto"
"""The values of `render`: a conversation is rendered once, or as the model sees it at each of its trained turns; `auto`
does the second where the first would train a turn after another prompt, or without its reasoning."""

ANY, INNER = "any", "inner"
"""The values of `range_edges`: tokens are trained if any of their characters is, or if all are."""

ASSISTANT = "assistant"
ROLES = (ASSISTANT, "user", "tool", "system")
"""The values of `roles_to_train`."""

INFERENCE, JOINT = "inference", "joint"
"""The values of `boundary`: prompts and answers have the tokens of inference, or those of the whole text."""

NO_PACKING = "none"
"""The value of `packing` for rows that are not packed."""

SFTKIT, TRL, AXOLOTL, LLAMAFACTORY = "sftkit", "trl", "axolotl", "llamafactory"
"""The values of `parquet_columns`: the trainer that the shards are for."""
