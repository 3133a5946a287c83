"""All engines give the same shards; if one differs, the run falls back to the reference."""

from __future__ import annotations

import io
import json
import logging
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from reliability.material import sftkit
from sftkit.cli.console.reports.show_preprocess import print_result
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.core.rows import Ragged, Row
from sftkit.shards.manifest import Manifest, read_manifest
from sftkit.tokenization.encoding.fast.id_engines import GigatokenEngine
from sftkit.tokenization.rendering.compiled_renderer import CompiledRenderer
from sftkit.tokenization.templates.recording import Recording
from support import dataset, handler, preprocess, shard_bytes, write_jsonl, written

FAST = {"encoder": "gigatoken", "renderer": "compiled"}
REFERENCE = {"encoder": "tokenizers", "renderer": "jinja2"}
MARKER = "Zauberwort"

SCRIPTS = (
    "the answer is forty-two don't  we'll\n\t\tdef f(x): 3.14159 1,000,000 Grüße naïve Straße İstanbul привет мир "
    "καλημέρα κόσμε 你好世界 今天天气很好 こんにちは 안녕하세요 สวัสดีครับ नमस्ते दुनिया مرحبا بالعالم שלום "
    "e\u0301te\u0301 ﬁne \u00a0 \u200b 👩‍👩‍👧‍👦 🇩🇪 😀 ½ <|im_start|> </s> { } \\n \u2028 ǅ"
)
WORDS = SCRIPTS.split(" ")


def words(chance: random.Random, most: int = 30) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(1, most)))


def conversations(count: int, seed: int = 1) -> list[Row]:
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        messages = [{"role": "system", "content": words(chance)}] if chance.random() < 0.3 else []
        for _ in range(chance.randint(1, 3)):
            question = {"role": "user", "content": f"{number} {words(chance)}"}
            messages += [question, {"role": "assistant", "content": f"{words(chance)}."}]
        rows.append({"messages": messages})
    return rows


def pairs(count: int, seed: int = 2) -> list[Row]:
    chance = random.Random(seed)
    return [{"input": f"{number} {words(chance)}", "output": words(chance)} for number in range(count)]


def texts(count: int, seed: int = 3) -> list[Row]:
    chance = random.Random(seed)
    rows = [f"### Question:\n{words(chance)}\n\n### Response:\n{words(chance)}" for _ in range(count)]
    return [{"text": text} for text in rows] + [{"text": "no response in here"}]


def chats(*paths: Path) -> DatasetConfig:
    return dataset(*paths, name="chats", data_handlers=[handler("tokenize_and_apply_chat_template_with_masking")])


def of_pairs(*paths: Path) -> DatasetConfig:
    names = {"input_field_name": "input", "output_field_name": "output"}
    return dataset(*paths, name="pairs", data_handlers=[handler("tokenize_and_apply_input_masking", **names)])


def made(output: Path, *datasets: DatasetConfig, **options: Any) -> tuple[Manifest, dict[str, bytes]]:
    manifest = preprocess(output, *datasets, model_name_or_path="sample:model", **options)
    return manifest, shard_bytes(output)


# --- The same bytes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetConfig, ...]:
    """Conversations in three files, pairs and texts, each in more than 64 KiB."""
    folder = tmp_path_factory.mktemp("kinds")
    talks = [write_jsonl(folder / f"chats{part}.jsonl", conversations(60, part)) for part in range(3)]
    paired, plain_texts = (
        write_jsonl(folder / "pairs.jsonl", pairs(250)),
        write_jsonl(folder / "texts.jsonl", texts(250)),
    )
    for size in (sum(talk.stat().st_size for talk in talks), paired.stat().st_size, plain_texts.stat().st_size):
        assert 64 << 10 < size < 256 << 10
    return chats(*talks), of_pairs(paired), dataset(plain_texts, name="texts")


@pytest.fixture(scope="module")
def by_reference(tmp_path_factory: pytest.TempPathFactory, kinds: tuple[DatasetConfig, ...]) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("reference") / "out"
    manifest, shards = made(
        output, *kinds, engine="reference", response_template="### Response:\n", num_dataset_shards=3
    )
    assert (manifest.engine, manifest.rows_read, manifest.rows_written) == (REFERENCE, 681, 679)
    assert manifest.dropped == {"no response found by response_template": 2}  # one of them is empty
    return shards


@pytest.mark.sampled(4)
@pytest.mark.parametrize("unit_size", [8000, 64 << 10, 8 << 20])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_fast_engines_write_the_bytes_of_the_reference(
    tmp_path: Path, kinds: tuple[DatasetConfig, ...], by_reference: dict[str, bytes], workers: int, unit_size: int
) -> None:
    manifest, shards = made(
        tmp_path / "out",
        *kinds,
        response_template="### Response:\n",
        num_dataset_shards=3,
        num_workers=workers,
        unit_size=unit_size,
        engine_verify=0.0,
    )
    assert manifest.engine == FAST
    assert shards == by_reference


