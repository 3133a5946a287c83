"""Files of a tokenizer that anyone may have made: each run works, quarantines rows, or ends with one clear error.

SFTKIT_EXAMPLES=100 in the environment tries a hundred times as many examples, new ones each time.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliability.material import budget, changed_bytes, copy_tokenizer, row_of, sftkit
from support import write_jsonl

FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json")
CHANCE = {"dropout": 0.5, "alpha": 0.5, "nbest_size": 4, "sp_model_kwargs": {"enable_sampling": True}}

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 400),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from([
        10**30, -1, 2**31, "", "</s>", "<|im_end|>", "../canary", "/dev/zero", "a\nb", "\x1b[31m", "(a+)+$", "BPE",
        "Unigram", "WordPiece", "WordLevel", "ByteLevel", "Split", "NFKD", "LlamaTokenizer", "{{ messages }}",
        "{{ [1, 2]|random }}", "{% for m in messages %}{{ m.content }}{% endfor %}",
    ]),
)  # fmt: skip
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["type", "id", "content", "pattern", "Regex", *CHANCE]), inner, max_size=3),
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer and rows. Tests change copies of the tokenizer."""
    made = tmp_path_factory.mktemp("tokenizers")
    copy_tokenizer(made / "tokenizer")
    write_jsonl(made / "rows.jsonl", [{"messages": row_of(number)["messages"]} for number in range(4)])
    return made


def changed(data: st.DataObject, content: Any) -> Any:
    """A copy of JSON data in which one value, at any depth outside of the vocabulary, is another one or is missing."""
    if not content or not isinstance(content, (dict, list)) or data.draw(st.integers(0, 4)) == 0:
        return data.draw(trees)
    keys = [key for key in content if key != "vocab"] if isinstance(content, dict) else [*range(min(len(content), 40))]
    if not keys:
        return data.draw(trees)
    copied: Any = dict(content) if isinstance(content, dict) else list(content)
    key = data.draw(st.sampled_from(keys))
    if data.draw(st.integers(0, 9)) == 0:
        del copied[key]
    else:
        copied[key] = changed(data, copied[key])
    return copied


@budget(60)
@given(st.data())
def test_any_files_of_a_tokenizer_are_used_or_refused_with_one_clear_error(folder: Path, data: st.DataObject) -> None:
    shutil.rmtree(folder / "changed", ignore_errors=True)
    shutil.rmtree(folder / "out", ignore_errors=True)
    place = shutil.copytree(folder / "tokenizer", folder / "changed")
    for name in data.draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=2, unique=True)):
        path = place / name
        if data.draw(st.integers(0, 9)) == 0:
            path.write_bytes(changed_bytes(data.draw, path.read_bytes() if path.exists() else b"{}"))
        else:
            content = json.loads(path.read_bytes()) if path.exists() else {"eos_token_id": 1}
            path.write_text(json.dumps(changed(data, content)))
    options = ("--training_data_path", folder / "rows.jsonl", "--tokenizer_name_or_path", place, "--num_workers", 1)
    outcome = sftkit("preprocess", *map(str, options), "--output_dir", str(folder / "out"))
    assert outcome.clear, outcome.err[-3000:]
