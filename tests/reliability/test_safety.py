"""Untrusted input is safe: endless templates, pickles, configs that write elsewhere, control characters."""

from __future__ import annotations

import io
import json
import logging
import pickle
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

import sftkit
from reliability.material import within
from sftkit.audit.expectations.expected import RowOrigin
from sftkit.audit.expectations.learn import learn_expectations
from sftkit.cli.app import app
from sftkit.cli.console import output
from sftkit.config.commands import PreprocessConfig
from sftkit.config.loading import load_config
from sftkit.core.row_kinds import RowKind
from sftkit.errors import ConfigError, SourceError, TokenizerError
from sftkit.sandbox import render_limits
from sftkit.sandbox.render_limits import TemplateLimitError, render_within_limits
from sftkit.sandbox.template_check import check_template_operations
from sftkit.shards.output.side_files import dataset_card
from sftkit.sources.discovery.source_files import find_source_files
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.rendering.compiled_renderer import CompiledRenderer
from sftkit.tokenization.rendering.reference_renderer import ReferenceRenderer
from support import dataset, handler, new_memory, preprocess, rows, write_jsonl, written

CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "well"}]
IF_ASKED = "{{% for m in messages %}}{{{{ m.content }}}}{{% if 'magic' in m.content %}}{}{{% endif %}}{{% endfor %}}"

LOOPS = {
    "nested ranges": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "nested writing": "{% for i in range(99999) %}{% for j in range(99999) %}ab{% endfor %}{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
    "squares": "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
}
EXPLOSIONS = {
    "product": "{{ 'a' * 10000000000 }}",
    "product of what is read": "{{ 'a' * (messages|length * 10000000000) }}",
    "percent": "{{ '%9999999999d' % 1 }}",
    "format": "{{ '{:>9999999999}'.format(1) }}",
    "center": "{{ 'a'|center(10000000000) }}",
    "indent": "{{ 'a\nb'|indent(9999999999) }}",
    "join": "{{ range(99999)|join('ab' * 99999) }}",
    "doubling": "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "lists": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "replacing": "{% set ns = namespace(x='aaa') %}{% for i in range(60) %}{% set ns.x = ns.x.replace('a', 'aa') %}"
    "{% endfor %}",
}
ENDLESS_STEPS = {
    "power": "{{ 10 ** 10 ** 8 }}",
    "power of a name": "{{ messages|length ** 9 }}",
    "rounding": "{{ 5|round(-1000000000) }}",
    "computed rounding": "{{ 5|round(messages|length) }}",
    "mapped rounding": "{{ [5]|map('round', -1000000000)|list }}",
    "computed filter": "{{ [5]|map('ro' ~ 'und', 3)|list }}",
}


@pytest.fixture
def quick_timer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A timer that ticks more often, and does not tick yet."""
    render_limits._watch()._stop()
    monkeypatch.setattr(render_limits, "_TICK", 0.05)
    yield
    render_limits._watch()._stop()


@pytest.fixture
def low(quick_timer: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Low limits."""
    monkeypatch.setattr(render_limits, "MAX_SECONDS", 0.2)
    monkeypatch.setattr(render_limits, "MAX_MEMORY_BYTES", 400 << 20)


@pytest.fixture
def make_reference(reference: Callable[[str], Any]) -> Iterator[Callable[[str], ReferenceRenderer]]:
    tokenizer = reference("bpe")
    before = tokenizer.chat_template

    def make(template: str) -> ReferenceRenderer:
        tokenizer.chat_template = template
        return ReferenceRenderer(tokenizer)

    yield make
    tokenizer.chat_template = before


