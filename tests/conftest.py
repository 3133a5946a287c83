"""Tokenizers for the tests: small ones of every kind, generated, and shared ones if available."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from plugins_support import forked_commands
from reliability.error_rules import faults_of, faults_of_reason
from sftkit.core.row_log import RowLog
from sftkit.errors import SftkitError
from sftkit.sandbox.memory import resident_bytes
from support import SHARED_TOKENIZERS, WATCHED

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests do not use the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # test processes share the cores, and idle torch threads spin

gc.set_threshold(30_000, 20, 20)  # everything that is imported stays: looking through it rarely saves seconds

settings.register_profile("sftkit", deadline=None)  # no test depends on the speed of the machine
settings.load_profile("sftkit")

# Some tests send it to processes, which would inherit that a shell has it ignored in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"

TEXTS = [
    "The cat sat on the mat and the dog ran in the park.",
    "What is the capital of France? The capital of France is Paris.",
    "### Instruction:\nAdd two numbers.\n\n### Response:\nThe sum is five.",
    "user assistant system tool input output question answer complaint no complaint",
    "def add(a, b):\n    return a + b\n\n\tindented   spaces",
    "Grüße aus Köln! 你好，世界。 Ça va? 😀",
]
GROWTH = 256 << 20  # bytes
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def _byte_level(folder: Path, *, trim_offsets: bool = False, template: str | None = None) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=SPECIAL_TOKENS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    steps: list[Any] = []
    if trim_offsets:
        steps.append(processors.ByteLevel(trim_offsets=True, add_prefix_space=False))
    if template is not None:
        specials = [(token, SPECIAL_TOKENS.index(token)) for token in ("<s>", "</s>") if token in template]
        steps.append(processors.TemplateProcessing(single=template, special_tokens=specials))
    if steps:
        tokenizer.post_processor = processors.Sequence(steps)
    _save(tokenizer, folder)


def _metaspace(folder: Path) -> None:
    """Like Llama: a space is prepended, spaces become U+2581, and unknown characters become bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    specials = [*SPECIAL_TOKENS, *byte_tokens]
    latin = [text for text in TEXTS if "你" not in text]
    tokenizer.train_from_iterator(
        latin, trainers.BpeTrainer(vocab_size=600, special_tokens=specials, show_progress=False, max_token_length=12)
    )
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in byte_tokens]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    _save(tokenizer, folder)


def _save(tokenizer: Any, folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what `@pytest.mark.sampled` leaves out and tests of a large vocabulary; run cluster tests first.

    The rest of a module that is begun late would go to other processes, and each of them would start a cluster.
    """
    seen: Counter[str] = Counter()
    for item in items:
        if (sampled := item.get_closest_marker("sampled")) is not None:
            test = item.nodeid.partition("[")[0]
            if seen[test] % sampled.args[0]:
                item.add_marker(pytest.mark.slow)
            seen[test] += 1
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if "qwen3" in map(str, parameters.values()):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: "cluster" not in item.path.parts)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    """Fail a test in which an error message or the reason for a quarantined row breaks the rules of `error_rules`."""
    faults: list[str] = []
    initialize, quarantine = SftkitError.__init__, RowLog.quarantine

    def check_error(error: SftkitError, *arguments: object) -> None:
        initialize(error, *arguments)
        faults.extend(f"{fault}: {error}" for fault in faults_of(str(error)))

    def check_reason(log: RowLog, number: int, reason: str, content: Any) -> None:
        faults.extend(f"{fault}: {reason}" for fault in faults_of_reason(reason))
        quarantine(log, number, reason, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SftkitError, "__init__", check_error)
        patch.setattr(RowLog, "quarantine", check_reason)
        yield
    assert not faults


@pytest.fixture(scope="module", autouse=True)
def _free_memory() -> Iterator[None]:
    """Free the tokenizers of a module: hundreds of megabytes that look small to Python's collector."""
    before = resident_bytes()
    yield
    if resident_bytes() > before + GROWTH:
        gc.collect()
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session", autouse=True)
def _warm_up(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let workers be forked with all imports done, as in `preprocess`; otherwise each would import for seconds."""
    from sftkit.config.commands import PreprocessConfig
    from sftkit.execution.processes import SMALL_SOURCE
    from sftkit.preprocessing.worker_warmup import warm_up_workers

    big = tmp_path_factory.mktemp("warm_up") / "big.jsonl"
    with big.open("wb") as stream:
        stream.truncate(SMALL_SOURCE)
    warm_up_workers(PreprocessConfig(output_dir="o", training_data_path=(str(big),), model_name_or_path="sample:model"))


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The path of a tokenizer by name: one of OWN_TOKENIZERS (generated on first use) or SHARED_TOKENIZERS."""
    makers: dict[str, Callable[[Path], None]] = {
        "bpe": _byte_level,
        "bos": lambda folder: _byte_level(folder, template="<s> $A"),
        "bos_eos": lambda folder: _byte_level(folder, template="<s> $A </s>"),
        "trim": lambda folder: _byte_level(folder, trim_offsets=True),
        "metaspace": _metaspace,
    }

    @cache
    def make(name: str) -> str:
        folder = tmp_path_factory.mktemp(name)
        makers[name](folder)
        return str(folder)

    def path(name: str) -> str:
        if name in SHARED_TOKENIZERS:
            folder = SHARED / "tokenizers" / name
            if not folder.is_dir():
                pytest.skip(f"{folder} is not there")
            return str(folder)
        return name if name.startswith("sample:") else make(name)

    return path


@pytest.fixture(scope="session")
def reference(tokenizer_path: Callable[[str], str]) -> Callable[[str], Any]:
    """A tokenizer by name as AutoTokenizer loads it, never given to sftkit. Do not change it."""
    from transformers import AutoTokenizer

    from sftkit.sample import sample_path

    return cache(lambda name: AutoTokenizer.from_pretrained(str(sample_path(tokenizer_path(name)))))


@pytest.fixture(scope="session")
def chat_tokenizer(tokenizer_path: Callable[[str], str]) -> Callable[..., Any]:
    """Makes (once) the ChatTokenizer of a chat template, a tokenizer by name, `train_on`, and other choices.

    kwargs: `chat_template_kwargs` as JSON text. policy: `special_tokens_in_content`. special: tokens added as special.
    options: other fields of `ChatTokenizerSpec`.

    Whatever its fast engines make is made again by the reference, and must be the same.
    """
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer
    from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
    from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec

    @cache
    def make(
        template: str | None = None,
        *,
        name: str = "bpe",
        train_on: str = "assistant",
        reasoning: str = "keep",
        kwargs: str = "",
        policy: str = "keep",
        special: tuple[str, ...] = (),
        **options: Any,
    ) -> ChatTokenizer:
        tokenizer = TokenizerSpec(tokenizer_path(name), template, special)
        return ChatTokenizer(ChatTokenizerSpec(tokenizer, train_on, WATCHED, reasoning, kwargs, policy, **options))

    return make


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """A file of ../shared/data; the test is skipped if it does not exist."""

    def path(name: str) -> Path:
        found = SHARED / "data" / name
        if not found.is_file():
            pytest.skip(f"{found} is not there")
        return found

    return path


@pytest.fixture(scope="session")
def forked_sftkit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs a command where the packages in a folder are installed; see `forked_commands`."""
    with forked_commands(tmp_path_factory.mktemp("commands")) as run:
        yield run


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let `datasets` cache below tmp_path."""
    import datasets

    folder = tmp_path / "datasets-cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    return folder
