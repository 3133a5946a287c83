from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from sftkit.config.commands import TrainConfig
from sftkit.errors import TrainingError
from sftkit.training.callbacks.listener import Sample, SilentListener
from sftkit.training.callbacks.prompts import encode_prompt, stop_ids
from sftkit.training.callbacks.samples import AnswerGenerator, make_sample_callback


class SampleRecorder(SilentListener):
    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def on_sample(self, sample: Sample) -> None:
        self.samples.append(sample)


@pytest.fixture
def tokenizer(model_dir: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(model_dir)


def config(model: Path, output: Path, *prompts: str, **given: Any) -> TrainConfig:
    given = {"sample_steps": 2, "sample_max_new_tokens": 5, **given}
    return TrainConfig(output_dir=str(output), model_name_or_path=str(model), sample_prompts=prompts, **given)


def losses_of_a_run(
    model_dir: Path, output: Path, prompts: tuple[str, ...], checkpoint: str | None = None, **given: Any
) -> tuple[list[float], list[Sample]]:
    """The loss of each step of a model with dropout, and the samples that the listener received."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_dir)
    set_seed(5)
    model = AutoModelForCausalLM.from_pretrained(model_dir, attention_dropout=0.2)
    generator = torch.manual_seed(0)
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, len(tokenizer), (20, 8), generator=generator)]
    arguments = TrainingArguments(
        output_dir=str(output), use_cpu=True, report_to="none", disable_tqdm=True, max_steps=5, logging_steps=1,
        learning_rate=1e-2, per_device_train_batch_size=4, save_steps=2, **given,
    )  # fmt: skip
    recorder = SampleRecorder()
    samples = make_sample_callback(config(model_dir, output, *prompts), tokenizer, None, recorder)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        callbacks=[samples] if samples else [],  # type: ignore[arg-type]
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    assert model.training
    return [event["loss"] for event in trainer.state.log_history if "loss" in event], recorder.samples


@pytest.mark.parametrize(
    "given",
    [
        {},
        pytest.param({"gradient_checkpointing": True}, marks=pytest.mark.slow),
        pytest.param({"neftune_noise_alpha": 5.0}, marks=pytest.mark.slow),
    ],
)
def test_losses_are_identical_with_and_without_samples(tmp_path: Path, model_dir: Path, given: dict[str, Any]) -> None:
    expected, none = losses_of_a_run(model_dir, tmp_path / "without", (), **given)
    losses, samples = losses_of_a_run(model_dir, tmp_path / "with", ("the cat", "a dog\nran"), **given)
    assert losses == expected
    assert none == []
    assert [(sample.step, sample.prompt) for sample in samples] == [
        (step, prompt) for step in (0, 2, 4, 5) for prompt in ("the cat", "a dog\nran")
    ]
    lines = (tmp_path / "with" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [vars(sample) for sample in samples]
    assert not (tmp_path / "without" / "samples.jsonl").exists()


def test_a_resumed_run_continues_its_samples(tmp_path: Path, model_dir: Path) -> None:
    whole, samples = losses_of_a_run(model_dir, tmp_path / "out", ("the cat",))
    assert [sample.step for sample in samples] == [0, 2, 4, 5]
    again, later = losses_of_a_run(model_dir, tmp_path / "out", ("the cat",), str(tmp_path / "out" / "checkpoint-2"))
    assert again == whole
    assert later == samples[2:]
    lines = (tmp_path / "out" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [vars(sample) for sample in samples]


def greedy(model: Any, ids: list[int], count: int) -> list[int]:
    """The reference: runs the whole sequence again for every token, without a cache."""
    with torch.no_grad():
        for _ in range(count):
            ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[-count:]


def test_answers_are_greedy_and_end_at_a_stop_token_whatever_the_generation_config(
    model_dir: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_dir).train()
    original = GenerationConfig(do_sample=True, temperature=9.0, repetition_penalty=50.0, max_new_tokens=1)
    model.generation_config = original
    prompt = encode_prompt("the cat", tokenizer, {})
    expected = greedy(model, list(prompt.ids), 8)
    assert AnswerGenerator(tokenizer, (), 8).answer(model, prompt) == tokenizer.decode(expected)
    stop = next(token for token in expected if token != expected[0])
    until = expected[: expected.index(stop)]
    assert AnswerGenerator(tokenizer, (stop,), 8).answer(model, prompt) == tokenizer.decode(until)
    assert model.training
    assert model.generation_config is original


def test_answers_use_the_adapters_of_a_model(model_dir: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    prompt = encode_prompt("the cat", tokenizer, {})
    alone = AnswerGenerator(tokenizer, (), 8).answer(base, prompt)
    set_seed(0)
    settings = peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", init_lora_weights=False)
    model = peft.get_peft_model(base, settings)
    answer = AnswerGenerator(tokenizer, (), 8).answer(model, prompt)
    assert answer == tokenizer.decode(greedy(model, list(prompt.ids), 8))
    assert answer != alone


def test_prompts_use_the_chat_template_if_there_is_one(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<s>{{ name }}\n{% endif %}"
    )
    prompt = encode_prompt("the cat", tokenizer, {"name": "assistant"})
    assert tokenizer.decode(list(prompt.ids)) == "<s>user\nthe cat</s><s>assistant\n"
    tokenizer.chat_template = None
    assert tokenizer.decode(list(encode_prompt("the cat", tokenizer, {}).ids)) == "the cat"


def test_prompts_that_cannot_be_encoded_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "{{ raise_exception('no system message') }}"
    with pytest.raises(TrainingError, match="cannot render a conversation of one user message: no system message"):
        encode_prompt("the cat", tokenizer, {})
    tokenizer.chat_template = None
    with pytest.raises(TrainingError, match="sample_prompts: '' has no tokens"):
        encode_prompt("", tokenizer, {})


def test_stop_tokens_come_from_the_files_of_the_model_and_the_chat_template(
    tmp_path: Path, make_tokenizer: Callable[..., Path]
) -> None:
    folder = make_tokenizer(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end>", "<other>"]})
    end, other = tokenizer.convert_tokens_to_ids(["<end>", "<other>"])
    tokenizer.chat_template = "{% for m in messages %}<s>{{ m.content }} \n<end>\n{% endfor %}"
    assert stop_ids(tokenizer, str(folder), {}) == (tokenizer.eos_token_id, end)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [other, tokenizer.eos_token_id]}))
    assert stop_ids(tokenizer, str(folder), {}) == (tokenizer.eos_token_id, other, end)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} and so on <end>{% endfor %}"
    assert stop_ids(tokenizer, str(folder), {}) == (tokenizer.eos_token_id, other)


def test_without_prompts_there_is_no_callback(
    tmp_path: Path, model_dir: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    assert make_sample_callback(config(model_dir, tmp_path), tokenizer, None, SilentListener()) is None


def test_only_the_main_process_answers_and_none_if_the_weights_are_sharded(
    tmp_path: Path, model_dir: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    recorder = SampleRecorder()
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    samples = make_sample_callback(config(model_dir, tmp_path, "the cat"), tokenizer, None, recorder)
    assert samples is not None
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    other = TrainerState(is_world_process_zero=False)
    samples.on_train_begin(arguments, other, TrainerControl(), model=model)
    assert recorder.samples == []
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    samples.on_train_begin(arguments, TrainerState(), TrainerControl(), model=model)
    samples.on_train_end(arguments, TrainerState(global_step=9), TrainerControl(), model=model)
    assert recorder.samples == []
    assert not (tmp_path / "samples.jsonl").exists()
    assert caplog.messages == ["sample_prompts: there are no samples when the weights are sharded over the processes"]
