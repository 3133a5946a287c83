"""`preprocess` uses or quarantines the rows of any JSONL file, or reports what is wrong with it.

SFTKIT_EXAMPLES=100 in the environment tries a hundred times as many examples, new ones each time.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reliability.material import World, budget, changed_bytes, copy_tokenizer, row_of, within
from sftkit.errors import SftkitError
from sftkit.shards.manifest import read_manifest

NAMES = ("id", "input", "output", "text", "messages", "tools", "input_ids", "labels", "chat_template_kwargs", "x", "")

texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["<|im_end|>", "### Answer:", "### Question: a\n### Answer: b", "\ud83d", "\0", "{{ x }}", "\u2028"]
    ),
)
numbers = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(), st.sampled_from([2**31, 2**63, 2**64, -1, 10**400, math.inf, math.nan])
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.sampled_from(NAMES), texts), inner, max_size=4)
    ),
    max_leaves=8,
)
messages = st.lists(
    st.one_of(
        values,
        st.fixed_dictionaries(
            {"role": st.one_of(st.sampled_from(["user", "assistant", "system", "tool", "gpt"]), values)},
            optional={
                "content": st.one_of(texts, values),
                "reasoning_content": st.one_of(texts, values),
                "tool_calls": values,
                "train": values,
            },
        ),
    ),
    max_size=4,
)
fields = st.one_of(values, messages)
objects = st.one_of(
    st.dictionaries(st.sampled_from(NAMES), fields, max_size=5),
    st.builds(lambda number, extra: {**row_of(number), **extra}, st.integers(0, 99), st.dictionaries(
        st.sampled_from(NAMES), fields, max_size=2)),
)  # fmt: skip


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(["row", "row", "row", "value", "changed", "bytes", "text", "deep"]))
    if kind == "bytes":
        return draw(st.binary(max_size=40))
    if kind == "deep":
        return draw(st.sampled_from([b"[", b'{"input":', b'{"a":[{'])) * draw(st.sampled_from([3, 1_000, 100_000]))
    if kind == "text":
        return draw(st.sampled_from(["", " ", "\ufeff", "null", "NaN", "{}", "[]", '{"a":1}{"b":2}', "{'a': 1}", '"']))\
            .encode()  # fmt: skip
    value = draw(values if kind == "value" else objects)
    try:
        line = json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    except ValueError:  # a number with more digits than Python prints
        line = b"1" * 5000
    return changed_bytes(draw, line) if kind == "changed" else line


@st.composite
def files(draw: st.DrawFn) -> bytes:
    ends = draw(st.sampled_from([b"\n", b"\n", b"\r\n", b"\n\n", b"\r"]))
    return draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + ends.join(draw(st.lists(lines(), max_size=12))) + ends


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "tokenizer"
    copy_tokenizer(folder)
    return folder


def preprocess(folder: Path, tokenizer: Path, content: bytes, kind: str, unit_size: int, bad: float) -> str:
    """The outcome in a word; anything but a success or an `SftkitError` is raised."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / "a.jsonl").write_bytes(content)
    world = World.of(folder, kind)
    out = folder / "out"
    changes: dict[str, Any] = {
        "tokenizer_name_or_path": str(tokenizer),
        "output_dir": str(out),
        "staging_dir": None,
        "unit_size": unit_size,
        "max_bad_rows": bad,
    }
    if "datasets" in world.config:
        world.data["data_paths"] = [str(folder / "a.jsonl")]
        world.data["data_handlers"] = [each for each in world.data["data_handlers"] if ":" not in each["name"]]
        world.data.pop("retain_columns")
    else:
        changes["training_data_path"] = [str(folder / "a.jsonl")]
    try:
        with within():
            world.preprocess(**changes)
    except SftkitError:
        assert not (out / "manifest.json").exists()
        return "error"
    manifest = read_manifest(out)
    assert manifest is not None
    dropped = sum(manifest.dropped.values())
    assert manifest.rows_read == manifest.rows_written + dropped + manifest.quarantined
    aside = out / "quarantine.jsonl"
    kept = aside.read_text(encoding="utf-8").split("\n")[:-1] if aside.exists() else []
    assert len([json.loads(each) for each in kept]) == manifest.quarantined
    return "quarantine" if kept else "success"


KINDS = ("pairs", "chats", "texts", "tokenized", "simple", "columns")
GOOD = b"".join(json.dumps(row_of(number)).encode() + b"\n" for number in range(3))


@budget(70)
@given(files(), st.booleans(), st.sampled_from(KINDS), st.sampled_from([50, 1 << 20]), st.sampled_from([0, 1000, 0.5]))
@example(b"\x00\n", True, "pairs", 50, 1000)
@example(b'{"input": "\\ud83d", "output": "x"}', True, "pairs", 50, 1000)
def test_any_bytes_as_jsonl_are_rows_or_quarantined_or_one_clear_error(
    tokenizer: Path, tmp_path_factory: pytest.TempPathFactory, content: bytes, good: bool, kind: str, unit_size: int,
    bad: float,
) -> None:  # fmt: skip
    folder = tmp_path_factory.getbasetemp() / "fuzz-jsonl"
    folder.mkdir(exist_ok=True)
    content = GOOD + content if good else content
    assert preprocess(folder, tokenizer, content, kind, unit_size, bad) in ("success", "quarantine", "error")
