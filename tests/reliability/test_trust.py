"""Every difference between shards and their manifest, tokenizer or model is found and named."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sftkit.cli.app import app
from sftkit.config.commands import InspectConfig, TrainConfig
from sftkit.config.schema.data_config import SplitConfig
from sftkit.core.progress import SilentProgress
from sftkit.errors import DataError, OutputError, SftkitError, SourceError, TrainingError, UsageError
from sftkit.inspection.verify.verify_dataset import Verification, verify
from sftkit.preprocessing.training_shards import find_or_build_shards
from sftkit.sample import sample_path
from sftkit.shards.manifest import manifest_digest
from sftkit.shards.reading import ShardSet, open_shards
from sftkit.tokenization.loading.tokenizer_difference import template_difference
from sftkit.training.models.run_tokenizer import load_run_tokenizer
from support import dataset, handler, preprocess, write_jsonl

CHATS = "tokenize_and_apply_chat_template_with_masking"
FIRST, SECOND = "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"
HELD_OUT = "validation-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer, the config of its model, chats, a chat template, and shards made from them."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(str(sample_path("sample:model")), folder / "model")
    template = (folder / "model" / "chat_template.jinja").read_text()
    (folder / "own.jinja").write_text("{# ours #}" + template)
    write_jsonl(
        folder / "chats.jsonl",
        (
            {
                "messages": [
                    {"role": "user", "content": f"{n}?"},
                    {"role": "assistant", "content": f"{n} " * (n % 9 + 1)},
                ]
            }
            for n in range(60)
        ),
    )
    for name, options in {
        "shards": {},
        "packs": {"packing": "bfd", "pack_length": 64},
        "templated": {"processor": {"chat_template_path": str(folder / "own.jinja")}},
    }.items():
        preprocess(
            folder / name,
            dataset(
                folder / "chats.jsonl", data_handlers=[handler(CHATS)], split=SplitConfig(train=0.8, validation=0.2)
            ),
            model_name_or_path=str(folder / "model"),
            num_dataset_shards=2,
            **options,
        )
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be damaged. Its shards refer to the files in it."""
    shutil.copytree(made, tmp_path / "copy")
    for name in ("shards", "packs", "templated"):
        path = tmp_path / "copy" / name / "manifest.json"
        data = json.loads(path.read_text().replace(str(made), str(tmp_path / "copy")))
        path.write_text(json.dumps({**data, "digest": manifest_digest(data)}))
    return tmp_path / "copy"


def verified(directory: Path, **options: Any) -> Verification:
    return verify(InspectConfig(directory=str(directory), verify=True, **options))


def differences(directory: Path, **options: Any) -> list[str]:
    return [f"{each.place}: {each.what}" for each in verified(directory, **options).differences]