@pytest.mark.parametrize("name", LOOPS)
def test_a_chat_template_that_loops_is_interrupted(
    low: None, make_reference: Callable[[str], ReferenceRenderer], name: str
) -> None:
    begun = time.process_time()
    with pytest.raises(
        TemplateLimitError, match=r"the template took more than 0\.2 s of processor time .*\.MAX_SECONDS\)"
    ):
        make_reference(LOOPS[name]).render(Conversation(CHAT))
    assert time.process_time() - begun < 5


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", EXPLOSIONS)
def test_a_chat_template_that_explodes_is_interrupted(
    low: None, make_reference: Callable[[str], ReferenceRenderer], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(render_limits, "MAX_SECONDS", 10.0)
    with pytest.raises(
        TemplateLimitError, match=r"the template took more than 400 MiB of memory .*\.MAX_MEMORY_BYTES\)"
    ):
        make_reference(EXPLOSIONS[name]).render(Conversation(CHAT))


@pytest.mark.parametrize("name", ["nested ranges", "center", "doubling"])
def test_a_bad_template_is_interrupted_when_it_is_checked_at_the_start(
    low: None, make_reference: Callable[[str], ReferenceRenderer], name: str
) -> None:
    with pytest.raises(TemplateLimitError):
        make_reference((LOOPS | EXPLOSIONS)[name]).check()


def test_a_template_is_interrupted_even_if_the_timer_was_about_to_stop(
    low: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer stops after a while without renderings, which may be just before one."""

    def late(more: int, function: Callable[[], Any]) -> Any:
        watch = render_limits._watch()
        for _ in range(2):
            watch._tick(signal.SIGPROF, None)
        assert not watch._ticking
        return function()

    def loop() -> None:
        while True:
            pass

    render_within_limits(lambda: None, None)
    monkeypatch.setattr(render_limits, "run_with_cached_memory_limit", late)
    with within(), pytest.raises(TemplateLimitError, match="of processor time"):
        render_within_limits(loop, None)


@pytest.mark.parametrize("name", ENDLESS_STEPS)
def test_an_operation_that_cannot_be_interrupted_is_refused(
    make_reference: Callable[[str], ReferenceRenderer], name: str
) -> None:
    with pytest.raises(TokenizerError, match=r"the template has .* which may never end; remove it"):
        make_reference(ENDLESS_STEPS[name]).check()


def test_powers_and_roundings_that_are_small_are_allowed() -> None:
    check_template_operations("{{ 10 ** 9 }} {{ 2.5|round }} {{ 2.555|round(2) }} {{ 2.5|round(method='floor') }}")
    check_template_operations("{% generation %}{{ [1, 2]|map('string')|list }}{% break %}{% endgeneration %}")


def test_a_template_nested_too_deep_is_refused(make_reference: Callable[[str], ReferenceRenderer]) -> None:
    template = "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}"
    with pytest.raises(TokenizerError, match="nested too deep"):
        make_reference(template).check()


def test_a_text_that_is_too_long_is_refused_though_there_is_memory_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render_limits, "MAX_OUTPUT_CHARACTERS", 1000)
    assert render_within_limits(lambda: "a" * 1000, "") == "a" * 1000
    with pytest.raises(TemplateLimitError, match=r"wrote more than 1,000 characters .*\.MAX_OUTPUT_CHARACTERS\)"):
        render_within_limits(lambda: "a" * 1001, "")


def test_long_rows_have_higher_limits(low: None) -> None:
    """All limits grow with the texts of the row; it is rendered again from the start."""
    calls = []

    def slow() -> str:
        calls.append(1)
        end = time.process_time() + 0.6
        while time.process_time() < end:
            pass
        return "done"

    with pytest.raises(TemplateLimitError):
        render_within_limits(slow, {"content": "a" * 10_000})
    assert len(calls) == 1
    assert render_within_limits(slow, [{"content": ["a" * 4_000_000]}]) == "done"
    assert len(calls) == 3
    with pytest.raises(TemplateLimitError):
        render_within_limits(lambda: new_memory(800 << 20), "b" * 10_000)
    assert len(render_within_limits(lambda: new_memory(800 << 20), "b" * 5_000_000)) == 800 << 20


def test_a_row_of_fifty_megabytes_is_rendered_by_both_engines(make_reference: Callable[..., ReferenceRenderer]) -> None:
    renderer = make_reference("{% for m in messages %}{{ m.role }}: {{ m.content|trim }}\n{% endfor %}")
    long = "0123456789" * 5_000_000
    messages = [{"role": "user", "content": long}, *CHAT]
    expected = f"user: {long}\nuser: hello\nassistant: well\n"
    assert renderer.render(Conversation(messages)) == expected
    fast = CompiledRenderer(renderer._tokenizer, renderer)
    assert fast.render(Conversation(messages)) == expected


@pytest.mark.parametrize("name", ["nested writing", "doubling"])
def test_the_limits_hold_for_both_engines(
    low: None, make_reference: Callable[[str], ReferenceRenderer], name: str
) -> None:
    renderer = make_reference(IF_ASKED.format({**LOOPS, **EXPLOSIONS}[name]))
    fast = CompiledRenderer(renderer._tokenizer, renderer)
    magic = Conversation([{"role": "user", "content": "magic"}])
    for engine in (renderer, fast):
        assert engine.render(Conversation(CHAT)) == "hellowell"
        with pytest.raises(TemplateLimitError):
            engine.render(magic)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("name", ["nested writing", "doubling"])
def test_a_run_ends_at_the_row_of_a_bad_template_and_names_it(
    low: None, tmp_path: Path, tokenizer_path: Callable[[str], str], engine: str, name: str
) -> None:
    """At the first bad row; good rows before it are rendered."""
    rows = [
        {"messages": [{"role": "user", "content": "magic" if i in (12, 13) else f"{i}"}, CHAT[1]]} for i in range(20)
    ]
    path = write_jsonl(tmp_path / "chats.jsonl", rows)
    masked = dataset(path, data_handlers=[handler("apply_tokenizer_chat_template", dataset_text_field="text",
                                                  conversation_column="messages"),
                                          handler("tokenize", dataset_text_field="text")])  # fmt: skip
    with pytest.raises(TemplateLimitError) as raised:
        preprocess(
            tmp_path / "out",
            masked,
            processor={"chat_template": IF_ASKED.format((LOOPS | EXPLOSIONS)[name])},
            tokenizer_name_or_path=tokenizer_path("bpe"),
            train_on="all",
            engine=engine,
        )
    assert str(raised.value).startswith(f"{path}:13: the template took more than ")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_run_whose_handler_template_explodes_ends_at_the_row(low: None, tmp_path: Path, tokenizer_path: Any) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "magic"}])
    made = dataset(
        path,
        data_handlers=[
            handler(
                "apply_custom_jinja_template",
                dataset_text_field="out",
                template="{{ text }}{% if text == 'magic' %}" + EXPLOSIONS["center"] + "{% endif %}",
            )
        ],
    )
    with pytest.raises(TemplateLimitError, match=rf"^{re.escape(str(path))}:2: the template took more than"):
        preprocess(tmp_path / "out", made, tokenizer_name_or_path=tokenizer_path("bpe"), train_on="all")


def test_a_handler_template_is_compiled_within_limits(low: None, tmp_path: Path, tokenizer_path: Any) -> None:
    """Jinja evaluates constants when it compiles."""
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
    for template, limit in (
        ("{{ 'a'|center(900000000)|center(10000000000) }}", "MAX_MEMORY_BYTES"),
        ("{{ 9 ** 9 ** 9 }}", "never end"),
    ):
        made = dataset(
            path, data_handlers=[handler("apply_custom_jinja_template", dataset_text_field="o", template=template)]
        )
        with pytest.raises(TokenizerError, match=limit):
            preprocess(tmp_path / "out", made, tokenizer_name_or_path=tokenizer_path("bpe"), train_on="all")


def test_the_audit_renders_templates_within_limits(
    low: None, make_reference: Callable[[str], ReferenceRenderer]
) -> None:
    tokenizer = make_reference(LOOPS["nested ranges"])._tokenizer
    with pytest.raises(TemplateLimitError):
        learn_expectations(tokenizer, RowOrigin(RowKind.CONVERSATIONS), ())
    tokenizer = make_reference(ENDLESS_STEPS["power"])._tokenizer
    with pytest.raises(TokenizerError, match="never end"):
        learn_expectations(tokenizer, RowOrigin(RowKind.CONVERSATIONS), ())


def test_samples_during_training_are_rendered_within_limits(
    low: None, make_reference: Callable[[str], ReferenceRenderer]
) -> None:
    from sftkit.training.callbacks.prompts import stop_ids

    for template in (LOOPS["nested ranges"], EXPLOSIONS["center"], ENDLESS_STEPS["power"]):
        with pytest.raises(TokenizerError, match=r"render_limits|never end"):
            stop_ids(make_reference(template)._tokenizer, "sample:model", {})


PAIRS = [{"input": f"q{i}", "output": f"a{i}", "id": i} for i in range(4)]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "in" / "pairs.jsonl", PAIRS)


def masking(**keys: str) -> Any:
    return handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output", **keys)


@pytest.mark.parametrize(
    "key",
    [
        *("output_dir", "staging_dir", "keep_staging", "overwrite", "cache_dir", "dry_run", "log_level"),
        *("trust_remote_code", "config", "training_arguments", "output-dir", "stagingDir"),
    ],
)
def test_a_data_config_cannot_set_where_and_how_the_run_writes(tmp_path: Path, pairs: Path, key: str) -> None:
    data = {"datasets": [{"name": "a", "data_paths": [str(pairs)]}], key: str(tmp_path / "elsewhere")}
    (tmp_path / "data.json").write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=re.escape(key).replace("\\-", "[-_]")):
        load_config(PreprocessConfig, ["--data_config_path", str(tmp_path / "data.json"), "--output_dir", "out"])


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_name_in_a_data_config_leads_out_of_the_output_directory(
    tmp_path: Path, pairs: Path, tokenizer_path: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each key that holds a name: a relative path that leads upwards, and an absolute path."""
    tokenizer = tokenizer_path("bpe")
    cwd = tmp_path / "a" / "b" / "c"
    cwd.mkdir(parents=True)
    monkeypatch.chdir(cwd)
    before = tree(tmp_path)
    for number, name in enumerate(("../../../escaped", str(tmp_path / "escaped"), "out/../../escaped", "a/b")):
        hostile = dataset(
            pairs,
            name=name,
            subset=name,
            rename_columns={"id": name},
            retain_columns=("input", "output", name),
            data_handlers=[
                handler("duplicate_columns", old_column="input", new_column=f"{name}2"),
                masking(),
            ],
        )
        preprocess(cwd / f"out{number}", hostile, tokenizer_name_or_path=tokenizer)
        assert set(written(cwd / f"out{number}")[0]) >= {"input_ids", "labels", name}
        made = {path for path in tree(tmp_path) if not path.startswith(f"a/b/c/out{number}/")}
        assert {path for path in made if "/out" not in path} == set(before)
        with pytest.raises(SourceError, match=r"its name does not say split .*; leave dataset_split_name out"):
            preprocess(cwd / "split", dataset(pairs, dataset_split_name=name), tokenizer_name_or_path=tokenizer)
    assert not (cwd / "split").exists()


def test_builders_that_read_pickles_are_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "a.pkl"
    bomb.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "run").encode() + b"'\ntR.")
    with pytest.raises(SourceError, match=r"a\.pkl: builder 'pandas' reads pickles, which run code; give "):
        find_source_files(dataset(bomb, builder="pandas"))
    with pytest.raises(SourceError, match=r"a\.pkl: unknown kind of file"):
        find_source_files(dataset(bomb))
    assert not (tmp_path / "run").exists()


