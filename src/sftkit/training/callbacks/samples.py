"""What the model answers to a few prompts while it trains, so that a person can see it learn."""

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
    """Has the model answer prompts before the first step, every `every` steps and at the end, in the main process.

    Answers are greedy and draw no random number: the losses of a run are the same with and without them.
    """

    def __init__(
        self, *, prompts: Sequence[Prompt], answerer: AnswerGenerator, every: int, path: Path, listener: RunListener
    ):
        self._prompts = prompts
        self._answerer = answerer
        self._every = every
        self._file = JsonLinesFile(path)
        self._listener = listener
        self._answered = -1

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """What the model says before it has learned anything; a run that resumes has asked that already."""
        if weights_are_sharded(args):
            warn_on_main_process(
                _log, "sample_prompts: the weights are spread over the processes; there will be no samples"
            )
        elif state.is_world_process_zero:
            self._file.begin(state.global_step)
        if not state.global_step:
            self._answer(args, state, kwargs["model"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Answer when it is time."""
        if state.global_step % self._every == 0:
            self._answer(args, state, kwargs["model"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Answer once more, unless the last step did."""
        if state.global_step != self._answered:
            self._answer(args, state, kwargs["model"])

    def _answer(self, args: TrainingArguments, state: TrainerState, model: Any) -> None:
        self._answered = state.global_step
        if not state.is_world_process_zero or weights_are_sharded(args):
            return
        for prompt in self._prompts:
            sample = Sample(state.global_step, prompt.text, self._answerer.answer(model, prompt))
            self._file.append(asdict(sample))
            self._listener.on_sample(sample)


@dataclass(frozen=True)
class AnswerGenerator:
    """Lets a model go on from a prompt, the likeliest token each time, until it stops.

    stop_ids: tokens that end an answer. max_new_tokens: the longest answer there may be.
    """

    tokenizer: PreTrainedTokenizerBase
    stop_ids: tuple[int, ...]
    max_new_tokens: int

    def answer(self, model: Any, prompt: Prompt) -> str:
        """The answer as text, with its special tokens but for the one that ends it."""
        ids = torch.tensor([prompt.ids], device=model.device)
        make: Any = GenerationConfig
        settings = make(
            do_sample=False,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=list(self.stop_ids) or None,
            pad_token_id=self.stop_ids[0] if self.stop_ids else 0,
        )
        with _inference(model), _own_generation_config(model, settings):
            made: Any = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        new: list[int] = made[0, len(prompt.ids) :].tolist()
        if new and new[-1] in self.stop_ids:
            new.pop()
        return str(self.tokenizer.decode(new))


def make_sample_callback(
    config: TrainConfig, tokenizer: PreTrainedTokenizerBase, listener: RunListener
) -> SampleCallback | None:
    """The callback that answers `sample_prompts`; None where there are none.

    Raises:
        TrainingError: the chat template takes no conversation of one user message.
    """
    if not config.sample_prompts:
        return None
    name = config.tokenizer_name_or_path or config.model_name_or_path or ""
    given = config.chat_template_kwargs
    return SampleCallback(
        prompts=[encode_prompt(text, tokenizer, given) for text in config.sample_prompts],
        answerer=AnswerGenerator(tokenizer, stop_ids(tokenizer, name, given), config.sample_max_new_tokens),
        every=config.sample_steps,
        path=Path(config.output_dir) / SAMPLES_NAME,
        listener=listener,
    )


@contextmanager
def _inference(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout, no checkpointing, a key-value cache) without gradients, and back."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


@contextmanager
def _own_generation_config(model: Any, settings: GenerationConfig) -> Iterator[None]:
    """`generate` fills what is not given from the model's own settings: sampling and penalties have no place here."""
    owner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = owner.generation_config
    owner.generation_config = settings
    try:
        yield
    finally:
        owner.generation_config = own
