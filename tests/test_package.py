"""The wheel works outside the checkout, the reference page is up to date, and the example configs run."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from reliability.material import sftkit
from sftkit.tokenization.templates.named_templates import NAMES

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "160"}
PAGE_FILES = sorted((ROOT / "src/sftkit/inspection/page/template").iterdir())
EXAMPLES = sorted((ROOT / "configs").glob("*.yaml"))
RESPONSE_TEMPLATES = (
    "--response_template", "<|start_of_role|>assistant<|end_of_role|>",
    "--instruction_template", "<|start_of_role|>user<|end_of_role|>",
)  # fmt: skip


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, cwd=cwd, env={**ENVIRONMENT, **environment}
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    built = run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        ROOT,
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "--wheel-dir",
        target,
    )
    assert built.returncode == 0, built.stderr
    [path] = target.glob("sftkit-*.whl")
    return path


def test_the_wheel_contains_the_sample_all_templates_and_the_type_marker(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "sftkit/py.typed",
        "sftkit/sample/conversations.jsonl",
        "sftkit/sample/pairs.jsonl",
        "sftkit/sample/validation.jsonl",
        "sftkit/sample/data_config.yaml",
        "sftkit/sample/model/config.json",
        "sftkit/sample/model/tokenizer.json",
        *(f"sftkit/inspection/page/template/{path.name}" for path in PAGE_FILES),
        *(f"sftkit/tokenization/templates/named/{name}.jinja" for name in NAMES),
    } <= names
    assert not any(name.startswith(("tests/", "scripts/")) for name in names)


def test_the_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(unpacked)
    done = run(
        sys.executable, "-m", "sftkit", "preprocess", "--data_config_path", "sample:data_config.yaml",
        "--model_name_or_path", "sample:model", "--output_dir", tmp_path / "out",
        cwd=tmp_path, PYTHONPATH=str(unpacked),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where = run(sys.executable, "-c", "import sftkit; print(sftkit.__file__)", cwd=tmp_path, PYTHONPATH=str(unpacked))
    assert where.stdout.strip() == str(unpacked / "sftkit" / "__init__.py")


def test_the_reference_page_is_up_to_date() -> None:
    assert run(sys.executable, "scripts/make_reference.py", "--check").returncode == 0


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "example", [path for path in EXAMPLES if not path.name.startswith("train")], ids=lambda p: p.name
)
def test_every_example_config_for_preprocess_runs(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    out = tmp_path / "out"
    if example.name.startswith("fms_hf_tuning"):
        arguments = ["--data_config_path", str(example), "--model_name_or_path", "sample:model"]
        arguments += RESPONSE_TEMPLATES if "chat" in example.name else ()
    else:
        arguments = ["--config", str(example)]
    done = sftkit("preprocess", *arguments, "--output_dir", out)
    assert done.code == 0, done.err
    assert (out / "manifest.json").is_file()
