"""Splits that are given as a number of rows."""

from __future__ import annotations

from sftkit.config.schema.data_config import DatasetConfig, SplitConfig
from sftkit.errors import DataError


def split_of(dataset: DatasetConfig, rows: int) -> SplitConfig | None:
    """Return the split of a data set by fractions, also if it asks for a number of rows for validation.

    Args:
        dataset: the data set.
        rows: the number of its rows.

    Raises:
        DataError: no row would be left for training.

    Example:
        >>> split_of(DatasetConfig(name="data", data_paths=("a",), validation_rows=10), 100)
        SplitConfig(train=0.905, validation=0.095)
    """
    if dataset.validation_rows is None:
        return dataset.split
    if dataset.validation_rows >= rows:
        raise DataError(
            f"dataset {dataset.name!r}: {dataset.validation_rows} rows for validation leave none of its {rows} rows "
            "for training; set fewer (val_size, or validation_rows of the data set)"
        )
    validation = (dataset.validation_rows - 0.5) / rows  # splitting rounds it up, and the other fraction down
    return SplitConfig(train=1 - validation, validation=validation)
