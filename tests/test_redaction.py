"""Credentials are hidden in whatever is shown, and what is left says as much as it did before."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftkit.errors import ConfigError, SourceError
from sftkit.redaction import is_redacted, redact, redact_access, redact_url
from sftkit.storage.paths import RemotePath

SECRET = "SECRETx9"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"https://user:{SECRET}@host/a.jsonl", "https://***@host/a.jsonl"),
        (f"https://{SECRET}@host/a.jsonl", "https://***@host/a.jsonl"),
        (f"s3://key:a/b+{SECRET}@bucket/a.jsonl", "s3://***@bucket/a.jsonl"),
        (f"http://user:{SECRET}", "http://***"),
        (f"https://host/a.jsonl?X-Amz-Signature={SECRET}", "https://host/a.jsonl?X-Amz-Signature=***"),
        (f"https://host/a.jsonl?sig={SECRET}&sv=1", "https://host/a.jsonl?sig=***&sv=1"),
        (f"https://host/a.jsonl?{SECRET}", "https://host/a.jsonl?***"),
        (f"https://host/a.jsonl#{SECRET}", "https://host/a.jsonl#***"),
        (f"s3://bucket/a.jsonl?token={SECRET}", "s3://bucket/a.jsonl?token=***"),
        (f"zip://a.jsonl::https://u:{SECRET}@host/a.zip?sig={SECRET}", "zip://a.jsonl::https://***@host/a.zip?sig=***"),
        (f"https://web.example/http://u:{SECRET}@host/a", "https://web.example/http://***@host/a"),
    ],
)
def test_credentials_of_urls_are_hidden(url: str, shown: str) -> None:
    assert redact_url(url) == redact(url) == shown == str(RemotePath(url))
    assert redact(f"cannot read '{url}': gone") == f"cannot read '{shown}': gone"
    assert redact(f"{url}:12: bad row") == f"{shown}:12: bad row"
    assert is_redacted(shown)


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/part-?.jsonl",
        "s3://bucket/C#/a.jsonl",
        "https://host:8080/a.jsonl?download=true",
        "http://[::1]:80/a",
        "hf://datasets/a/b@main/c.jsonl",
        "memory://a/b c",
        "a@b.example: no such file",
        "https://host/a?key=${oc.env:NAME}",
        "the bearer of basic tokens",
        "no url: here",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_urls_that_differ_in_more_than_credentials_stay_different() -> None:
    shown = {redact_url(f"https://host/get?id=file-{n}&sig={n}{SECRET}") for n in range(20)}
    assert len(shown) == 20
    assert redact_url(f"https://host/a?id=b-1&sig=1{SECRET}") == redact_url(f"https://host/a?id=b-1&sig=2{SECRET}")


@given(st.text(alphabet="a1:/@?&=#*.${} '\"%s3https", max_size=40))
def test_hiding_again_changes_nothing(text: str) -> None:
    assert redact(redact(f"https://{text}")) == redact(f"https://{text}")


def test_secrets_of_the_environment_and_of_headers_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", f"{SECRET}\n")
    monkeypatch.setenv("MY_API_KEY", f"key-{SECRET}-longer")
    monkeypatch.setenv("SOME_TOKEN", "false")
    text = f"Invalid header value b'Bearer {SECRET}\\n', key-{SECRET}-longer, false, hf_abcdefghijklmnop"
    assert redact(text) == "Invalid header value b'Bearer ***\\n', ***, false, ***"
    assert redact("{'Authorization': 'Bearer abcdefgh'}") == "{'Authorization': '***'}"


def test_errors_about_a_url_hide_its_parts_and_its_options_however_they_are_quoted() -> None:
    options = {"headers": {"Authorization": f"Bearer {SECRET}1"}, "key": f"{SECRET}/2"}
    url = f"s3://name:{SECRET}p%40ss@bucket/a.jsonl?versionId={SECRET}3"
    message = f"bad 'name:{SECRET}p@ss@bucket', {SECRET}1, {SECRET}%2F2, /a.jsonl?versionId={SECRET}3"
    assert SECRET not in redact_access(message, url, options)


def test_every_error_of_this_package_hides_credentials() -> None:
    url = f"https://u:{SECRET}@host/a?sig={SECRET}"
    assert str(SourceError(f"{url}: gone")) == "https://***@host/a?sig=***: gone"
    error = ConfigError([f"a is {url}", "b is wrong"])
    assert error.problems == ("a is https://***@host/a?sig=***", "b is wrong")
    copied = pickle.loads(pickle.dumps(SourceError(f"{url}: gone")))
    assert copied.args == ("https://***@host/a?sig=***: gone",)
