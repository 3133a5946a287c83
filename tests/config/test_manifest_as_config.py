"""A manifest given as `--config` repeats what rows are; it grants no trust, and says neither where nor how to write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sftkit.config.commands import InspectConfig, PreprocessConfig, TrainConfig
from sftkit.config.fields import keys_where, to_plain_data
from sftkit.config.loading import load_config
from sftkit.config.reading.python_values import load_values
from sftkit.errors import ConfigError, UsageError

HARMFUL: dict[str, Any] = {
    "output_dir": "home/.config/autostart", "staging_dir": "home/.ssh", "keep_staging": True, "overwrite": True,
    "append": True,
    "trust_packages": ["subprocess"], "trust_remote_code": True, "storage_options": {"file": {"auto_mkdir": True}},
    "executor": "ray", "ray_address": "10.0.0.1:6379", "num_workers": 9999, "engine_verify": 0.5, "dry_run": True,
    "engine": "reference", "log_level": "critical", "unit_size": 1,
}  # fmt: skip


@pytest.fixture
def manifest(tmp_path: Path) -> dict[str, Any]:
    config = to_plain_data(
        load_config(PreprocessConfig, [f"--training_data_path={tmp_path}/rows.jsonl", "--output_dir=theirs"])
    )
    dataset = {"name": "rows", "data_paths": ["rows.jsonl"], "storage_options": {"target_options": {"x": "y"}}}
    config |= {**HARMFUL, "datasets": [dataset], "training_data_path": [], "max_seq_length": 77}
    return {"format_version": 1, "fingerprint": "0" * 64, "config": config}


def _save(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def _harmful_values(config: PreprocessConfig) -> dict[str, Any]:
    plain = to_plain_data(config)
    return {key: plain[key] for key in HARMFUL}


def test_a_manifest_without_an_output_directory_is_named(tmp_path: Path, manifest: dict[str, Any]) -> None:
    path = _save(tmp_path / "manifest.json", manifest)
    with pytest.raises(UsageError) as raised:
        load_config(PreprocessConfig, ["--config", path])
    assert str(raised.value) == (
        f"missing key 'output_dir': Directory for the shards; {path} is a manifest, which does not set it: add "
        "--output_dir"
    )


@pytest.mark.parametrize("name", ["manifest.json", "renamed.json", "manifest.yaml", "own_options"])
def test_a_manifest_of_any_name_grants_no_trust_and_says_not_where_to_write(
    name: str, tmp_path: Path, manifest: dict[str, Any]
) -> None:
    config = load_config(PreprocessConfig, [f"--config={_save(tmp_path / name, manifest)}", "--output_dir=mine"])
    default = load_config(PreprocessConfig, ["--output_dir=mine"])
    assert _harmful_values(config) == _harmful_values(default)
    assert (config.max_seq_length, config.datasets[0].name) == (77, "rows")
    assert config.datasets[0].storage_options == {}


def test_every_key_that_needs_trust_is_among_the_tested_ones() -> None:
    trusted = set(keys_where(PreprocessConfig, lambda info: info.trusted_only or info.secret))
    assert trusted - {"config"} == set(HARMFUL)


def test_a_manifest_behind_a_link_is_one(tmp_path: Path, manifest: dict[str, Any]) -> None:
    _save(tmp_path / "manifest.json", manifest)
    (tmp_path / "mine.yaml").symlink_to("manifest.json")
    config = load_config(PreprocessConfig, [f"--config={tmp_path / 'mine.yaml'}", "--output_dir=mine"])
    assert not config.trust_remote_code


@pytest.mark.parametrize("first", ["manifest", "own"])
def test_a_manifest_beside_other_configs_changes_nothing_of_what_they_allow(
    first: str, tmp_path: Path, manifest: dict[str, Any]
) -> None:
    own = _save(tmp_path / "own.yaml", {"output_dir": "mine", "trust_packages": ["numpy"], "log_level": "info"})
    paths = [own, _save(tmp_path / "manifest.json", manifest)]
    config = load_values(PreprocessConfig, paths if first == "own" else paths[::-1])
    assert (config.output_dir, config.trust_packages, config.log_level) == ("mine", ("numpy",), "info")
    assert (config.staging_dir, config.trust_remote_code) == (None, False)


def test_the_output_directory_of_a_manifest_is_missing(tmp_path: Path, manifest: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="output_dir"):
        load_config(PreprocessConfig, [f"--config={_save(tmp_path / 'manifest.json', manifest)}"])


@pytest.mark.parametrize("schema", [PreprocessConfig, InspectConfig, TrainConfig])
@pytest.mark.parametrize("key", ["output-dir", "trust-packages", "cache_dir", "training_arguments", "aim_repo", "x"])
def test_a_manifest_has_no_other_keys(schema: type[Any], key: str, tmp_path: Path, manifest: dict[str, Any]) -> None:
    manifest["config"][key] = "y"
    with pytest.raises(ConfigError, match=f"manifest has the key '{key}', which this version does not repeat; use a"):
        load_config(schema, [f"--config={_save(tmp_path / 'manifest.json', manifest)}"])


@pytest.mark.parametrize("config", [5, None, {}, {"datasets": []}, {"datasets": "x"}, [{"datasets": [{}]}]])
def test_a_manifest_without_data_sets_is_refused(config: Any, tmp_path: Path, manifest: dict[str, Any]) -> None:
    path = _save(tmp_path / "manifest.json", {**manifest, "config": config, "trust_remote_code": True})
    with pytest.raises(ConfigError, match=r"manifest\.json: the config in this manifest has no `datasets`"):
        load_config(PreprocessConfig, [f"--config={path}", "--output_dir=mine"])


def test_the_config_saved_as_an_own_file_says_where_to_write(tmp_path: Path, manifest: dict[str, Any]) -> None:
    config = load_config(PreprocessConfig, [f"--config={_save(tmp_path / 'mine.yaml', manifest['config'])}"])
    assert (config.output_dir, config.overwrite) == ("home/.config/autostart", False)
