from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments, set_seed

from sftkit.config.commands import TrainConfig
from sftkit.errors import TrainingError
from sftkit.training.adapters.adapter_choice import uses_adapters
from sftkit.training.adapters.new_adapters import add_adapters
from sftkit.training.models.freezing import count_parameters
from sftkit.training.models.model_loading import fit_embeddings, load_model
from sftkit.training.multimodal.text_use import trace_text_use
from sftkit.training.saving.merged_model import save_merged

pytestmark = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")

ROWS = 20
NEW = (20, 21, 22)
INPUTS = torch.tensor([[1, 2, 22, 5, 21, 7, 22, 3]])


def arguments(folder: Path, **given: Any) -> TrainingArguments:
    return TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, **given)


def config(model: Path, output: Path, **given: Any) -> TrainConfig:
    return TrainConfig(
        output_dir=str(output), model_name_or_path=str(model), **{"use_peft": True, "lora_r": 4, **given}
    )


def adapted(config: TrainConfig, arguments: TrainingArguments, new: Sequence[int] = ()) -> Any:
    set_seed(3)
    model = load_model(config, arguments)
    if new:
        fit_embeddings(model, new[-1] + 1, new[0])
    return add_adapters(model, config, new, trace_text_use(model))


def trained(model: Any, inputs: torch.Tensor, *, saved: Path) -> Any:
    optimizer = torch.optim.AdamW([values for values in model.parameters() if values.requires_grad], lr=1e-2)
    for _ in range(8):
        model(input_ids=inputs, labels=inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(saved)
    return model


def logits(model: Any, inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=inputs).logits
    return found


def test_saved_adapters_and_the_merged_model_give_the_same_logits(tmp_path: Path, model_dir: Path) -> None:
    from peft import PeftModel

    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_dir)
    settings, run = config(model_dir, tmp_path, merge_lora=True), arguments(tmp_path)
    expected = logits(trained(adapted(settings, run), INPUTS, saved=tmp_path), INPUTS)
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    assert (logits(base, INPUTS) - expected).abs().max() > 0.1  # the adapters have learned something
    assert not list(tmp_path.glob("model*.safetensors"))
    torch.testing.assert_close(logits(PeftModel.from_pretrained(base, tmp_path), INPUTS), expected)

    folder = save_merged(settings, run, tokenizer, len(tokenizer))
    assert folder == tmp_path / "merged"
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(folder), INPUTS), expected)
    assert PreTrainedTokenizerFast.from_pretrained(folder).chat_template == tokenizer.chat_template


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("all_rows", [False, True])
def test_embeddings_of_new_tokens_are_trained_and_saved(
    tmp_path: Path, make_model: Callable[..., None], tied: bool, all_rows: bool
) -> None:
    from peft import PeftModel

    make_model(tmp_path, ROWS, tied=tied)
    modules = ("embed_tokens",) if tied else ("embed_tokens", "lm_head")
    settings = config(tmp_path, tmp_path / "out", lora_modules_to_save=modules if all_rows else ())
    model = adapted(settings, arguments(tmp_path / "out"), NEW)
    before = model.get_input_embeddings().weight.detach().clone()
    expected = logits(trained(model, INPUTS, saved=tmp_path / "out"), INPUTS)

    base = AutoModelForCausalLM.from_pretrained(tmp_path)
    base.resize_token_embeddings(ROWS + len(NEW), mean_resizing=False)
    again = PeftModel.from_pretrained(base, tmp_path / "out")
    torch.testing.assert_close(logits(again, INPUTS), expected)
    merged = again.merge_and_unload()
    torch.testing.assert_close(logits(merged, INPUTS), expected, rtol=1e-4, atol=1e-4)
    changed = (merged.get_input_embeddings().weight - before).abs().amax(1) > 0
    assert changed[torch.tensor(NEW)[[1, 2]]].all()  # 20 is not in the inputs
    old = set(torch.nonzero(changed[:ROWS]).flatten().tolist())
    assert bool(old) == all_rows  # known tokens do not change unless all rows are trained
    assert (merged.get_output_embeddings().weight is merged.get_input_embeddings().weight) == tied


