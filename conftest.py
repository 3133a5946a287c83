"""What doctests need: examples of the public API run in a temporary directory that holds shards of the sample."""

from __future__ import annotations

from pathlib import Path

import pytest

import sftkit


@pytest.fixture(scope="session")
def sample_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of the bundled sample, unpacked. Do not change them."""
    path = tmp_path_factory.mktemp("sample") / "shards"
    sftkit.preprocess(
        data_config_path="sample:data_config.yaml", model_name_or_path="sample:model", output_dir=path, num_workers=1
    )
    return path


@pytest.fixture(autouse=True)
def _example_directory(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(request.node, pytest.DoctestItem) and request.node.name.startswith("sftkit.api"):
        (tmp_path / "shards").symlink_to(request.getfixturevalue("sample_shards"))
        monkeypatch.chdir(tmp_path)
