"""A packing strategy of another installed package, from the command line to the packs; and checks of its result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plugins_support import install_plugin, run_sftkit
from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.plugins import Registry
from sftkit.errors import DataError
from sftkit.ordering import packing
from sftkit.ordering.packing import keeps_rows_whole, make_packs
from sftkit.ordering.packing_strategy import PackingStrategy, Packs
from support import write_jsonl, written

NEIGHBOURS = """
import numpy as np

from sftkit.ordering.packing_strategy import PackingStrategy, Packs


class Neighbours(PackingStrategy):
    # Two neighbouring rows share a pack if they fit.
    keeps_rows_whole = True

    def pack(self, lengths, capacity):
        offsets, row = [0], 0
        while row < len(lengths):
            row += 2 if lengths[row : row + 2].sum() <= capacity else 1
            offsets.append(min(row, len(lengths)))
        rows = np.arange(len(lengths), dtype=np.int32)
        return Packs(rows, np.zeros_like(rows), np.asarray(lengths, np.int32), np.array(offsets))
"""
REGISTERED = {"sftkit.packing": {"neighbours": "Neighbours"}}


def arguments(source: Path, output: Path, packing_name: str = "neighbours") -> tuple[object, ...]:
    return (
        *("preprocess", "--training_data_path", source, "--model_name_or_path", "sample:model"),
        *("--output_dir", output, "--packing", packing_name, "--pack_length", 40),
        *("--num_workers", 2, "--unit_size", 4096),
    )


def fingerprint(output: Path) -> str:
    return str(json.loads((output / "manifest.json").read_text())["fingerprint"])


@pytest.mark.slow
def test_a_plugin_packs_the_rows_of_a_run_with_workers(tmp_path: Path) -> None:
    rows = [{"input": f"word {n}", "output": "answer " * (1 + n % 17)} for n in range(300)]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    site = install_plugin(tmp_path / "site", NEIGHBOURS, REGISTERED)
    done = run_sftkit(site, *arguments(source, tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    packs = written(tmp_path / "out")
    lengths = [pack["seq_lengths"] for pack in packs]
    assert {len(each) for each in lengths} == {1, 2}
    assert sum(map(len, lengths)) == 300
    assert all(sum(each) == len(pack["input_ids"]) <= 40 for each, pack in zip(lengths, packs, strict=True))
    verified = run_sftkit(site, "inspect-shards", tmp_path / "out", "--verify")
    assert verified.returncode == 0, verified.stdout
    without_plugin = run_sftkit(tmp_path / "empty", "inspect-shards", tmp_path / "out", "--verify")
    assert without_plugin.returncode == 0, without_plugin.stdout
    first = fingerprint(tmp_path / "out")
    (site / "toys.py").write_text(NEIGHBOURS + "\n# changed")
    assert run_sftkit(site, *arguments(source, tmp_path / "changed")).returncode == 0
    assert fingerprint(tmp_path / "changed") != first


@pytest.mark.parametrize(
    ("source", "registered", "name", "message"),
    [
        (
            NEIGHBOURS,
            "neighbours",
            "neighbors",
            "packing must be one of none, bfd, bfd_split, next_fit, wrapped, neighbours, not 'neighbors'",
        ),
        (NEIGHBOURS, "bfd", "bfd", "registers 'bfd' as sftkit.packing, which is the name of a built-in"),
        (
            NEIGHBOURS.replace("    keeps_rows_whole = True\n", ""),
            *("neighbours", "neighbours", "'neighbours' of the package toys must define keeps_rows_whole"),
        ),
    ],
    ids=["unknown", "name of a built-in", "abstract"],
)
def test_a_strategy_that_cannot_be_used_is_a_config_error(
    tmp_path: Path, forked_sftkit: Callable[..., tuple[int, str]], source: str, registered: str, name: str, message: str
) -> None:
    data = write_jsonl(tmp_path / "in.jsonl", [{"input": "a", "output": "b"}])
    site = install_plugin(tmp_path / "site", source, {"sftkit.packing": {registered: "Neighbours"}})
    code, errors = forked_sftkit(site, *arguments(data, tmp_path / "out", name))
    assert code in (1, 2)
    assert message in " ".join(errors.split())


def test_nothing_is_assumed_about_a_strategy_that_is_not_installed() -> None:
    assert not keeps_rows_whole("a_strategy_of_another_machine")


# --- Packs of a plugin are checked -------------------------------------------------------------------


def packs_of(*packs: list[tuple[int, int, int]]) -> Packs:
    """Packs of (row, first token, tokens)."""
    pieces = np.array([piece for pack in packs for piece in pack], np.int32).reshape(-1, 3)
    offsets = np.cumsum([0, *map(len, packs)])
    return Packs(pieces[:, 0], pieces[:, 1], pieces[:, 2], offsets)


def with_offsets(*offsets: int) -> Packs:
    """All rows, and packs with these offsets."""
    whole = packs_of([(0, 0, 3)], [(1, 0, 4)], [(2, 0, 2)])
    return Packs(whole.rows, whole.starts, whole.lengths, np.array(offsets, np.int64))


@pytest.fixture
def strategy(monkeypatch: pytest.MonkeyPatch) -> type[PackingStrategy]:
    """A strategy that returns `made`, registered as the plugin `toy`."""

    class Toy(PackingStrategy):
        keeps_rows_whole = True
        made: Packs

        def pack(self, lengths: Any, capacity: int) -> Packs:
            return self.made

    registry: Registry[type[PackingStrategy]] = Registry("packing", {"toy": Toy})
    monkeypatch.setattr(registry, "identity", lambda name: ["toys", "1.0", ""])
    monkeypatch.setattr(packing, "PACKING_STRATEGIES", registry)
    return Toy


LENGTHS = np.array([3, 4, 2], np.int32)
OPTIONS = DataOptions(packing="toy", pack_length=5)


@pytest.mark.parametrize(
    "packs",
    [
        packs_of([(0, 0, 3), (2, 0, 2)], [(1, 0, 4)]),
        packs_of([(1, 0, 4)], [(2, 0, 2), (0, 0, 3)]),
    ],
)
def test_packs_of_whole_rows_are_accepted(strategy: Any, packs: Packs) -> None:
    strategy.made = packs
    assert make_packs(LENGTHS, OPTIONS) is packs


def test_packs_that_cut_rows_at_their_edges_are_accepted_from_a_strategy_that_cuts(strategy: Any) -> None:
    strategy.keeps_rows_whole = False
    strategy.made = packs_of([(0, 0, 3), (1, 0, 2)], [(1, 2, 2), (2, 0, 2)])
    assert make_packs(LENGTHS, OPTIONS) is strategy.made
    strategy.made = packs_of([(1, 0, 2), (0, 0, 3)], [(1, 2, 2), (2, 0, 2)])
    with pytest.raises(
        DataError, match="packing=toy: a row is cut in the middle of a pack; this must be fixed in the package"
    ):
        make_packs(LENGTHS, OPTIONS)


@pytest.mark.parametrize(
    ("packs", "problem"),
    [
        (packs_of([(0, 0, 3), (1, 0, 4)], [(2, 0, 2)]), "a pack has 7 tokens, more than pack_length=5"),
        (packs_of([(0, 0, 3)], [(1, 0, 4)]), "a token of some row is in no pack or in several"),
        (packs_of([(0, 0, 3), (2, 0, 2)], [(1, 0, 3)]), "a token of some row is in no pack or in several"),
        (packs_of([(0, 0, 3), (2, 0, 2)], [(1, 0, 4)], [(0, 0, 3)]), "a token of some row is in no pack or in several"),
        (
            packs_of([(0, 0, 3)], [(1, 0, 2), (2, 0, 2)], [(1, 2, 2)]),
            "a row is cut, although the strategy keeps rows whole",
        ),
        (packs_of([(0, 0, 3), (2, 0, 2)], [], [(1, 0, 4)]), "a pack has no rows"),
        (with_offsets(1, 3), "a pack has no rows, or rows that no pack has"),
        (with_offsets(0, 2), "a pack has no rows, or rows that no pack has"),
        (with_offsets(), "a pack has no rows, or rows that no pack has"),
        (packs_of([(0, 0, 3), (2, 0, 2)], [(1, 0, 4)], [(3, 0, 1)]), "a pack has a row that does not exist"),
        (packs_of([(0, 0, 3), (2, 0, 2)], [(1, 0, 4)], [(-1, 0, 1)]), "a pack has a row that does not exist"),
    ],
)
def test_packs_that_lose_repeat_or_cut_tokens_are_refused(strategy: Any, packs: Packs, problem: str) -> None:
    strategy.made = packs
    with pytest.raises(DataError, match=problem):
        make_packs(LENGTHS, OPTIONS)
