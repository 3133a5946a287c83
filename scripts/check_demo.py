"""Check that the model of `make demo` has learned: `python scripts/check_demo.py demo/model`.

Its validation loss must have fallen, and its answers to questions that it was not trained on must have the form of the
sample's answers. Their content is mostly wrong, because the model has 0.7 million parameters.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

FORMS = {
    "Which language would help me in Latvia?": r"In \w+, \w+ will help you\.",
    "What do 2 calendars and 6 postcards cost?": r"(\d+ \w+: €\d+\.\d\d\n)+Total: €\d+\.\d\d",
}
LARGEST_LOSS = 1.8  # random weights give 7.6, word frequencies alone about 5
SMALLEST_SHARE = 0.5


def main() -> None:
    """Exit with code 1 and a sentence if it has not."""
    folder = Path(sys.argv[1])
    losses = [event["eval_loss"] for event in _lines(folder / "training_logs.jsonl") if "eval_loss" in event]
    if losses[-1] > LARGEST_LOSS:
        sys.exit(f"the validation loss ended at {losses[-1]:.3f}, more than {LARGEST_LOSS}")
    answers = {sample["prompt"]: sample["answer"] for sample in _lines(folder / "samples.jsonl")}
    well_formed = [re.fullmatch(form, answers[prompt].strip()) is not None for prompt, form in FORMS.items()]
    if sum(well_formed) < SMALLEST_SHARE * len(FORMS):
        sys.exit(f"no answer has the form of the answers in the sample: {answers}")
    print(
        f"the demo learned: validation loss {losses[0]:.3f} -> {losses[-1]:.3f}, {sum(well_formed)} well-formed answers"
    )


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