def edit(path: Path, **changes: Any) -> None:
    """Change JSON values by their dotted keys (`splits__train__rows`)."""
    data = json.loads(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split("__")
        at = data
        for key in parents:
            at = at[int(key) if key.isdigit() else key]
        at[last] = value
    path.write_text(json.dumps(data))


def flip_a_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


@pytest.mark.parametrize("name", ["shards", "packs", "templated"])
def test_an_unchanged_data_set_has_no_differences(folder: Path, name: str) -> None:
    found = verified(folder / name)
    assert found.differences == ()
    assert found.notes == ()
    size = sum(path.stat().st_size for path in (folder / name).glob("*.parquet"))
    assert found.verified[:6] == (
        "manifest.json: unchanged",
        "row counts: 60 rows read, 60 written",
        f"3 of 3 shards ({size:,} bytes): sha256, columns, rows, tokens, trained tokens",
        "no other Parquet files",
        "1 of 1 sources: unchanged",
        f"tokenizer {folder / 'model'}: fingerprint, chat template, 3 files",
    )
    assert found.verified[6].startswith("versions of sftkit, ")


def test_a_flipped_bit_anywhere_names_the_shard(folder: Path) -> None:
    path = folder / "shards" / SECOND
    before, length = sha(path), path.stat().st_size
    for position in (0, 4, length // 3, length // 2, length - 20, length - 1):
        flip_a_bit(path, position)
        [found] = differences(folder / "shards")
        assert found == f"{SECOND}: sha256 {sha(path)}, the manifest says {before}: its content changed"
        flip_a_bit(path, position)
    assert differences(folder / "shards") == []


def test_a_shard_of_another_size_is_named_with_both_sizes(folder: Path) -> None:
    path = folder / "shards" / FIRST
    whole = path.read_bytes()
    said = f"the manifest says {len(whole):,}"
    path.write_bytes(whole[:-100])
    assert differences(folder / "shards") == [f"{FIRST}: {len(whole) - 100:,} bytes, {said}: truncated"]
    path.write_bytes(whole + b"x")
    assert differences(folder / "shards") == [f"{FIRST}: {len(whole) + 1:,} bytes, {said}: longer"]


def test_exchanged_shards_are_found(folder: Path) -> None:
    one, other = folder / "shards" / FIRST, folder / "shards" / SECOND
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)
    assert differences(folder / "shards") == [
        f"{FIRST}: has the content of {SECOND}: exchanged or renamed",
        f"{SECOND}: has the content of {FIRST}: exchanged or renamed",
    ]


def test_missing_and_extra_shards_are_all_named(folder: Path) -> None:
    shards = folder / "shards"
    (shards / FIRST).unlink()
    (shards / HELD_OUT).unlink()
    shutil.copy(shards / SECOND, shards / "train-00002-of-00003.parquet")
    (shards / "below").mkdir()
    shutil.copy(shards / SECOND, shards / "below" / "train.parquet")
    assert differences(shards) == [
        f"{FIRST}: is missing",
        f"{HELD_OUT}: is missing",
        "below/train.parquet: a Parquet file that the manifest does not list",
        "train-00002-of-00003.parquet: a Parquet file that the manifest does not list",
    ]


EDITED = "manifest.json: was edited: its digest does not match its content"


ROWS, TRAINED, FILE = (f"splits__train__shards__{key}" for key in ("0__rows", "1__trained_tokens", "1__file"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"config__dataprocessor__seed": 43}, ()),
        ({"fingerprint": "0" * 64}, ()),
        ({"sources__0__sha256": "0" * 64}, ()),
        ({"rows_read": 61}, ("rows_read is 61, its parts sum to 60",)),
        ({"quarantined": 2}, ("quarantined is 2, its parts sum to 0", "quarantine.jsonl: 0 rows, the manifest says 2")),
        ({"splits__validation__length_max": 99}, ("split validation: longest ", ", the manifest says 99")),
        ({ROWS: 9}, ("splits.train.rows is 48, its parts sum to ", f"{FIRST}: has ", " rows (the manifest says 9)")),
        (
            {TRAINED: 9},
            ("splits.train.trained_tokens is ", f"{SECOND}: has ", " trained tokens (the manifest says 9)"),
        ),
        ({FILE: "../a.parquet"}, ("../a.parquet: is listed in the manifest, but is not a file name in its directory",)),
        (
            {FILE: FIRST},
            (f"lists {FIRST} 2 times", f"{FIRST}: has the content", f"{SECOND}: a Parquet file that the manifest"),
        ),
        ({"columns": ["input_ids"]}, (f"{FIRST}: has columns input_ids, labels (the manifest says input_ids)",)),
        ({"tokenizer__fingerprint": "0" * 64}, ("same size, but they tokenize differently",)),
    ],
)
def test_an_edited_manifest_and_its_wrong_values_are_found(
    folder: Path, changes: dict[str, Any], named: list[str]
) -> None:
    edit(folder / "shards" / "manifest.json", **changes)
    found = differences(folder / "shards")
    assert found[0] == EDITED
    for what in named:
        assert any(what in each for each in found), (what, found)


def test_consistent_but_wrong_counts_are_found(folder: Path) -> None:
    path = folder / "packs" / "manifest.json"
    edit(path, splits__train__sequences=47, splits__train__fill_rate=0.5, splits__train__pack_length=999)
    data = json.loads(path.read_text())
    edit(path, digest=manifest_digest(data))
    found = differences(folder / "packs")
    assert EDITED not in found
    assert "split train: sequences 48, the manifest says 47" in found
    assert any(each.startswith("split train: fill rate 0.0") for each in found)


def test_a_missing_quarantine_file_is_found(folder: Path) -> None:
    with (folder / "chats.jsonl").open("a") as file:
        file.write("{broken\n{broken\n")
    shards = folder / "with_bad_rows"
    preprocess(
        shards, dataset(folder / "chats.jsonl", data_handlers=[handler(CHATS)]),
        model_name_or_path=str(folder / "model"), max_bad_rows=2,
    )  # fmt: skip
    assert differences(shards) == []
    lines = (shards / "quarantine.jsonl").read_text().splitlines()
    (shards / "quarantine.jsonl").write_text(lines[0] + "\n")
    assert differences(shards) == ["quarantine.jsonl: 1 rows, the manifest says 2"]


