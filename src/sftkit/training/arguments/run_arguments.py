"""Training arguments that keep their secrets: importing this module imports transformers and torch."""

from __future__ import annotations

import copy
import copyreg
from typing import Any

from transformers import TrainingArguments

from sftkit.training.arguments.public_values import PublicValues

_SECRET = "hub_token"
_DEEPSPEED = ("hf_deepspeed_config", "deepspeed_plugin")  # objects with a copy of the config in `deepspeed`


class RunArguments(TrainingArguments):
    """Training arguments as the user gave them, of which trackers and files see only what is public.

    Trackers call `to_dict`, `to_json_string` and `to_sanitized_dict`; the Trainer pickles the object to
    `training_args.bin`.
    """

    public = PublicValues({})
    planned_processes: int | None = None

    @property
    def world_size(self) -> int:
        """Processes that train together; of a plan, those that it is made for."""
        return self.planned_processes or int(super().world_size)

    def to_dict(self) -> dict[str, Any]:
        """The arguments as plain data, without what must not be written."""
        plain: dict[str, Any] = super().to_dict()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        shown: dict[str, Any] = self.public.value({**plain, _SECRET: None})
        return {**shown, _SECRET: plain[_SECRET]}  # of which transformers shows only that it exists

    def __reduce__(self) -> Any:
        """Pickle as plain `TrainingArguments`, which can be read without sftkit."""
        state = {name: self.public.value(value, name) for name, value in vars(self).items() if name != "public"}
        state[_SECRET] = None
        if self.deepspeed:
            state |= dict.fromkeys(_DEEPSPEED)
        # What the oldest protocol of pickle writes for an object: it may name another class than that of the object.
        return copyreg._reconstructor, (TrainingArguments, object, None), state  # type: ignore[attr-defined]

    def __deepcopy__(self, memo: dict[int, Any]) -> RunArguments:
        """Copy everything: a copy is used, not written."""
        copied = object.__new__(type(self))
        copied.__dict__ |= copy.deepcopy(self.__dict__, memo)
        return copied