def test_two_workers_write_the_same_bytes_with_the_reference_engine(
    tmp_path: Path, kinds: tuple[DatasetConfig, ...], by_reference: dict[str, bytes]
) -> None:
    options = {"response_template": "### Response:\n", "num_dataset_shards": 3, "engine": "reference"}
    manifest, shards = made(tmp_path / "out", *kinds, num_workers=2, unit_size=64 << 10, **options)
    assert manifest.engine == REFERENCE
    assert shards == by_reference


def test_each_kind_of_data_alone_gives_the_bytes_of_the_reference(
    tmp_path: Path, kinds: tuple[DatasetConfig, ...]
) -> None:
    for kind, used in zip(kinds, ({*FAST}, {"encoder"}, {"encoder"}), strict=True):
        options = {"response_template": "### Response:\n", "unit_size": 64 << 10}
        fast, shards = made(tmp_path / kind.name / "fast", kind, engine_verify=1.0, **options)
        slow, expected = made(tmp_path / kind.name / "slow", kind, engine="reference", **options)
        assert fast.engine == {part: FAST[part] for part in used}
        assert slow.engine == {part: REFERENCE[part] for part in used}
        assert (shards, fast.fingerprint) == (expected, slow.fingerprint)


@pytest.mark.parametrize(("size", "encoder"), [(65535, "tokenizers"), (65536, "gigatoken")])
def test_less_than_64_kib_is_encoded_without_a_fast_engine(tmp_path: Path, size: int, encoder: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"input": "What?", "output": "That. " * 100}] * 90)
    padding = size - source.stat().st_size - len('{"input": "", "output": "x"}\n')
    with source.open("a") as stream:
        stream.write(json.dumps({"input": "y" * padding, "output": "x"}) + "\n")
    assert source.stat().st_size == size
    manifest, _ = made(tmp_path / "out", of_pairs(source))
    assert manifest.engine == {"encoder": encoder}


# --- A fast engine that differs -----------------------------------------------------------------------


def with_marker(rows: list[Row], at: int) -> list[Row]:
    """The same rows, except that the question of row `number` (from 1), and its answer, begin with the marker."""
    question, answer = rows[at - 1]["messages"][-2:]
    rows[at - 1]["messages"] = [{**question, "content": f"{MARKER} {question['content']}"}, answer]
    return rows


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """Captures the log of sftkit from warnings on."""
    monkeypatch.setattr(logging.getLogger("sftkit"), "propagate", True)
    caplog.set_level(logging.WARNING, "sftkit")
    return caplog


@pytest.fixture
def wrong_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes gigatoken swap the last two ids of texts with the marker."""
    right = GigatokenEngine.ids

    def ids(self: GigatokenEngine, texts: list[str]) -> Ragged:
        made = right(self, texts)
        for row, text in enumerate(texts):
            if MARKER in text:
                made[row][-3:-1] = made[row][-3:-1][::-1].copy()
        return made

    monkeypatch.setattr(GigatokenEngine, "ids", ids)


@pytest.fixture
def wrong_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the fast renderer write the marker in capitals."""
    right = CompiledRenderer.record

    def record(*arguments: Any, **options: Any) -> Recording:
        recording = right(*arguments, **options)
        return replace(recording, text=recording.text.replace(MARKER, MARKER.upper()))

    monkeypatch.setattr(CompiledRenderer, "record", record)


def check_given_up(
    tmp_path: Path, source: Path, row: int, log: pytest.LogCaptureFixture, *engines: str, verify: float
) -> None:
    """Check a run with engines that differ from the reference on one row."""
    slow, expected = made(tmp_path / "slow", chats(source), engine="reference")
    fast, shards = made(tmp_path / "fast", chats(source), engine_verify=verify)
    assert sorted(warning.split(" differs ")[0] for warning in log.messages) == [f"the fast {name}" for name in engines]
    for warning in log.messages:
        assert f" differs from the reference at {source}:{row}; the whole run uses the reference: " in warning
        assert MARKER in warning.split("uses the reference: ")[1]
    assert fast.engine == {**FAST, **{engine: REFERENCE[engine] for engine in engines}}
    assert (shards, fast.fingerprint) == (expected, slow.fingerprint)
    assert (fast.splits, fast.rows_read) == (slow.splits, 200)
    assert sorted(path.name for path in (tmp_path / "fast").iterdir()) == [
        "README.md",
        "manifest.json",
        "train-00000-of-00001.parquet",
    ]