def test_changed_or_missing_sources_are_notes(folder: Path) -> None:
    source = folder / "chats.jsonl"
    size = source.stat().st_size
    source.write_bytes(source.read_bytes().replace(b"7?", b"8?"))
    assert verified(folder / "shards").notes == (
        f"source {source}: changed (same size, other sha256) since the shards were made",
    )
    source.write_bytes(b"")
    assert verified(folder / "shards").notes == (
        f"source {source}: changed (now 0 bytes, was {size:,}) since the shards were made",
    )
    source.unlink()
    found = verified(folder / "shards")
    assert found.notes == (f"source {source}: gone since the shards were made",)
    assert found.differences == ()


def test_a_changed_tokenizer_is_shown_by_its_files(folder: Path) -> None:
    path = folder / "model" / "tokenizer.json"
    state = json.loads(path.read_text())
    by_id = {number: token for token, number in state["model"]["vocab"].items()}
    one, other = by_id[1000], by_id[1001]
    state["model"]["vocab"] |= {one: 1001, other: 1000}
    path.write_text(json.dumps(state))
    [found] = verified(folder / "shards").differences
    assert (found.place, found.details) == (f"tokenizer {folder / 'model'}", ("files that differ: tokenizer.json",))
    assert "same size, but they tokenize differently" in found.what


def test_another_tokenizer_is_shown_by_its_first_tokens(folder: Path) -> None:
    shutil.copytree(folder / "model", folder / "other")
    path = folder / "other" / "tokenizer.json"
    state = json.loads(path.read_text())
    by_id = {number: token for token, number in state["model"]["vocab"].items()}
    state["model"]["vocab"] |= {by_id[1000]: 1001, by_id[1001]: 1000}
    path.write_text(json.dumps(state))
    [found] = verified(folder / "shards", tokenizer_name_or_path=str(folder / "other")).differences
    assert found.details == (
        f"token 1000: {by_id[1000]!r} there, {by_id[1001]!r} here",
        f"token 1001: {by_id[1001]!r} there, {by_id[1000]!r} here",
    )
    state["model"]["vocab"] |= {by_id[1000]: 1000, by_id[1001]: 1001}
    state["model"]["merges"] = state["model"]["merges"][:-1]
    path.write_text(json.dumps(state))
    [found] = verified(folder / "shards", tokenizer_name_or_path=str(folder / "other")).differences
    assert found.details == ("the same tokens, but not the same merges",)


def test_a_file_of_the_tokenizer_that_changes_no_token_is_a_note(folder: Path) -> None:
    path = folder / "model" / "tokenizer_config.json"
    path.write_text(path.read_text() + "\n")
    found = verified(folder / "shards")
    assert found.differences == ()
    assert found.notes == (
        f"tokenizer {folder / 'model'}: files changed (tokenizer_config.json), but it makes the same tokens",
    )


def test_a_missing_tokenizer_is_a_note_unless_it_was_given(folder: Path) -> None:
    shutil.rmtree(folder / "model")
    found = verified(folder / "shards")
    assert found.differences == ()
    assert "cannot be loaded" in found.notes[0]
    with pytest.raises(SftkitError, match="cannot be loaded"):
        verified(folder / "shards", tokenizer_name_or_path=str(folder / "model"))


@pytest.mark.parametrize(("name", "file"), [("shards", "model/chat_template.jinja"), ("templated", "own.jinja")])
def test_a_changed_chat_template_is_shown_line_by_line(folder: Path, name: str, file: str) -> None:
    path = folder / file
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], lines[3].rstrip("\n") + "{{ 'more' }}\n", *lines[4:]]))
    [found] = verified(folder / name).differences
    assert found.what.startswith("chat template ")
    assert found.details[:2] == ("- there, + here", "line 4:")
    assert "-" + lines[3].rstrip("\n") in found.details
    assert "+" + lines[3].rstrip("\n") + "{{ 'more' }}" in found.details


