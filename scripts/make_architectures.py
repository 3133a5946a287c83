"""Write the table of docs/architectures.md by trying tiny models of every architecture of transformers.

python scripts/make_architectures.py
"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from training.architectures.layouts import PAGE, rows

_TABLE = re.compile(r"<!-- architectures -->\n.*?<!-- end of architectures -->", re.DOTALL)


def main() -> None:
    """Write the page."""
    logging.disable()
    transformers.logging.set_verbosity_error()
    found = rows()
    counts = [
        f"{sum(layout == each for _, layout, _ in found)} {each}" for each in dict.fromkeys(row[1] for row in found)
    ]
    lines = [
        f"transformers {transformers.__version__}: {len(found)} architectures, of which {counts}.",
        "",
        "| architecture | batches | why |",
        "| --- | --- | --- |",
        *(f"| `{name}` | {layout} | {reason} |" for name, layout, reason in found),
    ]
    table = "\n".join(["<!-- architectures -->", "", *lines, "", "<!-- end of architectures -->"])
    PAGE.write_text(_TABLE.sub(lambda _: table, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
