"""Write docs/reference.md from the config dataclasses and the handlers.

python scripts/make_reference.py            # write docs/reference.md
python scripts/make_reference.py --check    # exit with code 1 if the page is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sftkit.cli.options import Option, options_of
from sftkit.config import aliases
from sftkit.config.commands import InspectConfig, PreprocessConfig, TrainConfig
from sftkit.config.schema.data_config import (
    DatasetConfig,
    HandlerConfig,
    ProcessorConfig,
    ReaderConfig,
    SplitConfig,
    StageConfig,
)
from sftkit.config.schema.shared_options import DataOptions
from sftkit.handlers.registry import HANDLERS

PAGE = Path(__file__).parent.parent / "docs" / "reference.md"


def main() -> int:
    """Write the page, or check it."""
    text = "\n".join(_lines()) + "\n"
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


def _lines() -> Iterator[str]:
    yield "# Reference"
    yield ""
    yield "Generated from the code by `python scripts/make_reference.py`."
    yield ""
    yield "Set a key on the command line as `--key value`, `--key=value` or `key=value`, with dashes or underscores;"
    yield "nested keys with dots and list indices (`datasets[0].sampling=0.3`). Or set it in a YAML or JSON file"
    yield "(`--config`, repeatable). The command line overrides `--config` files, later files override earlier ones,"
    yield "and those override the data config. A list takes several values (`--training_data_path a.jsonl b.jsonl`),"
    yield "or the option several times."
    yield ""
    yield "In files, `${other.key}` refers to another key and `${oc.env:NAME}` to an environment variable (put a"
    yield "backslash before it to make it text). Any other `${` is text, and so is every `${` in a template. In a data"
    yield "config, `${other.key}` refers to keys that a data config can set, and `${oc.env:NAME}` is refused."
    yield ""
    yield "## Keys of all commands"
    yield from _table(options_of(DataOptions))
    shared = {option.name for option in options_of(DataOptions)}
    for name, schema in (("preprocess", PreprocessConfig), ("inspect-shards", InspectConfig), ("train", TrainConfig)):
        yield ""
        yield f"## Additional keys of `sftkit {name}`"
        if name == "train":
            yield ""
            yield "Every field of `transformers.TrainingArguments` is a key, too; see [training](training.md#settings)."
        yield from _table([option for option in options_of(schema) if option.name not in shared])
    for title, section in (
        ("`dataprocessor`", ProcessorConfig),
        ("an entry of `stages`", StageConfig),
        ("an entry of `datasets`", DatasetConfig),
        ("`reader`", ReaderConfig),
        ("`split`", SplitConfig),
        ("an entry of `data_handlers`", HandlerConfig),
    ):
        yield ""
        yield f"## Keys of {title}"
        yield from _table(options_of(section))
    yield ""
    yield "## Handlers"
    yield ""
    yield "Arguments go into `arguments.fn_kwargs` (or directly into `arguments`). Every handler also takes"
    yield "`arguments.remove_columns`: `all` drops every column that the handler did not write, a list drops the"
    yield "named ones. `batched`, `batch_size` and `num_proc` are accepted but do not change the result."
    for name, handler in HANDLERS.items():
        yield ""
        yield f"### `{name}`"
        yield ""
        yield " ".join((handler.__doc__ or "").split())
        yield from _table(options_of(handler))
    yield ""
    yield "### `package.module:function`"
    yield ""
    yield "Your own function: `function(row, **fn_kwargs)` receives a row as a dict and returns the row that replaces"
    yield "it, or `None` to drop it. It may return any mapping, such as the result of a tokenizer call. A parameter"
    yield "named `tokenizer` receives the tokenizer. Modules in the working directory are found."
    yield ""
    yield "## Other accepted names"
    yield ""
    yield "| name | same as |"
    yield "| --- | --- |"
    for section_name, names in aliases.KEY_ALIASES.items():
        prefix = f"{section_name}." if section_name else ""
        yield from (f"| `{prefix}{other}` | `{prefix}{ours}` |" for other, ours in names.items())
    yield from (f"| `--{other}` | `--{ours}` |" for other, ours in aliases.PATH_ALIASES.items())
    yield from (f"| handler `{other}` | `{ours}` |" for other, ours in aliases.HANDLER_ALIASES.items())
    yield from (f"| argument `{other}` | `{ours}` |" for other, ours in aliases.HANDLER_ARGUMENT_ALIASES.items())


def _table(options: list[Option]) -> Iterator[str]:
    if not options:
        return
    yield ""
    yield "| key | | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for option in options:
        kind = ", ".join(f"`{choice}`" for choice in option.choices) or option.kind.lower()
        yield f"| `{option.name}` | {_cell(kind)} | {_code(option.default)} | {_cell(option.help)} |"


def _cell(text: Any) -> str:
    return str(text).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    sys.exit(main())