def test_a_missing_chat_template_is_found_and_replaced_by_that_of_the_manifest(folder: Path) -> None:
    (folder / "own.jinja").unlink()
    found = verified(folder / "templated")
    assert found.differences == ()
    assert found.notes == (
        f"dataprocessor.chat_template_path: {folder / 'own.jinja'}: No such file or directory; it must name a "
        "Jinja file in UTF-8; the copy in the manifest was used instead",
    )


def test_other_versions_are_a_note(folder: Path) -> None:
    path = folder / "shards" / "manifest.json"
    edit(path, versions={"sftkit": "0.0.1", "no-such-package": "1", "pyarrow": pa.__version__})
    edit(path, digest=manifest_digest(json.loads(path.read_text())))
    found = verified(folder / "shards")
    assert found.differences == ()
    [note] = found.notes
    assert note.startswith("made with other versions than those installed: sftkit 0.0.1 (here: ")
    assert note.endswith("no-such-package 1 (here: not installed)")


def test_an_older_manifest_is_verified_as_far_as_possible(folder: Path) -> None:
    path = folder / "shards" / "manifest.json"
    data = json.loads(path.read_text())
    del data["digest"]
    for key in ("eos_token_id", "pad_token_id", "chat_template", "files"):
        del data["tokenizer"][key]
    path.write_text(json.dumps(data))
    found = verified(folder / "shards")
    assert found.differences == ()
    assert found.notes == ("the manifest has no digest, so edits to it cannot be detected",)
    assert f"tokenizer {folder / 'model'}: fingerprint, chat template" in found.verified


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"directory": "nowhere"}, SourceError, "nowhere: no such directory"),
        ({"directory": None}, UsageError, "verify needs a directory"),
        ({"audit": True}, UsageError, "leave out audit"),
        ({"split": "train", "row": 0}, UsageError, "leave out split and row"),
    ],
)
def test_a_directory_that_cannot_be_verified_is_one_sentence(
    folder: Path, options: dict[str, Any], error: type[SftkitError], said: str
) -> None:
    with pytest.raises(error, match=said):
        verify(InspectConfig(**{"directory": str(folder / "shards"), "verify": True, **options}))


def test_verification_needs_a_manifest(folder: Path) -> None:
    path = folder / "shards" / "manifest.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(OutputError, match=r"manifest\.json: cannot be read"):
        verified(folder / "shards")
    path.unlink()
    with pytest.raises(SourceError, match=r"has no manifest\.json of sftkit to verify against"):
        verified(folder / "shards")
    with pytest.raises(SourceError, match="is a file; verify needs the directory"):
        verified(folder / "shards" / FIRST)


def test_the_command_prints_one_line_per_difference_and_exits_with_1(folder: Path) -> None:
    shards = folder / "shards"
    done = CliRunner().invoke(app, ["inspect-shards", str(shards), "--verify"])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "nothing differs from the manifest")
    flip_a_bit(shards / FIRST, 50)
    (shards / "\x1b[31mmore.parquet").write_bytes(b"")
    done = CliRunner().invoke(app, ["inspect-shards", str(shards), "--verify"])
    assert done.exit_code == 1
    *_, first, second, last = done.stdout.splitlines()
    assert first.startswith(f"differs: {FIRST}: sha256 ")
    assert second == "differs: \\x1b[31mmore.parquet: a Parquet file that the manifest does not list"
    assert last == "2 differences"
    done = CliRunner().invoke(app, ["inspect-shards", str(shards), "--verify", "--format", "json"])
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert [each["place"] for each in found["differences"]] == [FIRST, "\x1b[31mmore.parquet"]
    assert found["verified"][0] == "manifest.json: unchanged"


# What `train` finds before it loads the weights of a model.


def belongs(folder: Path, shards: str | ShardSet = "shards", model: str = "model", **options: Any) -> Any:
    """What `train` does first: find the shards and check that they match the tokenizer and the model."""
    config = TrainConfig(
        output_dir=str(folder / "out"), cache_dir=str(folder / "cache"), model_name_or_path=str(folder / model),
        training_data_path=(str(folder / str(shards)),) if isinstance(shards, str) else (), **options,
    )  # fmt: skip
    found = find_or_build_shards(config, SilentProgress()) if isinstance(shards, str) else shards
    return load_run_tokenizer(config, found)


def test_matching_shards_and_model_give_no_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("shards", "packs", "templated"):
        assert belongs(folder, name).known_tokens == 2048
    assert caplog.messages == []


