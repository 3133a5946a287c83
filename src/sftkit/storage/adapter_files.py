"""The files of a LoRA adapter: its settings, its content, and the adapters that it builds on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftkit.core.error_text import first_line
from sftkit.errors import TrainingError
from sftkit.storage.files import atomic_replace, known_sha256
from sftkit.storage.model_location import hub_problem, location_problem, model_location

SETTINGS_NAME = "adapter_config.json"
WEIGHTS_NAMES = ("adapter_model.safetensors", "adapter_model.bin")
BASE_NAME = "sftkit_adapter_base.json"
"""In the directory of an adapter: the adapters that were merged into its base model before it was trained."""

_TOKENIZER_CONFIG = "tokenizer_config.json"
_EMBEDDINGS = frozenset({"embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings", "lm_head"})
_MOST_HEADER = 100 << 20  # bytes; the format allows no more
_LORA = "LORA"


@dataclass(frozen=True)
class AdapterFiles:
    """A LoRA adapter in a local directory."""

    name: str
    """As the user gave it."""

    folder: Path
    settings: Mapping[str, Any]
    """The content of its `adapter_config.json`."""

    weights: Path

    @property
    def base(self) -> str:
        """The model that it was trained for; empty if the adapter does not say it."""
        base = self.settings.get("base_model_name_or_path")
        return base if isinstance(base, str) else ""

    @property
    def has_tokenizer(self) -> bool:
        """Whether the tokenizer that it was trained with is in its directory."""
        return (self.folder / _TOKENIZER_CONFIG).is_file()

    @property
    def digest(self) -> str:
        """Hash of settings and weights: equal digests are equal adapters, wherever they are."""
        return _digest(known_sha256(self.folder / SETTINGS_NAME), known_sha256(self.weights))

    @property
    def modules(self) -> list[str]:
        """The last parts of the names of the modules that it adapts, or the pattern that names them."""
        named = self.settings.get("target_modules") or ()
        return [named] if isinstance(named, str) else sorted({str(each).rpartition(".")[2] for each in named})

    def embedding_rows(self) -> int:
        """Least number of rows that the embeddings of the model need for this adapter; 0 if any number will do."""
        shapes = _shapes(self.weights) if self.weights.suffix == ".safetensors" else {}
        rows = [0] + [
            shape[0]
            for name, shape in shapes.items()
            if name.endswith(".weight") and "lora_" not in name and name.split(".")[-2] in _EMBEDDINGS
        ]
        return max(*rows, self.trained_tokens())

    def trained_tokens(self) -> int:
        """The largest id of a token whose row it trained apart from the others, plus 1; 0 if there is none."""
        trained = self.settings.get("trainable_token_indices")
        lists = trained.values() if isinstance(trained, Mapping) else [trained]
        return max((max(ids) + 1 for ids in lists if isinstance(ids, list) and ids), default=0)

    def merged_first(self) -> list[tuple[str, str]]:
        """Name and digest of each adapter that was merged into the base model before this one was trained, in order.

        Raises:
            TrainingError: the file that says it cannot be read.
        """
        path = self.folder / BASE_NAME
        if not path.is_file():
            return []
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return [(str(each["adapter"]), str(each["sha256"])) for each in content["merged_first"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{path}: does not say which adapters belong to the base model: {error}") from error


def open_adapter(name: str) -> AdapterFiles:
    """Find the files of an adapter; one of the Hub is downloaded, unless it is in the local cache.

    Args:
        name: directory or Hub id.

    Raises:
        TrainingError: there is no LoRA adapter; the message does not name a key.
    """
    problem = location_problem(name)
    if problem is not None:
        raise TrainingError(f"adapter {name!r} cannot be loaded: {problem}")
    folder = Path(model_location(name))
    if not folder.is_dir():
        folder = _downloaded(name)
    settings = _read_settings(name, folder / SETTINGS_NAME)
    kind = str(settings.get("peft_type"))
    if kind.rpartition(".")[2] != _LORA:
        raise TrainingError(f"adapter {name!r}: it is of the type {kind}; only LoRA adapters can be used")
    weights = next((folder / each for each in WEIGHTS_NAMES if (folder / each).is_file()), None)
    if weights is None:
        raise TrainingError(f"adapter {name!r}: it has no weights ({WEIGHTS_NAMES[0]}); add the file, or name another")
    return AdapterFiles(name, folder, settings, weights)


def write_merged_first(folder: Path, adapters: Sequence[tuple[str, str]]) -> None:
    """Record which adapters were merged into the base model of the adapter in a directory: name and digest of each."""
    content = {"merged_first": [{"adapter": name, "sha256": digest} for name, digest in adapters]}
    with atomic_replace(folder / BASE_NAME) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _read_settings(name: str, path: Path) -> Mapping[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        below = next(iter(sorted(path.parent.glob(f"*/{SETTINGS_NAME}"))), None)
        hint = f", such as to {below.parent}" if below is not None else ""
        whole = "; a whole model is named by model_name_or_path" if (path.parent / "config.json").is_file() else ""
        raise TrainingError(
            f"adapter {name!r} cannot be loaded: the directory has no {SETTINGS_NAME}, so it holds no adapter{whole}; "
            f"correct the path{hint}"
        ) from None
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: cannot be read: {first_line(error)}") from error
    if not isinstance(settings, dict):
        raise TrainingError(f"{path}: holds no settings; repair the file")
    return settings


def _downloaded(name: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [SETTINGS_NAME, *WEIGHTS_NAMES, "token*", "*.jinja", "special_tokens_map.json", "vocab.*", "merges.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=[*patterns, BASE_NAME, "added_tokens.json"]))
    except Exception as error:  # network, authorization and file errors of several libraries
        reason = hub_problem(name, error) or first_line(error)
        raise TrainingError(f"adapter {name!r} cannot be loaded: {reason}") from error


def _shapes(weights: Path) -> dict[str, list[int]]:
    """The shape of each tensor, from the header of a safetensors file; empty if it has none."""
    try:
        with weights.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size)) if size <= _MOST_HEADER else {}
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__" and entry["shape"]}
    except (OSError, ValueError, KeyError, TypeError):  # loading the weights reports it
        return {}


def _digest(*digests: str) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()
