"""Whether the model of `make demo` has learned something: `python scripts/check_demo.py demo/model`.

Its loss on the validation split has fallen, and what it answers to questions that it was not trained on has the form
that answers have in the sample. What it says in that form is mostly wrong: it has half a million parameters.
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
LARGEST_LOSS = 1.8  # random weights have 7.6, a model that knows how often words come up about 5
SMALLEST_SHARE = 0.5


def main() -> None:
    """Exit with 1 and a sentence when it has not."""
    folder = Path(sys.argv[1])
    losses = [event["eval_loss"] for event in _lines(folder / "training_logs.jsonl") if "eval_loss" in event]
    if losses[-1] > LARGEST_LOSS:
        sys.exit(f"the validation loss ended at {losses[-1]:.3f}, more than {LARGEST_LOSS}")
    answers = {sample["prompt"]: sample["answer"] for sample in _lines(folder / "samples.jsonl")}
    right = [re.fullmatch(form, answers[prompt].strip()) is not None for prompt, form in FORMS.items()]
    if sum(right) < SMALLEST_SHARE * len(FORMS):
        sys.exit(f"no answer has the form of the sample's answers: {answers}")
    print(f"the demo learned: validation loss {losses[0]:.3f} -> {losses[-1]:.3f}, {sum(right)} answers in form")


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