def test_train_names_shards_that_are_missing_cut_short_exchanged_or_broken(folder: Path) -> None:
    shards = folder / "shards"
    whole = {path.name: path.read_bytes() for path in shards.glob("*.parquet")}

    def put(**files: bytes) -> None:
        for name, data in {**whole, **files}.items():
            (shards / name).write_bytes(data)

    def said() -> str:
        with pytest.raises(DataError) as error:
            belongs(folder)
        return str(error.value)

    put(**{HELD_OUT: whole[HELD_OUT][:-9]})
    sizes = (
        f"has {len(whole[HELD_OUT]) - 9} bytes, the manifest says {len(whole[HELD_OUT])}: it was truncated or renamed"
    )
    assert f"{shards / HELD_OUT}: {sizes}" in said()
    put(**{FIRST: whole[FIRST][:-9]})
    assert f"{shards / FIRST}: has {len(whole[FIRST]) - 9} bytes" in said()
    put(**{FIRST: whole[SECOND], SECOND: whole[FIRST]})
    assert f"{shards / FIRST}: has {len(whole[SECOND])} bytes" in said()
    assert f"{shards / SECOND}: has {len(whole[FIRST])} bytes" in said()
    put(**{SECOND: whole[SECOND][:-4] + b"XXXX"})
    assert f"{shards / SECOND}: cannot be read as Parquet" in said()
    put()
    (shards / FIRST).unlink()
    assert f"{shards / FIRST}: is listed in the manifest but missing" in said()
    assert not (folder / "cache").exists()  # no data set was made from the other shards alone


def test_train_shows_how_the_chat_template_differs(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "model" / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_end|>", "</s>"))
    with pytest.raises(TrainingError) as error:
        belongs(folder)
    first, *lines = str(error.value).splitlines()
    assert first.endswith("set allow_mismatch=true to train anyway)")
    assert any(line.startswith("  -") and "<|im_end|>" in line for line in lines)
    assert any(line.startswith("  +") and "</s>" in line for line in lines)
    belongs(folder, allow_mismatch=True)
    assert "was made with another tokenizer or chat template than" in caplog.messages[0]
    (folder / "own.jinja").unlink()  # a given template is part of the data, even if its file is gone
    assert belongs(folder, "templated").tokenizer.chat_template.startswith("{# ours #}")


def test_train_shows_the_first_tokens_that_differ(folder: Path) -> None:
    shutil.copytree(folder / "model", folder / "other")
    path = folder / "other" / "tokenizer.json"
    state = json.loads(path.read_text())
    by_id = {number: token for token, number in state["model"]["vocab"].items()}
    state["model"]["vocab"] |= {by_id[number]: number + 1 for number in range(1000, 1009)} | {by_id[1009]: 1000}
    path.write_text(json.dumps(state))
    with pytest.raises(TrainingError) as error:
        belongs(folder, model="other")
    assert str(error.value).splitlines()[1:] == [
        f"  token 1000: {by_id[1000]!r} there, {by_id[1009]!r} here",
        f"  token 1001: {by_id[1001]!r} there, {by_id[1000]!r} here",
        f"  token 1002: {by_id[1002]!r} there, {by_id[1001]!r} here",
        "  ... and 7 more",
    ]


def test_a_tokenizer_larger_than_the_embedding_is_refused(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(folder / "model" / "config.json", vocab_size=2046)
    with pytest.raises(TrainingError, match=r"has 2048 tokens, but .* an embedding of 2046: .*\(2046\), .*\(2047\)"):
        belongs(folder)
    belongs(folder, allow_mismatch=True)
    assert "rows are added to the embedding" in caplog.messages[0]
    edit(folder / "model" / "config.json", vocab_size=2048)
    belongs(folder, add_special_tokens=("<new>",))  # which gets an embedding


def test_an_id_outside_the_model_is_found_in_the_footers(folder: Path, write_rows: Callable[..., None]) -> None:
    path = folder / "theirs" / "train.parquet"
    write_rows(path, [[1, 2, 2047], [5, 2048, 1]])
    with pytest.raises(DataError, match=r"train\.parquet: holds token id 2048, which is not one of the model's 2048"):
        belongs(folder, open_shards(str(folder / "theirs")))
    write_rows(path, [[1, 2, 2047]])
    assert belongs(folder, open_shards(str(folder / "theirs"))).known_tokens == 2048


@pytest.fixture
def write_rows() -> Callable[..., None]:
    """Writes Parquet like other tools, with statistics; every token is trained."""

    def write(path: Path, ids: list[list[int]]) -> None:
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"input_ids": ids, "labels": ids}), path)

    return write


