"""What is said of the name of a model or tokenizer that cannot be found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from sftkit.storage.model_location import adapter_base, hub_problem, location_problem, model_location


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "w"  # the only name beside it
    (folder / "granite").mkdir(parents=True)
    (folder / "weights.bin").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.mark.parametrize(
    "name", ["a/b/c", "./nowhere", "../nowhere", "/nowhere", "~/nowhere", "nowhere/", "a b", "sample:nowhere", "a\\b"]
)
def test_what_can_only_be_a_path_is_no_such_directory(name: str) -> None:
    assert location_problem(name) == "no such directory; correct the path"


def test_a_directory_with_a_similar_name_is_suggested() -> None:
    assert location_problem("./granit") == "no such directory (did you mean 'granite'?); correct the path"


@pytest.mark.parametrize("name", ["granite", "./granite", "~/granite", "sample:model", "gpt2", "org/name-1.5_b"])
def test_a_directory_and_a_hub_id_pass(name: str) -> None:
    assert location_problem(name) is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("weights.bin", "it is a file; give the directory with the files of the model"),
        ("", "the name is empty; give a directory or a Hub id"),
        ("s3://bucket/model", "it is a URL; download the files, and give their directory"),
    ],
)
def test_other_names_say_what_they_are(name: str, problem: str) -> None:
    assert location_problem(name) == problem


def test_a_home_directory_is_replaced(place: Path) -> None:
    assert model_location("~/granite") == f"{place}/granite"


def caused_by(cause: BaseException) -> OSError:
    error = OSError("We couldn't connect to 'https://huggingface.co'")
    error.__cause__ = cause
    return error


def refused(kind: type[RepositoryNotFoundError]) -> OSError:
    return caused_by(kind.__new__(kind, "404"))  # its constructor takes the response of an HTTP library


def test_a_hub_id_that_does_not_exist_names_both_possibilities() -> None:
    assert hub_problem("org/name", refused(RepositoryNotFoundError)) == (
        "there is no such directory, and the Hub has no repository of this name; correct it, or run `hf auth login` if "
        "the repository is private"
    )


def test_a_hub_that_cannot_be_reached_names_both_possibilities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    error = caused_by(LocalEntryNotFoundError("not in the cache"))
    assert hub_problem("org/name", error) == (
        "there is no such directory, and the Hub cannot be reached to look for a repository of this name; correct the "
        "path, or check the network"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub_problem("granit", error) == (
        "there is no such directory (did you mean 'granite'?), nor a repository of this name in the local cache of the "
        "Hub (HF_HUB_OFFLINE is set, so that nothing is downloaded); correct the path, or unset the variable"
    )


def test_a_gated_repository_says_where_to_ask() -> None:
    assert hub_problem("org/name", refused(GatedRepoError)) == (
        "the Hub restricts access to it: ask for it at https://huggingface.co/org/name, then run `hf auth login`"
    )


def test_errors_about_content_are_not_those_of_the_hub() -> None:
    assert hub_problem("org/name", ValueError("bad file")) is None
    assert hub_problem("./granite", caused_by(LocalEntryNotFoundError("no file"))) is None


@pytest.mark.parametrize(
    ("content", "base"),
    [('{"base_model_name_or_path": "org/base"}', "org/base"), ("{}", ""), ("[]", ""), ("broken", ""), (None, None)],
)
def test_an_adapter_names_its_base_model(place: Path, content: str | None, base: str | None) -> None:
    if content is not None:
        (place / "granite" / "adapter_config.json").write_text(content)
    assert adapter_base("granite") == base
    assert json.dumps(base) == json.dumps(adapter_base("./granite"))
