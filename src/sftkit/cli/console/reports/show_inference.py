"""Prints how rows compare with what a model sees at inference."""

from __future__ import annotations

from collections.abc import Iterator

from sftkit.shards.manifest import Manifest


def inference_lines(manifest: Manifest) -> Iterator[str]:
    """Yield how many conversations became samples of their turns, and whether all trained tokens stand as at inference.

    Nothing is said about data sets that did not compare them (`render: once`).
    """
    counts = manifest.inference
    if counts is None:
        return
    if counts.conversations:
        how = "conversation is" if counts.conversations == 1 else "conversations are"
        yield (
            f"{counts.conversations:,} {how} rendered turn by turn (render: {manifest.config.get('render')}), because "
            f"the chat template changes earlier turns: {counts.samples:,} samples, {counts.added_tokens:+,} tokens"
        )
    if manifest.inference_exact:
        yield "every trained token follows the tokens that the model gets at inference"
    elif counts.inexact_rows:
        turns = "turn does" if counts.inexact_turns == 1 else "turns do"
        yield (
            f"{counts.inexact_turns:,} {turns} not follow the prompt of inference, or it is not known: in "
            f"{counts.inexact_rows:,} of {counts.rows:,} rows"
        )