def test_only_adapters_are_trained(tmp_path: Path, make_model: Callable[..., None]) -> None:
    make_model(tmp_path, ROWS)
    model = adapted(config(tmp_path, tmp_path / "out"), arguments(tmp_path / "out"))
    # A pair of matrices for each of q, k, v, o (32 -> 32) and gate, up (32 -> 64), down (64 -> 32), in two layers.
    lora = 2 * 4 * (4 * (32 + 32) + 3 * (32 + 64))
    counts = count_parameters(model)
    assert (counts.trained, counts.total - counts.trained) == (
        lora,
        AutoModelForCausalLM.from_pretrained(tmp_path).num_parameters(),
    )
    assert all("lora_" in name for name, values in model.named_parameters() if values.requires_grad)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_does_not_change_the_gradients(
    tmp_path: Path, make_model: Callable[..., None], reentrant: bool
) -> None:
    make_model(tmp_path, ROWS)
    settings, run = config(tmp_path, tmp_path / "out"), arguments(tmp_path / "out")
    gradients = []
    for checkpointing in (False, True):
        model = adapted(settings, run).train()
        if checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
        model(input_ids=INPUTS % ROWS, labels=INPUTS % ROWS).loss.backward()
        gradients.append({name: values.grad for name, values in model.named_parameters() if values.requires_grad})
    torch.testing.assert_close(gradients[1], gradients[0])
    assert all(found is not None for found in gradients[1].values())
    assert any(found.abs().max() > 0 for name, found in gradients[1].items() if ".layers.0." in name)


def test_a_run_with_adapters_resumes_from_its_checkpoint(tmp_path: Path, make_model: Callable[..., None]) -> None:
    make_model(tmp_path, ROWS)
    rows = [
        {"input_ids": row, "labels": row} for row in torch.randint(0, ROWS, (12, 6), generator=torch.manual_seed(0))
    ]

    def run(checkpoint: str | None) -> list[float]:
        run_arguments = arguments(
            tmp_path / "out",
            max_steps=4,
            save_steps=2,
            logging_steps=1,
            learning_rate=1e-2,
            per_device_train_batch_size=3,
        )
        model = adapted(config(tmp_path, tmp_path / "out", lora_dropout=0.1), run_arguments)
        trainer = Trainer(model=model, args=run_arguments, train_dataset=rows)  # type: ignore[arg-type]
        trainer.train(resume_from_checkpoint=checkpoint)
        return [event["loss"] for event in trainer.state.log_history if "loss" in event]

    expected = run(None)
    assert len(expected) == 4
    assert run(str(tmp_path / "out" / "checkpoint-2")) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lora_target_modules": ("q_prj",)}, r"lora_target_modules: the model has no module 'q_prj'; .*q_proj"),
        (
            {"lora_modules_to_save": ("head",)},
            r"lora_modules_to_save: the model has no module 'head'; .*lm_head",
        ),
        ({"lora_target_modules": ("layers",)}, "LoRA adapters cannot be added: .*ModuleList"),
    ],
)
def test_invalid_modules_are_refused(
    tmp_path: Path, make_model: Callable[..., None], given: dict[str, Any], message: str
) -> None:
    make_model(tmp_path, ROWS)
    with pytest.raises(TrainingError, match=message):
        adapted(config(tmp_path, tmp_path / "out", **given), arguments(tmp_path / "out"))


def test_4_bits_imply_adapters(tmp_path: Path) -> None:
    assert uses_adapters(config(tmp_path, tmp_path, use_peft=False, load_in_4bit=True))
    assert not uses_adapters(config(tmp_path, tmp_path, use_peft=False))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_in_4_bits_trains_through_its_adapters(tmp_path: Path, model_dir: Path, dtype: str) -> None:
    pytest.importorskip("bitsandbytes")
    from peft import PeftModel

    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_dir)
    settings = config(model_dir, tmp_path, use_peft=False, load_in_4bit=True, torch_dtype=dtype)
    run = arguments(tmp_path)
    model = adapted(settings, run)
    weight = model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight
    assert (weight.quant_state.quant_type, weight.quant_state.nested) == ("nf4", True)
    assert weight.quant_state.dtype == getattr(torch, dtype)
    assert count_parameters(model).total > AutoModelForCausalLM.from_pretrained(model_dir).num_parameters()
    start = model(input_ids=INPUTS, labels=INPUTS).loss.item()
    expected = logits(trained(model, INPUTS, saved=tmp_path), INPUTS)
    assert model(input_ids=INPUTS, labels=INPUTS).loss.item() < start
    torch.testing.assert_close(logits(PeftModel.from_pretrained(load_model(settings, run), tmp_path), INPUTS), expected)
    # The adapters are merged into the model as it was before quantization.
    merged = AutoModelForCausalLM.from_pretrained(save_merged(settings, run, tokenizer, len(tokenizer)))
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype))
    assert merged.dtype == base.dtype
    expected = logits(PeftModel.from_pretrained(base, tmp_path), INPUTS)
    torch.testing.assert_close(logits(merged, INPUTS), expected, rtol=1e-2, atol=1e-2)
