"""A template that hangs in one step of the interpreter ends the run, with one sentence."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sftkit.sandbox import watchdog_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no watchdog")

NESTED = (
    "{% set ns = namespace(a=(0,), b=(0,)) %}{% for i in range(60) %}{% set ns.a = (ns.a, ns.a) %}"
    "{% set ns.b = (ns.b, ns.b) %}{% endfor %}"
)
STEPS = {
    "comparison": NESTED + "{% if ns.a == ns.b %}{% endif %}",
    "hash": NESTED + "{% if {ns.a: 1} %}{% endif %}",
    "sorting": NESTED + "{% if [ns.a, ns.b]|sort %}{% endif %}",
    "search": NESTED + "{% if ns.a in [ns.b] %}{% endif %}",
    "uniqueness": NESTED + "{% if [ns.a]|unique|list %}{% endif %}",
}
HANGUP = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # which nohup ignores
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
SAID = "the template took more than 1 s of processor time in one step, which cannot be interrupted; fix the template"


def write_rows(folder: Path, count: int, bad: int) -> None:
    rows = []
    for number in range(1, count + 1):
        content = "hang" if number == bad else f"question {number}"
        rows.append([{"role": "user", "content": content}, {"role": "assistant", "content": "well"}])
    text = "".join(json.dumps({"messages": row}) + "\n" for row in rows)
    (folder / "chats.jsonl").write_text(text)


def command(name: str, folder: Path, template: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose templates may take one second in one step."""
    (folder / "t.jinja").write_text(template)
    code = (
        f"{HANGUP}"
        "import sftkit.sandbox.watchdog as watchdog\n"
        "watchdog.MAX_STEP_SECONDS = 1.0\n"
        "from sftkit.cli.app import app\n"
        "app()\n"
    )
    keys = ["--training_data_path", "chats.jsonl", "--tokenizer_name_or_path", "sample:model"]
    keys += ["--dataprocessor.chat_template_path", "t.jinja", *more]
    return subprocess.run([sys.executable, "-c", code, name, *keys], cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_a_step_without_end_ends_the_planning_of_a_run(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path, 3, bad=0)
    done = command("preprocess", tmp_path, STEPS[name] + CHAT, "--output_dir", "out")
    assert (done.returncode, done.stderr) == (1, f"error: {SAID}\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["preprocess", "inspect-shards"])
def test_a_step_without_end_names_the_row(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path, 9, bad=7)
    template = "{% if messages[0].content == 'hang' %}" + STEPS["comparison"] + "{% endif %}" + CHAT
    more = ["--output_dir", "out", "--num_workers", "1"] if name == "preprocess" else []
    done = command(name, tmp_path, template, *more)
    assert (done.returncode, done.stderr) == (1, f"error: chats.jsonl:7: {SAID}, or leave this row out\n")


@pytest.mark.slow
def test_a_step_without_end_in_the_template_of_the_handler_for_text_names_the_row(tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n{"text": "hang"}\n')
    template = "{% if text == 'hang' %}" + STEPS["hash"] + "{% endif %}{{ text }}"
    arguments = {"fn_kwargs": {"dataset_text_field": "text", "template": template}}
    handlers = [{"name": "apply_custom_jinja_template", "arguments": arguments}]
    datasets = [{"name": "texts", "data_paths": ["texts.jsonl"], "data_handlers": handlers}]
    (tmp_path / "data.json").write_text(json.dumps({"datasets": datasets}))
    write_rows(tmp_path, 1, bad=0)
    code = (
        f"{HANGUP}"
        "import sftkit.sandbox.watchdog as watchdog\n"
        "watchdog.MAX_STEP_SECONDS = 1.0\n"
        "from sftkit.cli.app import app\n"
        "app()\n"
    )
    keys = ["--data_config_path", "data.json", "--tokenizer_name_or_path", "sample:model", "--output_dir", "out"]
    done = subprocess.run(
        [sys.executable, "-c", code, "preprocess", *keys], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, f"error: texts.jsonl:2: {SAID}, or leave this row out\n")


def hang_of(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process whose renderings may take half a second in one step."""
    start = (
        f"{HANGUP}"
        "import sftkit.sandbox.watchdog as module\n"
        "from sftkit.sandbox.render_limits import render_within_limits\n"
        "module.MAX_STEP_SECONDS = 0.5\n"
        "a = b = (0,)\n"
        "for _ in range(60): a, b = (a, a), (b, b)\n"
    )
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True)


def test_a_process_that_hangs_ends_with_a_sentence_and_exit_code_1() -> None:
    done = hang_of("render_within_limits(lambda: hash(a), '')")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the template took more than 0.5 s of processor time in one step")


def test_a_process_that_ignores_hangups_is_killed() -> None:
    done = hang_of("signal.signal(signal.SIGHUP, signal.SIG_IGN)\nrender_within_limits(lambda: hash(a), '')")
    assert done.returncode == -signal.SIGKILL
    assert "in one step" in done.stderr


@pytest.mark.slow
def test_steps_outside_of_renderings_may_take_any_time() -> None:
    code = (
        "import json, time\n"
        "render_within_limits(lambda: 'done', '')\n"
        "while time.process_time() < 4: sum(range(20_000_000))\n"
        "print(render_within_limits(lambda: 'done', ''))\n"
    )
    done = hang_of(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.slow
def test_a_rendering_of_many_steps_is_left_to_the_timer() -> None:
    code = (
        "import time\n"
        "def slow():\n"
        "    while time.process_time() < 3: pass\n"
        "    return 'done'\n"
        "print(render_within_limits(slow, ''))\n"
    )
    done = hang_of(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_forked_process_has_a_watchdog_of_its_own() -> None:
    code = (
        "import os\n"
        "render_within_limits(lambda: 'done', '')\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    render_within_limits(lambda: hash(a), '')\n"
        "    os._exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), render_within_limits(lambda: 'done', ''))\n"
    )
    done = hang_of(code)
    assert (done.returncode, done.stdout) == (0, "1 done\n")


def test_the_watchdog_ends_with_its_process() -> None:
    """It holds the pipes of the process: whoever reads them would wait."""
    done = hang_of("render_within_limits(lambda: 'done', '')\nprint('end', flush=True)\nimport os\nos._exit(3)\n")
    assert (done.returncode, done.stdout) == (3, "end\n")


def test_a_process_that_ends_at_once_is_not_killed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may belong to another process by then."""
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    monkeypatch.setattr(select, "select", lambda *_: ([1], [], []))  # it has ended
    watchdog_process.end(1234, exits_on_hangup=True)
    assert sent == [signal.SIGHUP]
    monkeypatch.setattr(select, "select", lambda *_: ([], [], []))
    watchdog_process.end(1234, exits_on_hangup=True)
    assert sent == [signal.SIGHUP, signal.SIGHUP, signal.SIGKILL]


def test_a_process_that_has_ended_already_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, number: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    watchdog_process.end(1234, exits_on_hangup=False)
