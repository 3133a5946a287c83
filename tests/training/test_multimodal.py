from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BlipConfig,
    BlipForConditionalGeneration,
    Gemma3Config,
    Llama4Config,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    MllamaConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2AudioConfig,
    Qwen3_5Config,
    T5Config,
    ViTConfig,
    VoxtralConfig,
)

from sftkit.config.commands import TrainConfig
from sftkit.config.loading import load_config
from sftkit.errors import TrainingError
from sftkit.shards.reading import open_shards
from sftkit.training.arguments.build_arguments import extra_keys, make_training_arguments
from sftkit.training.callbacks.listener import SilentListener
from sftkit.training.metrics.flops import training_cost
from sftkit.training.models.freezing import freeze_unused
from sftkit.training.multimodal.model_class import answer_as_text_model, auto_class, model_class
from sftkit.training.multimodal.text_use import has_other_parts, text_use_by_class, trace_text_use
from sftkit.training.run import train
from sftkit.training.setup.unused_parameters import find_unused_parameters

from .material import Launch, logged, run_launches
from .multimodal_models import PROCESSOR, TEXT, make_llava, save_llava

KEY = "ddp_find_unused_parameters"
VISION_PARTS = ("vision_tower", "multi_modal_projector")


class Notes(SilentListener):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def llava_dir(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    tokens = len(PreTrainedTokenizerFast.from_pretrained(model_dir))
    return save_llava(tmp_path_factory.mktemp("llava"), model_dir, tokens)


def line(model: Path, output: Path, *argv: str) -> list[str]:
    return [
        f"--model_name_or_path={model}", f"--output_dir={output}", "--use_cpu=true", "--logging_steps=1",
        "--per_device_train_batch_size=24", "--max_steps=1", *argv,
    ]  # fmt: skip


def run(model: Path, shards: Path, output: Path, *argv: str) -> Notes:
    listener = Notes()
    config = load_config(TrainConfig, line(model, output, *argv), extra_keys=extra_keys())
    train(config, make_training_arguments(config), open_shards(str(shards)), listener)
    return listener


def loss_and_norm(model: Any, shards: Path) -> tuple[float, float]:
    """Sequence by sequence, of the trained parameters alone."""
    rows = pq.read_table(shards / "train-00000-of-00001.parquet").to_pylist()
    trained = sum(label != -100 for row in rows for label in row["labels"][1:])
    total = 0.0
    for row in rows:
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        loss = functional.cross_entropy(logits, torch.tensor(row["labels"][1:]), reduction="sum") / trained
        loss.backward()
        total += loss.item()
    gradients = [values.grad for values in model.parameters() if values.grad is not None]
    return total, float(torch.sqrt(sum((found**2).sum() for found in gradients)))  # type: ignore[arg-type]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(), "LlamaForCausalLM"),
        (Gemma3Config(), "Gemma3ForConditionalGeneration"),
        (Qwen2_5_VLConfig(), "Qwen2_5_VLForConditionalGeneration"),
        (Qwen2AudioConfig(), "Qwen2AudioForConditionalGeneration"),
        (VoxtralConfig(), "VoxtralForConditionalGeneration"),
        # AutoModelForCausalLM would build only their language models.
        (Llama4Config(), "Llama4ForConditionalGeneration"),
        (MllamaConfig(), "MllamaForConditionalGeneration"),
        (Qwen3_5Config(), "Qwen3_5ForConditionalGeneration"),
        (Qwen3_5Config(architectures=["Qwen3_5ForCausalLM"]), "Qwen3_5ForCausalLM"),
    ],
)
def test_the_class_loads_the_whole_model(config: Any, expected: str) -> None:
    assert model_class(config).__name__ == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (T5Config(), "'t5' is an encoder-decoder model; name one that only has a decoder"),
        (ViTConfig(), "transformers has no model of the type 'vit' that generates text"),
    ],
)
def test_models_of_other_kinds_are_refused(config: Any, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        auto_class(config)


@pytest.mark.parametrize("padding_free", ["auto", "false"])
def test_text_trains_the_language_model_and_the_checkpoint_is_whole(
    tmp_path: Path, llava_dir: Path, shard_dir: Path, padding_free: str
) -> None:
    listener = run(llava_dir, shard_dir, tmp_path, f"--padding_free={padding_free}", "--learning_rate=1e-2")
    loss, norm = loss_and_norm(LlavaForConditionalGeneration.from_pretrained(llava_dir), shard_dir)
    assert logged(tmp_path, "loss") == [pytest.approx(loss, rel=1e-5)]
    assert logged(tmp_path, "grad_norm") == [pytest.approx(norm, rel=1e-5)]
    frozen = "frozen, because text gives them no gradient: model.vision_tower, model.multi_modal_projector ("
    assert any(note.startswith(frozen) for note in listener.notes)

    before, after = weights(llava_dir), weights(tmp_path)
    assert before.keys() == after.keys()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if any(part in name for part in VISION_PARTS)}
    assert type(AutoModelForImageTextToText.from_pretrained(tmp_path)) is LlavaForConditionalGeneration
    checkpoint = tmp_path / "checkpoint-1"
    for folder in (tmp_path, checkpoint):
        assert (folder / "processor_config.json").read_text() == PROCESSOR
        assert json.loads((folder / "preprocessor_config.json").read_text()) == {"do_resize": True}
        assert (folder / "chat_template.jinja").exists()


