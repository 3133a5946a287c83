"""Each command runs with any config file, or reports what is wrong with it.

SFTKIT_EXAMPLES=100 in the environment tries a hundred times as many examples, new ones each time.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from reliability.material import CONFIGS, FILES, budget, changed_bytes, make_folder, sftkit
from sftkit.config.aliases import HANDLER_ALIASES, HANDLER_ARGUMENT_ALIASES, KEY_ALIASES, PATH_ALIASES
from sftkit.config.commands import InspectConfig, PreprocessConfig
from sftkit.config.schema.data_config import DatasetConfig, HandlerConfig, ProcessorConfig, ReaderConfig, SplitConfig
from sftkit.handlers.registry import HANDLERS


def names_of(*schemas: type[Any]) -> list[str]:
    return sorted({field.name for schema in schemas for field in dataclasses.fields(schema)})


# No paths that lead out of the folder, and nothing that is looked for on the Hub.
WORDS = [
    *(*FILES, "tokenizer", "template.jinja", "data.yaml", ".", "*.jsonl", "[", "sample:pairs.jsonl", "sample:model"),
    *("", " ", "none", "true", "yes", "1e-3", "0x10", "~", "all", "messages", "text", "input", "output", "id", "bfd"),
    *(
        "wrapped",
        "truncate",
        "assistant",
        "{{ x }}",
        "{% if",
        "${datasets}",
        "${oc.env:HOME}",
        "${nowhere}",
        "${",
        "a\nb",
    ),
    *("\t", "\x07", "é", "json:loads", "builtins:dict", "nowhere:f", ":", "os:nothing", "math:sqrt", "builtins:print"),
]
words = st.one_of(st.sampled_from(WORDS), st.text(alphabet="ab:_-. é{}[]$%\\", max_size=6))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.integers(), st.floats(), words,
    st.sampled_from([10**30, -1, 0, math.nan, math.inf, 1e308]),
)  # fmt: skip
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(words, st.integers(), st.none()), inner, max_size=3)
    ),
    max_leaves=6,
)


def section(names: list[str], inner: dict[str, st.SearchStrategy[Any]], most: int = 6) -> st.SearchStrategy[Any]:
    """Keys of a section, or similar ones, with possible values."""
    keys = st.one_of(st.sampled_from(names), st.sampled_from(names).map(lambda name: name.replace("_", "-")), words)
    likely = st.dictionaries(keys, trees, max_size=most)
    return st.builds(lambda tree, ours: {**tree, **ours}, likely, st.fixed_dictionaries({}, optional=inner))


arguments = section(
    sorted({*HANDLER_ARGUMENT_ALIASES, *names_of(*HANDLERS.values())}),
    {
        "dataset_text_field": words, "template": words, "conversation_column": st.just("messages"),
        "columns": st.one_of(st.lists(words, max_size=3), st.dictionaries(words, words, max_size=2)),
        "input_field_name": st.just("input"), "output_field_name": st.just("output"),
    },
)  # fmt: skip
handlers = section(
    names_of(HandlerConfig),
    {
        "name": st.one_of(st.sampled_from([*HANDLERS, *HANDLER_ALIASES]), words),
        "arguments": st.one_of(arguments, st.builds(lambda inner: {"fn_kwargs": inner}, arguments), trees),
    },
    most=1,
)
datasets = section(
    [*names_of(DatasetConfig), *KEY_ALIASES["datasets"]],
    {
        "name": words,
        "data_paths": st.one_of(st.just(list(FILES)), st.lists(words, max_size=2)),
        "data_handlers": st.one_of(st.lists(handlers, max_size=2), trees),
        "reader": section(
            names_of(ReaderConfig),
            {
                "delimiter": st.one_of(scalars, st.sampled_from(";|é")),
                "encoding": st.sampled_from(["utf-16", "hex", "cp1252"]),
            },
            most=1,
        ),
        "split": section(names_of(SplitConfig), {"validation": scalars}, most=1),
        "builder": st.sampled_from(["json", "csv", "parquet", "arrow", "jsonl", None]),
        "sampling": scalars,
    },
    most=1,
)
processors = section(names_of(ProcessorConfig), {"type": st.just("default")}, most=3)
configs = st.one_of(
    section(
        sorted({*names_of(PreprocessConfig, InspectConfig), *KEY_ALIASES[""], *PATH_ALIASES} - {"config"}),
        {
            "datasets": st.one_of(st.lists(datasets, max_size=3), trees),
            "dataprocessor": st.one_of(processors, trees),
            "tokenizer_name_or_path": st.sampled_from(["tokenizer", "sample:model", "nowhere", None]),
            "training_data_path": st.sampled_from([FILES[0], list(FILES), "*.jsonl", "nowhere.jsonl"]),
        },
        most=3,
    ),
    trees,
)  # fmt: skip


@st.composite
def near_a_good_one(draw: st.DrawFn) -> Any:
    """A working config with one value replaced."""
    config = json.loads(json.dumps(CONFIGS[draw(st.sampled_from(sorted(CONFIGS)))]))
    for _ in range(draw(st.integers(0, 3))):
        place: Any = config
        while True:
            keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = place[key]
            if isinstance(inner, (dict, list)) and inner and draw(st.booleans()):
                place = inner
                continue
            if draw(st.booleans()):
                place[key] = draw(trees)
            else:
                del place[key]
            break
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("configs")
    make_folder(made)
    return made


OF_PREPROCESS = ("output_dir", "staging_dir")
COMMANDS = (
    ("preprocess", "--dry_run", "true", "--output_dir", "out"),
    ("inspect-shards", "--rows", "1"),
)


def tried(folder: Path, command: tuple[str, ...], content: bytes, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / name).write_bytes(content)
    before = sorted(path.name for path in folder.iterdir())
    outcome = sftkit(*command, "--config", name)
    assert outcome.clear, outcome
    assert sorted(path.name for path in folder.iterdir()) == before


def dumped(config: Any, form: str) -> bytes:
    if form == "json":
        return json.dumps(config, default=str).encode("utf-8", "surrogatepass")
    return yaml.safe_dump(config, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")


def textual(config: Any) -> Any:
    """Convert keys to text, as JSON requires."""
    if isinstance(config, dict):
        return {str(key): textual(value) for key, value in config.items()}
    return [textual(each) for each in config] if isinstance(config, list) else config


@budget(120)
@given(st.one_of(configs, near_a_good_one()), st.sampled_from(["yaml", "json"]), st.sampled_from(COMMANDS))
def test_any_config_runs_or_is_one_clear_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, config: Any, form: str, command: tuple[str, ...]
) -> None:
    if isinstance(config, dict) and command[0] == "inspect-shards":
        config = {key: value for key, value in config.items() if key not in OF_PREPROCESS}
    content = dumped(textual(config) if form == "json" else config, form)
    tried(folder, command, content, f"fuzzed.{form}", monkeypatch)


PIECES = [
    *(b"a: ", b"- ", b"&a ", b"*a", b"!!python/object:os.system ", b"!!binary aGk=", b"!!set {a, b}", b"<<: *a", b"? "),
    *(b"|\n", b">\n  x", b"\n", b"  ", b"{", b"}", b"[", b"]", b'"', b"'", b"\t", b"\x00", b"\xff", b"datasets:\n"),
    *(
        b"---\n",
        b"...\n",
        b"%YAML 9.9\n",
        b"1e3",
        b".inf",
        b"2001-01-01",
        b"0o17",
        b"1_000",
        b"~",
        b"#",
        b"\xef\xbb\xbf",
    ),
    *(b"!!float x", b"!!int", b"!!timestamp x", b"= ", b"!!omap [a]", b"data_paths: "),
]


@st.composite
def yaml_bytes(draw: st.DrawFn) -> bytes:
    if draw(st.booleans()):
        return changed_bytes(draw, dumped(CONFIGS[draw(st.sampled_from(sorted(CONFIGS)))], "yaml"))
    return b"".join(draw(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)), max_size=14)))


@budget(100)
@given(yaml_bytes(), st.sampled_from(["yaml", "json"]))
@example(b"a: &a [*a]\n", "yaml")
@example(
    b"a: &a [1,1,1,1,1,1,1,1,1]\n"
    + b"".join(b"%c: &%c [%s*%c]\n" % (n, n, b"*%c," % (n - 1) * 9, n - 1) for n in range(ord("b"), ord("k"))),
    "yaml",
)  # a billion values in ten lines
@example(b"a: !!timestamp x\nb: !!int ''\nc: !!float x", "yaml")
@example(b"~: 1\n", "yaml")
@example(b"output_dir: !!binary aGk=\n", "yaml")
@example(b"datasets: !!set {a, b}\n", "yaml")
@example(b"&a {<<: *a}", "yaml")
@example(b"? [a]\n: b\n", "yaml")
@example(b"[" * 3000, "yaml")
@example(b"[" * 3000, "json")
@example(b"!!int 0x", "yaml")
@example(b"2: {" * 300 + b"}" * 300, "yaml")
@example(b"1" * 5000, "json")
@example(b"a: " + b"1" * 5000, "yaml")
def test_any_bytes_as_a_config_run_or_are_one_clear_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, form: str
) -> None:
    tried(folder, COMMANDS[0], content, f"bytes.{form}", monkeypatch)


PLANTED = "SECRETx9-planted"
INTERPOLATIONS = st.sampled_from(
    [
        *("${oc.env:PLANTED}", "${oc.decode:${oc.env:PLANTED}}", "\\\\${oc.env:PLANTED}", "${ oc.env : PLANTED }"),
        *("${oc.env:PLANTED,x}", "${oc.create:${oc.env:PLANTED}}", "${storage_options.s3.secret}", "${output_dir}"),
    ]
)
CHAINS = st.lists(
    st.sampled_from(
        ["zip://a", "simplecache", "filecache://x", "blockcache", "cached", "dir", "reference://x", "tar://a"]
    ),
    max_size=3,
)
PLACES = st.sampled_from([f"file:///nowhere/{PLANTED}", f"memory://u:{PLANTED}@h/a.jsonl", "a.jsonl", "file://a.jsonl"])
hostile_urls = st.builds(lambda links, place: "::".join([*links, place]), CHAINS, PLACES)
hostile_options = st.dictionaries(
    st.sampled_from(["fo", "target_options", "protocol", "simplecache", "cache_storage", "key", "s3", "headers"]),
    st.one_of(hostile_urls, st.dictionaries(st.sampled_from(["cache_storage", "same_names", "key"]), hostile_urls)),
    max_size=3,
)


@budget(60)
@given(
    st.fixed_dictionaries(
        {"name": st.one_of(st.just("a"), INTERPOLATIONS), "data_paths": st.lists(hostile_urls, min_size=1, max_size=2)},
        optional={"storage_options": hostile_options, "rename_columns": st.dictionaries(INTERPOLATIONS, st.just("b"))},
    )
)
def test_no_data_config_reads_the_environment_or_writes_a_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch, dataset: dict[str, Any]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PLANTED", f"{PLANTED}-in-the-environment")
    (folder / "hostile.yaml").write_text(yaml.safe_dump({"datasets": [dataset]}))
    before = sorted(path for path in folder.rglob("*"))
    outcome = sftkit(
        *COMMANDS[0], "--data_config_path", "hostile.yaml", "--storage_options.s3.secret", f"{PLANTED}-own"
    )
    assert outcome.clear, outcome
    assert f"{PLANTED}-" not in outcome.out + outcome.err
    assert f"u:{PLANTED}" not in outcome.out + outcome.err
    assert sorted(path for path in folder.rglob("*")) == before