END = 2
"""Id of `<|im_end|>`, the eos token of the sample tokenizer."""


@pytest.mark.parametrize(
    ("config", "generation", "said"),
    [
        ({"eos_token_id": END}, None, []),
        ({"eos_token_id": [5, END]}, None, []),
        ({"eos_token_id": None}, None, []),
        ({"eos_token_id": END, "pad_token_id": END}, None, []),
        ({"eos_token_id": END, "pad_token_id": 7}, None, []),
        ({"eos_token_id": 5}, {"eos_token_id": [5, END]}, []),
        ({"eos_token_id": 5}, None, ["the tokenizer's eos token is '<|im_end|>' (2), but "]),
        (
            {"eos_token_id": END},
            {"eos_token_id": 0},
            ["model stops at '<|endoftext|>' (0): the trained model is saved"],
        ),
    ],
)
def test_a_model_whose_stop_tokens_differ_from_its_tokenizer_is_reported(
    folder: Path, caplog: pytest.LogCaptureFixture, config: dict[str, Any], generation: Any, said: list[str]
) -> None:
    edit(folder / "model" / "config.json", **config)
    if generation is not None:
        (folder / "model" / "generation_config.json").write_text(json.dumps(generation))
    with caplog.at_level(logging.WARNING, "sftkit"):
        belongs(folder)
    assert len(caplog.messages) == len(said)
    assert all(each in message for each, message in zip(said, caplog.messages, strict=True))


def test_a_model_that_would_never_stop_is_reported(
    folder: Path, caplog: pytest.LogCaptureFixture, write_rows: Callable[..., None]
) -> None:
    other = 0  # another special token, at which neither the tokenizer nor the model stops
    path = folder / "theirs" / "train.parquet"
    write_rows(path, [[40, 41, other], [42, other], [43, 44]])
    belongs(folder, open_shards(str(folder / "theirs")))
    assert len(caplog.messages) == 1
    assert "most trained spans end with" in caplog.messages[0]
    assert "add the token to eos_token_id in generation_config.json" in caplog.messages[0]
    caplog.clear()
    write_rows(path, [[40, 41, END], [42, END], [43, 44]])
    belongs(folder, open_shards(str(folder / "theirs")))
    assert caplog.messages == []


def test_a_manifest_cannot_lead_out_of_its_directory(folder: Path) -> None:
    shutil.copy(folder / "shards" / FIRST, folder / "outside.parquet")
    edit(folder / "shards" / "manifest.json", splits__train__shards__0__file="../outside.parquet")
    with pytest.raises(DataError, match=r"lists .*outside\.parquet, which is not a file in its directory"):
        open_shards(str(folder / "shards"))


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        ("a\nb\nc", "a\nB\nc", ["line 2:", " a", "-b", "+B", " c"]),
        ("a\nb", "a\nb\nc", ["line 3:", " b", "+c"]),
        ("a\n", "a", ["the same lines with different line ends"]),
        (
            "x" * 500 + "a" + "y" * 200,
            "x" * 500 + "b" + "y" * 200,
            ["line 1:", f"-…{'x' * 30}a{'y' * 69}…", f"+…{'x' * 30}b{'y' * 69}…"],
        ),
        (
            "{a" + "x" * 99,
            "{b",
            ["line 1:", f"-{{a{'x' * 98}…", "+{b"],
        ),
        ("a\n\nb\n\nc\n\nd", "A\n\nb\n\nc\n\nD", ["line 1:", "-a", "+A", "..."]),
        ("a\x1b[2J", "a\u202e", ["line 1:", "-a\\x1b[2J", "+a\\u202e"]),
        ("\n".join("abcdefghij"), "\n".join("ABCDEFGHIJ"), ["line 1:", *(f"-{c}" for c in "abcdefgh"), "..."]),
    ],
)
def test_the_difference_of_templates_is_short_and_escaped(theirs: str, ours: str, expected: list[str]) -> None:
    assert template_difference(theirs, ours) == expected