def test_new_tokens_get_embeddings_in_a_multimodal_model(tmp_path: Path, llava_dir: Path, shard_dir: Path) -> None:
    rows = len(PreTrainedTokenizerFast.from_pretrained(llava_dir))
    run(llava_dir, shard_dir, tmp_path, "--add_special_tokens", "<new>", "--save_strategy=no")
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path)
    assert model.get_input_embeddings().weight.shape[0] == rows + 1
    assert model.config.text_config.vocab_size == rows + 1


def test_a_multimodal_model_can_start_from_its_config(tmp_path: Path, llava_dir: Path, shard_dir: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    for file in llava_dir.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    run(folder, shard_dir, tmp_path / "out", "--init_from_config=true", "--save_strategy=no")
    assert weights(tmp_path / "out").keys() == weights(llava_dir).keys()


def test_the_trace_and_the_class_agree_on_what_text_does_not_use() -> None:
    model = make_llava()
    use = trace_text_use(model)
    expected = {name for name, _ in model.named_parameters() if any(part in name for part in VISION_PARTS)}
    assert use.unused == text_use_by_class(model).unused == expected
    assert not any(part in name for name in use.modules for part in VISION_PARTS)


def test_tracing_changes_neither_the_model_nor_random_numbers() -> None:
    model = make_llava().eval()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    state = torch.get_rng_state()
    trace_text_use(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert all(values.grad is None for values in model.parameters())
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_text_model_has_no_unused_parts(model_dir: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    assert not trace_text_use(model).unused
    assert freeze_unused(model, trace_text_use(model).unused) is None
    assert all(values.requires_grad for values in model.parameters())
    assert not has_other_parts(model)  # of which parameters would be frozen that only longer rows use
    assert has_other_parts(make_llava())


def test_a_model_that_needs_images_is_refused() -> None:
    small: Mapping[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
                                "num_attention_heads": 2}  # fmt: skip
    config = BlipConfig(
        text_config={**small, "vocab_size": 20, "encoder_hidden_size": 16, "bos_token_id": 1, "sep_token_id": 2},
        vision_config={**small, "image_size": 4, "patch_size": 2},
    )
    with pytest.raises(
        TrainingError, match=r"BlipForConditionalGeneration does not compute logits from tokens alone, .*pixel_values"
    ):
        trace_text_use(BlipForConditionalGeneration(config))


def test_unused_parts_cost_nothing() -> None:
    model = make_llava()
    unused = trace_text_use(model).unused
    ids = {id(values) for name, values in model.named_parameters() if name in unused}
    freeze_unused(model, unused)
    cost, alone = training_cost(model, ids), training_cost(model.model.language_model)
    assert cost is not None
    body = sum(values.numel() for name, values in model.model.language_model.named_parameters() if "embed" not in name)
    assert cost.per_token == 6 * body
    assert alone is None  # it has no output head


class Whole(torch.nn.Module):
    """As Qwen-Omni: its parts compute, it only generates."""

    def __init__(self) -> None:
        super().__init__()
        self.listener = torch.nn.Linear(2, 2)
        self.thinker = make_llava()
        self.config, self.device = self.thinker.config, self.thinker.device


def test_a_model_of_parts_computes_as_the_part_that_writes_text() -> None:
    model: Any = Whole()
    answer_as_text_model(model)
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(model(input_ids=ids).logits, model.thinker(input_ids=ids).logits)
    assert model.get_input_embeddings() is model.thinker.get_input_embeddings()
    unused = trace_text_use(model).unused
    assert {name.split(".")[0] for name in unused} == {"listener", "thinker"}
    assert all(any(part in name for part in ("listener", *VISION_PARTS)) for name in unused)
    with pytest.raises(TrainingError, match="Module only generates"):
        answer_as_text_model(torch.nn.Module())


@pytest.mark.parametrize(
    ("processes", "given", "expected"), [(2, {}, True), (1, {}, False), (2, {KEY: "false"}, False)]
)
def test_experts_of_their_own_may_get_no_gradient(processes: int, given: dict[str, str], expected: bool) -> None:
    model = torch.nn.Module()
    model.experts = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    config = TrainConfig(output_dir="out", training_arguments=given)
    arguments: Any = SimpleNamespace(world_size=processes, ddp_find_unused_parameters=False)
    find_unused_parameters(model, (), config, arguments)
    assert arguments.ddp_find_unused_parameters is expected
    model.requires_grad_(False)
    arguments.ddp_find_unused_parameters = False
    find_unused_parameters(model, (), config, arguments)
    assert arguments.ddp_find_unused_parameters is False


def test_processes_do_not_wait_for_parameters_that_a_few_tokens_do_not_use() -> None:
    model = torch.nn.Linear(2, 2)
    for unused, expected in (((), False), ({id(model.bias)}, True)):
        arguments: Any = SimpleNamespace(world_size=2, ddp_find_unused_parameters=False)
        find_unused_parameters(model, unused, TrainConfig(output_dir="out"), arguments)
        assert arguments.ddp_find_unused_parameters is expected


def test_the_trace_is_long_enough_for_compressed_attention() -> None:
    config: Any = LlamaConfig(**TEXT, vocab_size=20)
    config.compress_rates = {"a": 4, "b": 20}
    model = LlamaForCausalLM(config)
    lengths: list[int] = []
    model.model.register_forward_pre_hook(
        lambda _, __, given: lengths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    trace_text_use(model)
    assert lengths == [41]


def test_a_linear_module_that_returns_another_shape_is_not_one_for_adapters() -> None:
    class Grouped(torch.nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs)[..., :32]

    model = make_llava()
    name = "model.language_model.layers.0.self_attn.o_proj"
    assert name in trace_text_use(model).modules
    model.set_submodule(name, Grouped(32, 64))
    assert name not in trace_text_use(model).modules


@pytest.mark.slow
def test_several_processes_do_not_wait_for_gradients_of_unused_parts(
    tmp_path: Path, llava_dir: Path, shard_dir: Path
) -> None:
    variants: dict[str, list[str]] = {"plain": [], "checkpointing": ["--gradient_checkpointing=true"]}
    variants["lora"] = [*variants["checkpointing"], "--use_peft=true"]

    def launch(name: str, processes: int, *argv: str) -> Launch:
        output = tmp_path / f"{name}-{processes}"
        rows = ["--per_device_train_batch_size", str(12 // processes), "--max_steps", "2", "--save_strategy", "no"]
        return Launch(
            [*line(llava_dir, output, *argv), "--training_data_path", str(shard_dir), *rows], processes=processes
        )

    run_launches([launch("plain", 1), *(launch(name, 2, *argv) for name, argv in variants.items())])
    expected = logged(tmp_path / "plain-1", "loss")
    assert len(expected) == 2
    assert logged(tmp_path / "plain-2", "loss") == pytest.approx(expected, rel=1e-5)
    assert logged(tmp_path / "checkpointing-2", "loss") == pytest.approx(expected, rel=1e-5)
    assert logged(tmp_path / "lora-2", "loss")[0] == pytest.approx(expected[0], rel=1e-5)
