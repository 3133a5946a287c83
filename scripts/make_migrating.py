"""Write the tables of docs/migrating.md from the keys in `config/foreign_keys`.

python scripts/make_migrating.py            # write the tables
python scripts/make_migrating.py --check    # exit with code 1 if the page is out of date
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sftkit.config.foreign_keys.foreign_key import ForeignKey
from sftkit.config.foreign_keys.tables import DATASETS, FOREIGN_KEYS, TOP_LEVEL

PAGE = Path(__file__).parent.parent / "docs" / "migrating.md"
_TABLE = re.compile(r"<!-- keys of ([\w-]+?)(, in datasets)? -->\n.*?<!-- end of keys -->", re.DOTALL)


def main() -> int:
    """Write the page, or check it."""
    old = PAGE.read_text(encoding="utf-8")
    new = _TABLE.sub(_table, old)
    if "--check" in sys.argv[1:]:
        return 0 if old == new else 1
    PAGE.write_text(new, encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


def _table(match: re.Match[str]) -> str:
    tool, in_datasets = match[1], match[2] or ""
    section = DATASETS if in_datasets else TOP_LEVEL
    keys = [key for key in FOREIGN_KEYS[section].values() if tool in key.tools]
    lines = [f"| {tool} | sftkit | |", "| --- | --- | --- |", *map(_row, keys)]
    return "\n".join([f"<!-- keys of {tool}{in_datasets} -->", "", *lines, "", "<!-- end of keys -->"])


def _row(key: ForeignKey) -> str:
    counterpart = f"`{key.key}`" if key.key else "none"
    return f"| `{key.name}` | {counterpart} | {key.note} |"


if __name__ == "__main__":
    sys.exit(main())
