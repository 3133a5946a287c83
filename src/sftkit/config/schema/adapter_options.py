"""The keys of `train` about adapters, and about what is saved at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sftkit.config.fields import option
from sftkit.config.schema.shared_options import DataOptions

_ADAPTERS = "Adapters"
_OUTPUT = "Output"


@dataclass(frozen=True, kw_only=True)
class AdapterOptions(DataOptions):
    """LoRA adapters: new ones, those of earlier runs, and merging them."""

    use_peft: bool = option(
        False, panel=_ADAPTERS, run_identity=True, help="Train LoRA adapters instead of the model (extra: peft)."
    )
    load_in_4bit: bool = option(
        False,
        panel=_ADAPTERS,
        run_identity=True,
        help="QLoRA: hold the frozen model in 4 bits (extra: qlora). Implies use_peft.",
    )
    adapter_name_or_path: tuple[str, ...] = option(
        (),
        location=True,
        panel=_ADAPTERS,
        help="LoRA adapters to go on from: directories or Hub ids. All but the last are merged into the model first.",
    )
    create_new_adapter: bool = option(
        False, panel=_ADAPTERS, help="Merge all of adapter_name_or_path into the model, and train a new adapter."
    )
    lora_r: int | None = option(
        None,
        minimum=1,
        panel=_ADAPTERS,
        run_identity=True,
        help="Rank of the adapters. Default: 16, or that of the adapter that is trained further.",
    )
    lora_alpha: int | None = option(
        None,
        minimum=1,
        panel=_ADAPTERS,
        run_identity=True,
        help="Scale of the adapters: their output is multiplied by lora_alpha / lora_r. Default: 32, or that of the "
        "adapter that is trained further.",
    )
    lora_dropout: float | None = option(
        None,
        panel=_ADAPTERS,
        run_identity=True,
        help="Dropout before the adapters, as a probability. Default: 0, or that of the adapter that is trained "
        "further.",
    )
    lora_target_modules: tuple[str, ...] = option(
        ("all-linear",),
        panel=_ADAPTERS,
        run_identity=True,
        help="Modules that get an adapter. all-linear: all linear modules that compute text, except the output head "
        "and routers.",
    )
    lora_exclude_modules: tuple[str, ...] = option(
        (),
        panel=_ADAPTERS,
        run_identity=True,
        help="Modules that get no adapter, with everything inside them: names or parts of dotted names.",
    )
    lora_modules_to_save: tuple[str, ...] = option(
        (), panel=_ADAPTERS, run_identity=True, help="Modules to train in full and save with the adapters."
    )
    lora_target_parameters: tuple[str, ...] = option(
        (),
        panel=_ADAPTERS,
        run_identity=True,
        help="Parameters that get an adapter, by the ends of their names: experts whose weights are one tensor, such "
        "as mlp.experts.down_proj.",
    )
    lora_rank_pattern: Mapping[str, int] = option(
        factory=dict,
        panel=_ADAPTERS,
        run_identity=True,
        help="Rank of some adapters: ends of module names, or regular expressions, and their lora_r.",
    )
    lora_alpha_pattern: Mapping[str, int] = option(
        factory=dict,
        panel=_ADAPTERS,
        run_identity=True,
        help="Scale of some adapters: ends of module names, or regular expressions, and their lora_alpha.",
    )
    use_rslora: bool | None = option(
        None,
        panel=_ADAPTERS,
        run_identity=True,
        help="Rank-stabilized LoRA: scale by lora_alpha / sqrt(lora_r). Default: false.",
    )
    use_dora: bool | None = option(
        None,
        panel=_ADAPTERS,
        run_identity=True,
        help="DoRA: train the length of each row of the weights, too. Default: false.",
    )
    init_lora_weights: str | None = option(
        None,
        panel=_ADAPTERS,
        run_identity=True,
        help="How new adapters begin: gaussian, orthogonal, pissa, pissa_niter_16 (any number) or olora. Default: B is "
        "zero, A is random.",
    )
    loraplus_lr_ratio: float | None = option(
        None,
        minimum=1,
        panel=_ADAPTERS,
        run_identity=True,
        help="LoRA+: learning rate of the matrices B of adapters, as a multiple of learning_rate. Default: 1.",
    )
    merge_lora: bool = option(
        False, panel=_ADAPTERS, help="Save the model with merged adapters, in addition to the adapters."
    )
    merge_only: bool = option(
        False,
        per_run=True,
        panel=_ADAPTERS,
        help="Only merge the adapters into the model, and save it in output_dir; nothing is trained.",
    )
    save_dtype: str | None = option(
        None,
        choices=("float32", "bfloat16", "float16"),
        panel=_OUTPUT,
        help="Data type in which the trained model is saved. Default: that of training. Checkpoints keep theirs.",
    )