@pytest.mark.sampled(2)
@pytest.mark.usefixtures("wrong_encoder")
@pytest.mark.parametrize(("row", "verify"), [(170, 1.0), (8, 0.0)])
def test_an_encoder_that_differs_on_a_verified_row_is_not_used_for_the_whole_run(
    tmp_path: Path, log: pytest.LogCaptureFixture, row: int, verify: float
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", with_marker(conversations(200), row))
    check_given_up(tmp_path, source, row, log, "encoder", verify=verify)


@pytest.mark.sampled(2)
@pytest.mark.usefixtures("wrong_renderer")
@pytest.mark.parametrize(("row", "verify"), [(170, 1.0), (8, 0.0)])
def test_a_renderer_that_differs_on_a_verified_row_is_not_used_for_the_whole_run(
    tmp_path: Path, log: pytest.LogCaptureFixture, row: int, verify: float
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", with_marker(conversations(200), row))
    check_given_up(tmp_path, source, row, log, "renderer", verify=verify)


@pytest.mark.slow
@pytest.mark.usefixtures("wrong_renderer", "wrong_encoder")
def test_neither_engine_is_used_if_both_differ(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", with_marker(conversations(200), 170))
    check_given_up(tmp_path, source, 170, log, "encoder", "renderer", verify=1.0)


@pytest.mark.usefixtures("wrong_encoder")
def test_the_first_rows_of_every_unit_are_verified(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    rows = pairs(400)
    rows[0]["input"] += f" {MARKER}"
    files = [write_jsonl(tmp_path / "a.jsonl", pairs(500)), write_jsonl(tmp_path / "b.jsonl", rows)]
    manifest, _ = made(tmp_path / "out", of_pairs(*files), engine_verify=0.0)
    [warning] = log.messages
    assert f"the fast encoder differs from the reference at {files[1]}:1;" in warning
    assert manifest.engine == {"encoder": "tokenizers"}


# --- What a run reports -------------------------------------------------------------------------------


def test_the_manifest_says_how_many_rows_programs_rendered(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "well"}]
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": chat}] * 50 + [{"messages": chat * 2}] * 5)
    assert 40 <= made(tmp_path / "fast", chats(source))[0].rows_by_programs < 50
    assert 40 <= made(tmp_path / "kinds", chats(source), token_kinds=True)[0].rows_by_programs < 50
    assert made(tmp_path / "slow", chats(source), engine="reference")[0].rows_by_programs == 0


def test_the_manifest_and_the_output_show_the_time_of_each_stage(tmp_path: Path) -> None:
    manifest, _ = made(tmp_path / "out", chats(write_jsonl(tmp_path / "in.jsonl", conversations(20))))
    name = "tokenize_and_apply_chat_template_with_masking"
    assert list(manifest.seconds) == ["plan", "stage", "order", "write"]
    assert set(manifest.worker_seconds) == {"read", name, "finish", "store", "audit"}
    assert all(seconds >= 0 for seconds in (*manifest.seconds.values(), *manifest.worker_seconds.values()))
    assert read_manifest(tmp_path / "out") == manifest
    screen = io.StringIO()
    print_result(manifest, "somewhere", Console(file=screen, width=300))
    lines = re.sub(r"\d+\.\d s", "0.0 s", screen.getvalue()).splitlines()
    assert "time: plan 0.0 s, tokenize 0.0 s, order 0.0 s, write 0.0 s" in lines
    assert f"worker time: read 0.0 s, {name} 0.0 s, length limit 0.0 s, write 0.0 s, audit 0.0 s" in lines
    assert lines[-1] == "written to somewhere"


@pytest.mark.parametrize(
    ("option", "value", "code", "sentence"),
    [
        ("--engine", "fast", 2, "engine must be one of auto, reference, not 'fast'"),
        ("--engine_verify", "1.5", 2, "engine_verify must be between 0 and 1, not 1.5"),
        ("--engine_verify", "-1", 2, "engine_verify must be between 0 and 1, not -1"),
    ],
)
def test_the_error_for_an_invalid_engine_option_is_one_sentence(
    option: str, value: str, code: int, sentence: str
) -> None:
    done = sftkit("preprocess", "--training_data_path", "nowhere", "--output_dir", "o", option, value)
    assert (done.code, done.out, done.err) == (code, "", f"error: {sentence}\n")


def test_the_reference_engine_can_be_chosen_on_the_command_line(tmp_path: Path) -> None:
    source, out = write_jsonl(tmp_path / "in.jsonl", pairs(400)), tmp_path / "out"
    done = sftkit(
        *("preprocess", "--training_data_path", source, "--model_name_or_path", "sample:model", "--output_dir", out),
        *("--engine", "reference", "--engine_verify", "1.0"),
    )
    assert (done.code, done.err) == (0, "")
    manifest = read_manifest(out)
    assert manifest is not None
    assert (manifest.engine, len(written(out))) == ({"encoder": "tokenizers"}, 400)
