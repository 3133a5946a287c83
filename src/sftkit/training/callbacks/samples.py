"""Let the model answer a few prompts while it trains, so that a person can watch it learn."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from sftkit.config.commands import TrainConfig
from sftkit.training.callbacks.listener import RunListener, Sample
from sftkit.training.callbacks.logs import JsonLinesFile
from sftkit.training.callbacks.prompts import Prompt, encode_prompt, stop_ids
from sftkit.training.distributed import warn_on_main_process, weights_are_sharded

_log = logging.getLogger(__name__)

SAMPLES_NAME = "samples.jsonl"


class SampleCallback(TrainerCallback):
    """Has the model answer prompts before the first step, every few steps and at the end, in the main process only.

    Answers are greedy and draw no random numbers, so the losses of a run are identical with and without them.
    """

    def __init__(
        self,
        *,
        prompts: Sequence[Prompt],
        generator: AnswerGenerator,
        interval: int,
        path: Path,
        listener: RunListener,
    ) -> None:
        """Set up the callback.

        Args:
            prompts: the prompts to answer.
            generator: generates an answer.
            interval: steps between answers.
            path: JSON lines file that the answers are written to.
            listener: receives each answer.
        """
        self._prompts = prompts
        self._generator = generator
        self._interval = interval
        self._file = JsonLinesFile(path)
        self._listener = listener
        self._last_answered_step = -1

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Answer before the first step, unless the run resumes."""
        if weights_are_sharded(args):
            warn_on_main_process(
                _log, "sample_prompts: there are no samples when the weights are sharded over the processes"
            )
        elif state.is_world_process_zero:
            self._file.begin(state.global_step)
        if not state.global_step:
            self._answer(args, state, kwargs["model"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Answer at every multiple of the interval."""
        if state.global_step % self._interval == 0:
            self._answer(args, state, kwargs["model"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Answer once more, unless the last step did."""
        if state.global_step != self._last_answered_step:
            self._answer(args, state, kwargs["model"])

    def _answer(self, args: TrainingArguments, state: TrainerState, model: Any) -> None:
        self._last_answered_step = state.global_step
        if not state.is_world_process_zero or weights_are_sharded(args):
            return
        for prompt in self._prompts:
            sample = Sample(state.global_step, prompt.text, self._generator.answer(model, prompt))
            self._file.append(asdict(sample))
            self._listener.on_sample(sample)


@dataclass(frozen=True)
class AnswerGenerator:
    """Greedy decoding: the most likely token each time, until a stop token or a maximum length."""

    tokenizer: PreTrainedTokenizerBase
    stop_ids: tuple[int, ...]
    max_new_tokens: int

    def answer(self, model: Any, prompt: Prompt) -> str:
        """The answer as text, including its special tokens except the stop token at the end."""
        ids = torch.tensor([prompt.ids], device=model.device)
        make: Any = GenerationConfig
        settings = make(
            do_sample=False,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=list(self.stop_ids) or None,
            pad_token_id=self.stop_ids[0] if self.stop_ids else 0,
        )
        with _evaluation_mode(model), _generation_config(model, settings):
            made: Any = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        new: list[int] = made[0, len(prompt.ids) :].tolist()
        if new and new[-1] in self.stop_ids:
            new.pop()
        return str(self.tokenizer.decode(new))


def make_sample_callback(
    config: TrainConfig, tokenizer: PreTrainedTokenizerBase, template_date: str | None, listener: RunListener
) -> SampleCallback | None:
    """The callback that answers `sample_prompts`; None if there are none.

    Args:
        config: the run.
        tokenizer: with the chat template that made the data.
        template_date: the day that the template was given for the data, as YYYY-MM-DD; None for today.
        listener: is given the answers.

    Raises:
        TrainingError: the chat template cannot render a conversation of one user message.
    """
    if not config.sample_prompts:
        return None
    name = config.tokenizer_name_or_path or config.model_name_or_path or ""
    template_kwargs = config.chat_template_kwargs
    return SampleCallback(
        prompts=[encode_prompt(text, tokenizer, template_kwargs, template_date) for text in config.sample_prompts],
        generator=AnswerGenerator(tokenizer, stop_ids(tokenizer, name, template_kwargs), config.sample_max_new_tokens),
        interval=config.sample_steps,
        path=Path(config.output_dir) / SAMPLES_NAME,
        listener=listener,
    )


@contextmanager
def _evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout or checkpointing, with a key-value cache) without gradients; restored afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


@contextmanager
def _generation_config(model: Any, settings: GenerationConfig) -> Iterator[None]:
    """Replace the model's generation config, whose sampling and penalties `generate` would use as defaults."""
    owner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    original = owner.generation_config
    owner.generation_config = settings
    try:
        yield
    finally:
        owner.generation_config = original
