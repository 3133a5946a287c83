"""What a data config cannot contain, because it may come from anyone; `--config` files and options can."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import sftkit
from sftkit.config.commands import InspectConfig, PreprocessConfig, TrainConfig
from sftkit.config.loading import load_config
from sftkit.errors import ConfigError

SECRET = "SECRET-of-the-environment"


@pytest.fixture(autouse=True)
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLANTED", SECRET)


def loaded(dataset: Mapping[str, Any], *options: str, **keys: Any) -> PreprocessConfig:
    """The config of a command whose data config has one data set with these keys, and these top-level keys."""
    content = {"datasets": [{"name": "a", "data_paths": ["a.jsonl"], **dataset}], **keys}
    Path("data.yaml").write_text(yaml.safe_dump(content))
    return load_config(PreprocessConfig, ["--data_config_path", "data.yaml", "--output_dir", "out", *options])


def refused(dataset: Mapping[str, Any], *options: str, **keys: Any) -> str:
    with pytest.raises(ConfigError) as error:
        loaded(dataset, *options, **keys)
    assert SECRET not in str(error.value)
    assert str(error.value).startswith("data.yaml: ")
    return str(error.value)


ENVIRONMENT = (
    "${oc.env:PLANTED}",
    "a-${oc.env:PLANTED}-b",
    "${oc.env:PLANTED,default}",
    "${ oc.env : PLANTED }",
    "${oc.decode:${oc.env:PLANTED}}",
    "${oc.env:${dataprocessor.type}}",
    "\\\\${oc.env:PLANTED}",
    "${oc.dict.values:storage_options}",
    "${oc.create:${oc.env:PLANTED}}",
)


@pytest.mark.parametrize("text", ENVIRONMENT)
@pytest.mark.parametrize(
    ("key", "dataset"),
    [
        ("datasets[0].name", lambda text: {"name": text}),
        ("datasets[0].data_paths[0]", lambda text: {"data_paths": [f"https://host/a.jsonl?t={text}"]}),
        ("datasets[0].rename_columns.", lambda text: {"rename_columns": {text: "b"}}),
        ("datasets[0].storage_options.headers.a", lambda text: {"storage_options": {"headers": {"a": text}}}),
        (
            "datasets[0].data_handlers[0].arguments.fn_kwargs.x",
            lambda text: {"data_handlers": [{"name": "h", "arguments": {"fn_kwargs": {"x": text}}}]},
        ),
    ],
)
def test_a_data_config_cannot_read_the_environment(key: str, dataset: Any, text: str) -> None:
    message = refused(dataset(text))
    assert message.startswith(f"data.yaml: {key}")
    assert re.search(r"uses oc\.[a-z.]+, which a data config cannot", message)


@pytest.mark.parametrize("schema", [PreprocessConfig, TrainConfig, InspectConfig])
def test_no_command_lets_a_data_config_read_the_environment(schema: type[Any]) -> None:
    Path("data.yaml").write_text("datasets: [{name: '${oc.env:PLANTED}', data_paths: [a.jsonl]}]\n")
    output = [] if schema is InspectConfig else ["--output_dir", "out"]
    with pytest.raises(ConfigError, match=r"^data\.yaml: datasets\[0\]\.name uses oc\.env"):
        load_config(schema, ["--data_config_path", "data.yaml", *output])
    Path("run.yaml").write_text("data_config_path: data.yaml\n")  # a file that the user's own names
    with pytest.raises(ConfigError, match=r"^data\.yaml: datasets\[0\]\.name uses oc\.env"):
        load_config(schema, ["--config", "run.yaml", *output])
    with pytest.raises(ConfigError, match=r"^data\.yaml: datasets\[0\]\.name uses oc\.env"):
        sftkit.preprocess("run.yaml", output_dir="out")


def test_text_that_only_looks_like_an_interpolation_stays_text() -> None:
    assert loaded({"name": r"a-\${oc.env:PLANTED}"}).datasets[0].name == "a-${oc.env:PLANTED}"
    assert loaded({"name": "${x:y} ${"}).datasets[0].name == "${x:y} ${"
    handler = {"name": "h", "arguments": {"fn_kwargs": {"template": "${oc.env:PLANTED}"}}}
    config = loaded({"data_handlers": [handler]})
    assert config.datasets[0].data_handlers[0].arguments["fn_kwargs"]["template"] == "${oc.env:PLANTED}"


def test_what_a_user_writes_can_read_the_environment() -> None:
    Path("run.yaml").write_text("model_name_or_path: ${oc.env:PLANTED}\n")
    assert loaded({}, "--config", "run.yaml").model_name_or_path == SECRET
    assert loaded({}, "--datasets[0].name", "${oc.env:PLANTED}").datasets[0].name == SECRET


def test_references_of_a_data_config_work_and_follow_the_command_line() -> None:
    keys = {"dataprocessor": {"seed": 3}}
    assert loaded({"name": "a-${dataprocessor.seed}"}, **keys).datasets[0].name == "a-3"
    assert loaded({"name": "a-${dataprocessor.seed}"}, "--dataprocessor.seed", "7", **keys).datasets[0].name == "a-7"
    assert loaded({"name": "${model_name_or_path}"}, "--model_name_or_path", "m").datasets[0].name == "m"


@pytest.mark.parametrize(
    ("reference", "options"),
    [
        ("output_dir", ()),
        ("storage_options.s3.secret", ("--storage_options.s3.secret", SECRET)),
        ("datasets[0].storage_options.token", ("--datasets[0].storage_options.token", SECRET)),
        ("model_name_or_path", ("--model_name_or_path", "${oc.env:PLANTED}")),
        ("model_name_or_path", ("--model_name_or_path", "${staging_dir}", "--staging_dir", "${oc.env:PLANTED}")),
        ("chat_template_kwargs", ("--chat_template_kwargs.a", "${oc.env:PLANTED}")),
    ],
)
def test_references_of_a_data_config_lead_to_nothing_that_is_secret(reference: str, options: tuple[str, ...]) -> None:
    dataset = {"data_paths": [f"https://host/a.jsonl?t=${{{reference}}}"]}
    message = refused(dataset, *options)
    assert f"datasets[0].data_paths[0] refers to {reference}, which a data config cannot read" in message


CHAINS = (
    "simplecache::https://host/a.jsonl",
    "filecache::s3://bucket/a.jsonl",
    "blockcache://a.jsonl",
    "zip://a.jsonl::simplecache::https://host/a.zip",
    "zip://a.jsonl::filecache::/etc/a.zip",
    "simplecache::/etc/passwd",
    "cached://a",
    "dir::file:///etc",
    "reference://x::https://host/refs.json",
    "ssh://host/a.jsonl",
    "github://org:repo@/a.jsonl",
    "smb://host/a.jsonl",
    "generic://a",
    "data://x",
    "nosuch://x",
)


@pytest.mark.parametrize("path", CHAINS)
def test_a_data_config_cannot_name_protocols_that_write_or_lead_elsewhere(path: str) -> None:
    for dataset in ({"data_paths": [path]}, {"data_paths": path}, {"data_paths": ["a.jsonl", path]}):
        assert "datasets[0].data_paths uses the protocol '" in refused(dataset)
    assert "datasets[0].data_paths uses" in refused({"name": path, "data_paths": ["${datasets[0].name}"]})
    assert "training_data_path uses" in refused({}, training_data_path=path)
    for section in ([path], path, {"paths": ["a.jsonl", path]}):
        message = refused({}, dataprocessor={"decontaminate": section})
        assert "dataprocessor.decontaminate uses the protocol '" in message
    assert loaded({"data_paths": [path]}, "--datasets[0].data_paths", path).datasets[0].data_paths == (path,)


@pytest.mark.parametrize(
    "path",
    ["a.jsonl", "a::b.jsonl", "s3://bucket/*.jsonl", "hf://datasets/a/b/c.jsonl", "zip://a.jsonl::https://host/a.zip"],
)
def test_a_data_config_can_name_protocols_that_only_read(path: str) -> None:
    assert loaded({"data_paths": [path]}).datasets[0].data_paths == (path,)


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("fo", {"fo": "simplecache::file:///etc/passwd"}),
        ("target_protocol", {"target_protocol": "simplecache"}),
        ("target_options", {"target_options": {"simplecache": {"cache_storage": "/home/user"}}}),
        ("protocol", {"protocol": "simplecache"}),
        ("fs", {"fs": {"cls": "x"}}),
        ("remote_protocol", {"remote_protocol": "ssh"}),
        ("simplecache.cache_storage", {"simplecache": {"cache_storage": "/home/user"}}),
        ("s3.client_kwargs", {"s3": {"client_kwargs": {"verify": "/etc/passwd"}}}),
        ("s3.cache_options", {"s3": {"cache_options": {"location": "/home/user/x"}}}),
        ("s3.profile", {"s3": {"profile": "mine"}}),
        ("https.client_kwargs", {"https": {"client_kwargs": {"trust_env": True}}}),
        ("gs.token", {"gs": {"token": "/home/user/key.json"}}),
        ("az.account_name", {"az": {"account_name": "host.example/"}}),
        ("hf.endpoint", {"hf": {"endpoint": "https://host.example"}}),
        ("file.auto_mkdir", {"file": {"auto_mkdir": True}}),
    ],
)
def test_a_data_config_can_set_only_harmless_storage_options(key: str, options: Mapping[str, Any]) -> None:
    dataset = {"data_paths": ["s3://bucket/a.jsonl"], "storage_options": options}
    assert f"datasets[0].storage_options.{key} is not an option that a data config can set for " in refused(dataset)
    dataset = {"data_paths": ["zip://a.jsonl"], "storage_options": options}
    assert f"datasets[0].storage_options.{key} is not an option that a data config can set for " in refused(dataset)
    typed = [word for name, value in options.items() for word in (f"--datasets[0].storage_options.{name}", str(value))]
    assert loaded({"data_paths": ["zip://a.jsonl"], "storage_options": options}, *typed)


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint_url": "https://host.example"},
        {"endpoint_url": "https://host.example", "key": "k"},
        {"client_kwargs": {"endpoint_url": "https://host.example"}},
        {"endpoint_url": "https://host.example", "anon": True, "s3": {"anon": False}},
        {"s3": {"endpoint_url": "https://host.example"}, "key": "k", "secret": ""},
    ],
)
def test_a_data_config_cannot_send_the_credentials_of_the_user_to_a_server(options: Mapping[str, Any]) -> None:
    dataset = {"data_paths": ["s3://bucket/a.jsonl"], "storage_options": options}
    assert "storage_options has an endpoint_url, to which a data config must not send" in refused(dataset)
    for own in ({"anon": True}, {"key": "k", "secret": "s"}):
        given = {**options, **own, **({"s3": {**options["s3"], **own}} if "s3" in options else {})}
        assert loaded({**dataset, "storage_options": given}).datasets[0].storage_options == given


def test_options_of_a_run_are_not_for_data_configs() -> None:
    assert "cannot set storage_options" in refused({}, storage_options={"anon": True})
