"""Secrets that a user gives are in nothing that a run prints or writes, whether it works or fails."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from reliability.material import sftkit
from support import write_jsonl

SECRET = "SECRETx9"
OPTIONS = ("--input_field_name", "input", "--output_field_name", "output", "--tokenizer_name_or_path", "sample:model")


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Be silent."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a web server for the current folder, whose file pairs.jsonl has a bad row."""
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "pairs.jsonl", [*({"input": "a", "output": "b"} for _ in range(3)), {"input": "c"}])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))  # how often it looks for the end
        thread.start()
        yield f"127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def run(*words: object, code: int) -> str:
    """What a command prints. Neither that nor any file of the current folder has the secret."""
    outcome = sftkit("preprocess", *map(str, words))
    assert outcome.code == code, outcome
    printed = outcome.out + outcome.err
    assert SECRET not in printed
    for path in Path().rglob("*"):
        assert SECRET not in path.name
        assert path.suffix == ".yaml" or not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    return printed


def test_credentials_of_a_url_are_neither_printed_nor_written(server: str) -> None:
    url = f"http://{server}/pairs.jsonl?id={SECRET}&sig={SECRET}"
    words = (*OPTIONS, "--max_bad_rows", "1", "--output_dir", "out")
    run("--training_data_path", url, *words, "--log_level", "debug", "--keep_staging", code=0)
    [source] = json.loads(Path("out/manifest.json").read_text())["sources"]
    assert source["path"].startswith(f"http://{server}/pairs.jsonl?id=***")
    assert "complete and unchanged" in run("--training_data_path", f"{url}2", *words, code=0)  # with another signature
    assert run("--training_data_path", url, *words, "--dry_run", code=0)
    run("--training_data_path", url, *OPTIONS, "--output_dir", "out2", code=1)  # the bad row


@pytest.mark.slow
def test_credentials_of_a_url_that_cannot_be_used_are_neither_printed_nor_written(server: str) -> None:
    for wrong in (
        f"http://u:{SECRET}@{server}/no.jsonl",
        f"http://{server}/no.jsonl?sig={SECRET}",
        f"s3://a:{SECRET}@",
    ):
        run("--training_data_path", wrong, *OPTIONS, "--output_dir", "out3", code=1)
        run("--training_data_path", "pairs.jsonl", *OPTIONS, "--output_dir", wrong, code=1)


def test_a_manifest_says_what_must_be_given_again(server: str) -> None:
    url = f"http://{server}/pairs.jsonl?id={SECRET}"
    words = ("--max_bad_rows", "1", "--output_dir")
    run("--training_data_path", url, *OPTIONS, *words, "out", code=0)
    repeat = ("--config", "out/manifest.json", "--output_dir", "again")
    assert "give the whole URL as --datasets[0].data_paths URL" in run(*repeat, code=2)
    run(*repeat, "--datasets[0].data_paths", url, code=0)
    assert Path("again/train-00000-of-00001.parquet").read_bytes() == next(Path("out").glob("train*")).read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ("--storage_options", f"{{key: {SECRET}"),
        ("--storage_options", f"key={SECRET}"),
        ("--storage_options.s3", SECRET),
        ("--storage_options.s3.secret", f"a${{{SECRET}"),
        ("--storage_options.s3.secret", f"${{oc.env:{SECRET}}}"),
        ("--storage_options.s3.secret", "a", SECRET),
        (f"storage_option:{{key: {SECRET}}}",),
        ("--storage_option.s3.secret", SECRET),
        ("--datasets[0].storage_options.s3", SECRET),
    ],
)
def test_mistakes_in_storage_options_do_not_show_them(server: str, words: tuple[str, ...]) -> None:
    outcome = sftkit("preprocess", "--training_data_path", "s3://b/a.jsonl", *OPTIONS, "--output_dir", "out", *words)
    assert outcome.code in (1, 2)
    assert SECRET not in outcome.out + outcome.err or words[-1].startswith("${oc.env:")  # a variable's name


def test_a_bug_does_not_show_credentials(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://u:{SECRET}@{server}/pairs.jsonl?sig={SECRET}"

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"cannot read {url}")

    monkeypatch.setattr("sftkit.preprocessing.planning.check_config", fail)
    monkeypatch.setattr("sftkit.preprocessing.planning.plan", fail)
    assert "this is a bug" in run("--training_data_path", url, *OPTIONS, "--output_dir", "out", code=70)


def test_what_a_config_reads_from_the_environment_is_not_written(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", SECRET)
    columns = {"fn_kwargs": {"input_field_name": "input", "output_field_name": "output"}}
    masking = {"name": "tokenize_and_apply_input_masking", "arguments": columns}
    dataset = {"name": "a-${oc.env:PLANTED}", "data_paths": [f"http://{server}/pairs.jsonl?x=${{oc.env:PLANTED}}"]}
    config = {"datasets": [{**dataset, "data_handlers": [masking]}], "model_name_or_path": "sample:model"}
    Path("own.yaml").write_text(yaml.safe_dump({**config, "chat_template_kwargs": {"own": "${datasets[0].name}"}}))
    run("--config", "own.yaml", "--max_bad_rows", "1", "--output_dir", "out", "--keep_staging", code=0)
    written = json.loads(Path("out/manifest.json").read_text())
    assert written["config"]["datasets"][0]["name"] == written["sources"][0]["dataset"] == "a-${oc.env:PLANTED}"
    assert written["config"]["datasets"][0]["data_paths"] == dataset["data_paths"]
    assert written["config"]["chat_template_kwargs"]["own"] == "a-${oc.env:PLANTED}"
    repeat = ("--config", "out/manifest.json", "--output_dir", "again")
    assert "datasets[0].name is 'a-${oc.env:PLANTED}', and a manifest reads no environment" in run(*repeat, code=2)