class _Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_pickles_in_a_columnar_file_are_not_read(tmp_path: Path) -> None:
    """Neither pickled Python types of older Arrow versions nor the metadata of pandas."""
    pickled = pickle.dumps(_Bomb(tmp_path / "run"))
    of_type = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickled}
    schema = pa.schema([pa.field("text", pa.string(), metadata=of_type)], metadata={b"pandas": pickled})
    table = pa.Table.from_arrays([pa.array(["a", "b"])], schema=schema)
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), schema) as writer:
        writer.write_table(table)
    for name in ("a.parquet", "a.arrow"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # Arrow says that it does not load the type
            assert rows(tmp_path / name) == [{"text": "a"}, {"text": "b"}]
    assert not (tmp_path / "run").exists()


def test_sftkit_unpickles_only_what_its_own_processes_send() -> None:
    package = Path(sftkit.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\b(?:c?pickle|dill|joblib|shelve)\.loads?\(|\ballow_pickle\b|\btorch\.load\(|weights_only=False",
                     path.read_text(encoding="utf-8"))
    }  # fmt: skip
    assert found == {
        "execution/ray_cluster.py",
        "preprocessing/stage_units.py",
        "preprocessing/worker_warmup.py",
        "shards/formats/nemo_shards.py",  # the header of an array of objects, which it writes
        "shards/readers/numpy_files/pickle_bytes.py",  # bytes that a pattern has matched as numbers
        "shards/writing/shard_writer.py",
    }


def test_remote_code_is_off_by_default_and_named_in_the_manifest(
    tmp_path: Path, pairs: Path, tokenizer_path: Callable[[str], str]
) -> None:
    tokenizer = tokenizer_path("bpe")
    made = dataset(pairs, data_handlers=[masking()])
    plain = preprocess(tmp_path / "plain", made, tokenizer_name_or_path=tokenizer)
    trusting = preprocess(tmp_path / "trusting", made, tokenizer_name_or_path=tokenizer, trust_remote_code=True)
    assert (plain.config["trust_remote_code"], trusting.config["trust_remote_code"]) == (False, True)


def test_code_that_comes_with_a_tokenizer_is_not_run(tmp_path: Path, pairs: Path) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    code = f"from pathlib import Path\nPath({str(tmp_path / 'run')!r}).touch()\nclass T: pass\n"
    (folder / "evil.py").write_text(code)
    (folder / "config.json").write_text('{"model_type": "evil", "auto_map": {"AutoConfig": "evil.T"}}')
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": ["evil.T", null]}}'
    )
    with pytest.raises(TokenizerError, match=r"cannot be loaded without the code .* set trust_remote_code=true"):
        preprocess(tmp_path / "out", dataset(pairs, data_handlers=[masking()]), tokenizer_name_or_path=str(folder))
    assert not (tmp_path / "run").exists()


HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b2J \x08\x7f \u202egpj \u2066x\u2069 [red]markup[/red] :smile: \r\x00"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture(params=["results", "messages"])
def console(request: pytest.FixtureRequest) -> Console:
    made: Console = getattr(output, request.param)()
    made.file = io.StringIO()
    return made


def test_printed_control_characters_are_escaped(console: Console) -> None:
    table = Table(HOSTILE)
    table.add_row(HOSTILE)
    for each in (HOSTILE, Text(HOSTILE), table):
        console.print(each)
    shown = console.file.getvalue()
    assert not OBEYED.search(shown)
    assert "\\x1b[31mred" in shown.replace("\n", "")
    assert "[red]markup[/red] :smile:" in shown


def test_escaping_keeps_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    made = output.results()
    made.file = io.StringIO()
    made.print(Text("bold\x1b[2J", "bold"))
    assert made.file.getvalue() == "\x1b[1mbold\\x1b[2J\x1b[0m\n"


def test_errors_logs_and_tracebacks_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_error(SourceError(f"{HOSTILE}: no such file"))
    output.show_bug(ValueError(HOSTILE))
    logger = logging.getLogger("sftkit")
    before = logger.handlers[:], logger.propagate, logger.level
    try:
        output.start_logging("info")
        logger.info("%s:7: %s", HOSTILE, HOSTILE)
    finally:
        logger.handlers[:], logger.propagate = before[:2]
        logger.setLevel(before[2])
    said = capsys.readouterr().err
    assert not OBEYED.search(said)
    assert said.count("\\x1b]0;title\\x07") >= 4


def test_hostile_data_is_escaped_by_runs_and_previews(tmp_path: Path, tokenizer_path: Callable[[str], str]) -> None:
    """In texts, column names, paths and reasons. quarantine.jsonl keeps the bad row unchanged, as JSON."""
    path = tmp_path / "\x1b[31m\u202e.jsonl"
    write_jsonl(path, [{"input": HOSTILE, "output": HOSTILE, HOSTILE: HOSTILE}, {"input": 5, HOSTILE: "x"}])
    out = tmp_path / "out\x1b[31m"
    config = tmp_path / "data.json"
    dataset_config = {
        "name": HOSTILE,
        "data_paths": [str(path)],
        "retain_columns": ["input", "output", HOSTILE],
        "data_handlers": [{"name": "tokenize_and_apply_input_masking",
                           "arguments": {"fn_kwargs": {"input_field_name": "input", "output_field_name": "output"}}}],
    }  # fmt: skip
    config.write_text(json.dumps({"datasets": [dataset_config]}))
    common = ["--data_config_path", str(config), "--tokenizer_name_or_path", tokenizer_path("bpe")]
    run = ["preprocess", *common, "--output_dir", str(out), "--log_level", "debug", "--num_workers", "1"]
    for arguments, code in (
        ([*run, "--dry_run", "true"], 0),
        (run, 1),
        ([*run, "--max_bad_rows", "1"], 0),
        ([*run, "--max_bad_rows", "1"], 0),
        (["inspect-shards", str(out)], 0),
        (["inspect-shards", str(out), "--show_whitespace", "true"], 0),
        (["inspect-shards", str(out), "--format", "json"], 0),
        (["inspect-shards", str(out), "--audit", "true"], 0),
        (["inspect-shards", *common], 0),
    ):
        done = CliRunner().invoke(app, arguments)
        said = done.output
        assert (done.exit_code, bool(said)) == (code, True), said
        assert not OBEYED.search(said), arguments
    [bad] = [json.loads(line) for line in (out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (bad["path"], bad["row"]) == (str(path), 2)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert not OBEYED.search(card)


def test_names_on_the_card_are_not_markup(tmp_path: Path, pairs: Path, tokenizer_path: Callable[[str], str]) -> None:
    manifest = preprocess(tmp_path / "out", dataset(pairs, data_handlers=[masking()]),
                          tokenizer_name_or_path=tokenizer_path("bpe"))  # fmt: skip
    assert manifest.tokenizer is not None
    name = "<script>`x` ``y``\n---\n# [a](javascript:b)\x1b\udcff"
    changed = replace(manifest, tokenizer=replace(manifest.tokenizer, name=name), columns=("a`b", "plain", "`"))
    card = dataset_card(changed)
    line = next(line for line in card.splitlines() if line.startswith("Tokenized"))
    assert line.startswith(
        "Tokenized with ``` <script>`x` ``y``\\n---\\n# [a](javascript:b)\\x1b\\udcff ```; `labels` are"
    )
    assert "Columns: `` a`b ``, `plain`, `` ` ``. " in card
    assert not any(line.startswith("# [a]") for line in card.splitlines())


def test_the_place_of_an_error_survives_pickling() -> None:
    original = TemplateLimitError("the template takes more than it may").at("7").at("a.jsonl:7")
    error = pickle.loads(pickle.dumps(original))
    assert (str(error), error.exit_code) == ("a.jsonl:7: the template takes more than it may, or leave this row out", 1)


def test_the_timer_ends_before_the_interpreter_does() -> None:
    """The interpreter removes the signal handler first, so a signal would kill it."""
    code = (
        "import atexit, time\n"
        "def last():\n"
        "    end = time.process_time() + 0.3\n"
        "    while time.process_time() < end: pass\n"
        "atexit.register(last)\n"
        "from sftkit.sandbox import render_limits\n"
        "render_limits._TICK = 0.05\n"
        "print(render_limits.render_within_limits(lambda: 'done', ''), flush=True)\n"
        "class Late:\n"
        "    def __del__(self): last()\n"
        "late = Late()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_the_timer_stops_by_itself_when_nothing_is_rendered(quick_timer: None) -> None:
    render_within_limits(lambda: "", "")
    assert signal.getitimer(signal.ITIMER_PROF) != (0, 0)
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)
