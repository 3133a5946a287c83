import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from sftkit.cli.console.reports.show_report import print_inspection, report_json
from sftkit.config.commands import InspectConfig
from sftkit.core.escape import escape_to_one_line, terminal_safe_json, visible_parts
from sftkit.inspection.report import inspect_shards
from sftkit.shards.reading import open_shards

from .conftest import ASK, END, Writer, byte_ids

HOSTILE = "a\x1b[31m[red]b\u202ec\x07\r\x9b⟦d⟧ :smile:"


def printed(
    path: Path, tokenizer_dir: Path | None, *, colour: bool = False, width: int = 200, **options: object
) -> str:
    name = None if tokenizer_dir is None else str(tokenizer_dir)
    config = InspectConfig(tokenizer_name_or_path=name, **options)
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=colour, width=width, color_system="truecolor" if colour else None)
    print_inspection(inspect_shards(config, open_shards(str(path))), config, console)
    return stream.getvalue()


def test_without_colour_trained_tokens_are_marked(shard_dir: Path, tokenizer_dir: Path) -> None:
    text = printed(shard_dir, tokenizer_dir)
    assert "[1] 4 tokens\n    <|ask|>00?\n[2] 6 tokens, 6 trained\n    ⟦yes 0<|end|>⟧\n" in text
    assert text.count("⟦trained⟧: these tokens carry a loss, all others carry none") == 1
    assert "train row 0 (train-00000-of-00002.parquet row 0): 10 tokens, 6 trained (60.0%)" in text
    assert "\x1b" not in text


def test_with_colour_there_are_no_marks(shard_dir: Path, tokenizer_dir: Path) -> None:
    text = printed(shard_dir, tokenizer_dir, colour=True)
    assert "⟦" not in text
    assert "\x1b[32myes 0\x1b[0m" in text
    assert "\x1b[2m00?\x1b[0m" in text
    assert "\x1b[1;7;32m<|end|>\x1b[0m" in text


def test_no_color_shows_marks_on_a_terminal(
    shard_dir: Path, tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "⟦" in printed(shard_dir, tokenizer_dir, colour=True)


def test_whitespace_is_visible_on_request(tmp_path: Path, tokenizer_dir: Path, write: Writer) -> None:
    ids = byte_ids("a b\tc\nd")
    path = write(tmp_path / "a.parquet", input_ids=[ids], labels=[ids])
    assert "    ⟦a·b→c⏎\n    d⟧\n" in printed(path, tokenizer_dir, show_whitespace=True)
    assert "    ⟦a b    c\n    d⟧\n" in printed(path, tokenizer_dir)


def test_control_characters_in_data_are_escaped(tmp_path: Path, tokenizer_dir: Path, write: Writer) -> None:
    path = write(tmp_path / "a.parquet", input_ids=[byte_ids(HOSTILE)], labels=[byte_ids(HOSTILE)])
    expected = "a\\x1b[31m[red]b\\u202ec\\x07\\x0d\\x9b\\u27e6d\\u27e7 :smile:"
    assert f"⟦{expected}⟧" in printed(path, tokenizer_dir)
    text = write(tmp_path / "b.parquet", text=[HOSTILE])
    coloured = printed(text, None, colour=True)
    assert "\x1b[31m" not in coloured
    assert not set("\x07\r\x9b\u202e") & set(coloured)


def test_invisible_characters_are_escaped_and_emoji_are_kept() -> None:
    assert (
        escape_to_one_line("a\u200bb\ufeff\xad👩\u200d🚀\n\U000e0041")
        == "a\\u200bb\\ufeff\\xad👩\u200d🚀\\n\\U000e0041"
    )
    assert [(part.text, part.altered) for part in visible_parts("a\x00b")] == [
        ("a", False),
        ("\\x00", True),
        ("b", False),
    ]


def test_labels_that_differ_from_their_ids_are_marked(tmp_path: Path, tokenizer_dir: Path, write: Writer) -> None:
    path = write(tmp_path / "a.parquet", input_ids=[byte_ids("abc")], labels=[[-100, 98, 97]])
    text = printed(path, tokenizer_dir)
    assert "[1] 1 token\n    a\n[2] 2 tokens, 2 trained\n    ⟦b≠c⟧\n" in text
    assert "⟦≠...⟧: their label is another token" in text
    assert "note: 1 trained tokens have a label that differs from their id" in text


def test_ids_without_a_text_are_shown_as_numbers(tmp_path: Path, tokenizer_dir: Path, write: Writer) -> None:
    path = write(tmp_path / "a.parquet", input_ids=[[104, 99999, 105]], labels=[[-100, -100, 105]])
    text = printed(path, tokenizer_dir)
    assert "[1] 2 tokens\n    h<99999>\n  error: ids_outside_vocabulary, token 1 (id 99999): " in text
    assert "\n[2] 1 token, 1 trained\n    ⟦i⟧\n" in text
    assert "104 99999⟦ 105⟧" in printed(path, None)


def test_wide_characters_are_wrapped_on_a_terminal(tmp_path: Path, tokenizer_dir: Path, write: Writer) -> None:
    ids = byte_ids("你" * 50)
    path = write(tmp_path / "a.parquet", input_ids=[ids], labels=[[-100] * 150])
    lines = printed(path, tokenizer_dir, colour=True, width=40).splitlines()
    assert [line.count("你") for line in lines if "你" in line] == [18, 18, 14]
    assert "你" * 50 in printed(path, tokenizer_dir, width=40)


def test_json_report_is_one_valid_document(shard_dir: Path, tokenizer_dir: Path) -> None:
    document = json.loads(printed(shard_dir, tokenizer_dir, format="json", rows=2))
    assert list(document) == ["summary", "rows", "notes", "audit"]
    assert document["audit"] is None
    assert document["summary"]["splits"][0]["trained_tokens"] == 30
    assert len(document["rows"]) == 2
    assert document["rows"][0]["tokens"][0] == {
        "id": ASK,
        "text": "<|ask|>",
        "trained": False,
        "special": True,
        "label": None,
        "kind": None,
        "weight": None,
    }
    assert [token["label"] for token in document["rows"][0]["tokens"]] == [None] * 4 + [*byte_ids("yes 0"), END]


def test_json_report_escapes_control_characters(tmp_path: Path, write: Writer) -> None:
    hostile = HOSTILE + "\U000e0041"
    path = write(tmp_path / "a.parquet", text=[hostile])
    text = report_json(inspect_shards(InspectConfig(), open_shards(str(path))))
    assert json.loads(text)["rows"][0]["text"] == hostile
    assert not set("\x1b\x07\r\x9b\u202e\U000e0041") & set(text)
    assert terminal_safe_json('"\U000e0041"') == '"\\udb40\\udc41"'


def test_summary_imports_neither_torch_nor_transformers(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path / "a.parquet", input_ids=[[1, 2]], labels=[[1, 2]])
    code = (
        "import sys; from sftkit.config.commands import InspectConfig; from sftkit.shards.reading import open_shards; "
        "from sftkit.inspection.report import inspect_shards; import sftkit.cli.console.reports.show_report; "
        "inspect_shards(InspectConfig(), open_shards(sys.argv[1])); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
