"""Leave out architectures that are neither asked for nor a sample."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests marked `architectures`, unless they are also slow or `-m` names the mark."""
    if "architectures" in config.option.markexpr:
        return
    left_out = [
        item for item in items if item.get_closest_marker("architectures") and not item.get_closest_marker("slow")
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
