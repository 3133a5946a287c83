"""Shards of the bundled sample: unpacked, and in packs."""

from __future__ import annotations

from pathlib import Path

import pytest

import sftkit


@pytest.fixture(scope="session")
def sample_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked. Do not change them."""
    path = tmp_path_factory.mktemp("sample") / "shards"
    sftkit.preprocess(
        data_config_path="sample:data_config.yaml", model_name_or_path="sample:model", output_dir=path, num_workers=1
    )
    return path


@pytest.fixture(scope="session")
def packed_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packs of 256 tokens. Do not change them."""
    path = tmp_path_factory.mktemp("packed") / "shards"
    sftkit.preprocess(
        data_config_path="sample:data_config.yaml", model_name_or_path="sample:model", output_dir=path,
        packing="bfd", pack_length=256, num_workers=1,
    )  # fmt: skip
    return path