def test_the_digest_of_a_manifest_covers_everything_except_times(folder: Path) -> None:
    data = json.loads((folder / "shards" / "manifest.json").read_text())
    assert (
        manifest_digest({**data, "seconds": {"plan": 9.0}, "worker_seconds": {}, "rows_by_programs": 1})
        == data["digest"]
    )
    for key in data.keys() - {"seconds", "worker_seconds", "rows_by_programs", "digest", "units_found"}:
        assert manifest_digest({**data, key: "other"}) != data["digest"], key
    found = open_shards(str(folder / "shards")).manifest
    assert found is not None
    assert json.loads(replace(found, seconds={}).to_json())["digest"] == data["digest"]


def test_files_beside_the_shards_are_verified_too(folder: Path) -> None:
    shards = folder / "shards"
    (shards / "README.md").write_text("---\n")
    (shards / "more.PARQUET").write_bytes(b"")
    assert differences(shards) == [
        "README.md: was edited",
        "more.PARQUET: a Parquet file that the manifest does not list",
    ]
    (shards / "README.md").unlink()
    assert "README.md: is missing" in differences(shards)


def test_an_edited_quarantine_is_found(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"input": "a", "output": "b"}, 1])
    masking = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
    data = dataset(source, data_handlers=[masking])
    preprocess(tmp_path / "out", data, model_name_or_path="sample:model", max_bad_rows=1)
    assert differences(tmp_path / "out") == []
    (tmp_path / "out" / "quarantine.jsonl").write_text("{}\n")
    assert differences(tmp_path / "out") == ["quarantine.jsonl: its content changed"]


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b", "..", "", "/dev/zero"])
def test_names_in_a_manifest_are_not_paths(folder: Path, name: str) -> None:
    """Neither by verification nor by a run that makes the data set again."""
    shards = folder / "shards"
    edit(shards / "manifest.json", splits__train__shards__0__file=name)
    endings = ("is not a file name in its directory", "is missing", "is not a readable file")
    assert any(each.endswith(endings) for each in differences(shards))
    data = dataset(folder / "chats.jsonl", data_handlers=[handler(CHATS)])
    preprocess(shards, data, model_name_or_path=str(folder / "model"), overwrite=True)
    assert differences(shards) == [f"{FIRST}: a Parquet file that the manifest does not list"]


def test_only_files_are_read(folder: Path) -> None:
    """A pipe or an endless device would be read forever."""
    shards = folder / "shards"
    (shards / FIRST).unlink()
    os.mkfifo(shards / FIRST)
    edit(shards / "manifest.json", sources__0__path="/dev/zero", sources__0__bytes=0)
    assert f"{FIRST}: is not a readable file" in differences(shards)
    assert any("/dev/zero" in note and "gone" in note for note in verified(shards).notes)


def remade_with_journal(folder: Path, journal: str) -> Path:
    """Make the data set again beside a journal of somebody else's, and return the path of `.staging`."""
    staging = folder / "shards" / ".staging"
    staging.mkdir()
    (staging / "publishing.json").write_text(journal)
    data = dataset(folder / "chats.jsonl", data_handlers=[handler(CHATS)])
    preprocess(folder / "shards", data, model_name_or_path=str(folder / "model"), overwrite=True)
    return staging


def test_names_in_a_journal_are_not_paths(folder: Path) -> None:
    (folder / "shards" / "thesis.tex").write_text("precious")
    names = '["a\\u0000b", 7, "..", "", "../model", "thesis.tex", "/../shards/thesis.tex"]'
    assert not remade_with_journal(folder, names).exists()
    assert (folder / "model").is_dir()
    assert (folder / "shards" / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize("journal", ["5", "null", "[" * 100_000, '{"title": "my paper"}'])
def test_a_foreign_file_in_the_place_of_the_journal_is_refused(folder: Path, journal: str) -> None:
    with pytest.raises(OutputError, match=r"holds \.staging/publishing\.json, which sftkit did not write"):
        remade_with_journal(folder, journal)
    assert (folder / "shards" / ".staging" / "publishing.json").read_text() == journal


def test_a_foreign_file_in_the_place_of_a_unit_is_named(folder: Path) -> None:
    data = dataset(folder / "chats.jsonl", data_handlers=[handler(CHATS)])
    options = {"model_name_or_path": str(folder / "model"), "staging_dir": str(folder / "units")}
    preprocess(folder / "one", data, **options)
    [account] = (folder / "units").glob("*.account.arrow")
    account.unlink()
    account.mkdir()
    with pytest.raises(OutputError, match=r"Is a directory .*account.arrow is in the way; move it\)"):
        preprocess(folder / "two", data, **options)
