"""What trackers and files are given of the settings of a run: no token, and nothing that came from the environment."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sftkit.config.commands import TrainConfig
from sftkit.config.fields import Interpolated
from sftkit.config.reading.interpolated import interpolated_values, replace_values
from sftkit.redaction import HIDDEN, names_secret, redact

_LEAST_SECRET = 4  # characters of a secret that is replaced wherever it is in a text
_OPTION = "--"


@dataclass(frozen=True)
class PublicValues:
    """Replaces the secrets of a run, and what its config took from the environment, in whatever is written."""

    replaced: Mapping[str, str]
    """Text -> what is written instead, the longest first."""

    @classmethod
    def of(cls, config: TrainConfig) -> PublicValues:
        """Find what must not be written in the config of a run."""
        options = [
            config.training_arguments,
            config.storage_options,
            *(each.storage_options for each in config.datasets),
        ]
        secrets = [secret for each in options for secret in _secrets(each)]
        values = {secret: HIDDEN for secret in secrets if len(secret) >= _LEAST_SECRET} | interpolated_values(config)
        return cls({value: values[value] for value in sorted(values, key=len, reverse=True)})

    def text(self, text: str) -> str:
        """Return what is written instead of a text."""
        own = text.text if isinstance(text, Interpolated) else text
        return redact(replace_values(str(own), self.replaced))

    def value(self, value: Any, name: str = "") -> Any:
        """Return what is written instead of a setting. Numbers and objects stay as they are.

        Args:
            value: a text, or lists and mappings of settings.
            name: its key, which may say that it is secret.

        Example:
            >>> PublicValues({"/home/me": "${oc.env:HOME}"}).value(["/home/me/run", {"api_key": "a1"}, 3])
            ['${oc.env:HOME}/run', {'api_key': '***'}, 3]
        """
        if isinstance(value, str) and type(value) in (str, Interpolated):  # not the enumerations of transformers
            return HIDDEN if value and names_secret(name) else self.text(value)
        if isinstance(value, Mapping):
            return {key: self.value(each, str(key)) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(each, name) for each in value]
        return value

    def identifying(self, value: Any) -> Any:
        """Return like `value`, with a mark of four digits if it differs: other values must get other texts.

        The mark says at most 16 bits about the value.

        Example:
            >>> PublicValues({"/home/me": "${oc.env:HOME}"}).identifying("/home/me/model")
            '"${oc.env:HOME}/model" ***1bd4'
        """
        public = self.value(value)
        plain, shown = (json.dumps(each, default=str, sort_keys=True) for each in (value, public))
        if plain == shown:
            return value
        return f"{shown} {HIDDEN}{hashlib.sha256(plain.encode()).hexdigest()[:4]}"

    @contextmanager
    def command_line(self) -> Iterator[None]:
        """Hide secrets in `sys.argv`, which some trackers record, while a run lasts."""
        given = sys.argv[:]
        sys.argv[:] = [self._word(*each) for each in zip(["", *given], given, strict=False)]
        try:
            yield
        finally:
            sys.argv[:] = given

    def _word(self, before: str, word: str) -> str:
        name, equals, _ = word.partition("=")
        if word.startswith(_OPTION):
            return f"{name}={HIDDEN}" if equals and names_secret(name.strip("-")) else self.text(word)
        return HIDDEN if before.startswith(_OPTION) and names_secret(before.strip("-")) else self.text(word)


def _secrets(options: Any, name: str = "") -> Iterator[str]:
    """The texts in options under names that say that they are secret."""
    if isinstance(options, Mapping):
        for key, value in options.items():
            yield from _secrets(value, name if names_secret(name) else str(key))
    elif isinstance(options, (list, tuple)):
        for value in options:
            yield from _secrets(value, name)
    elif isinstance(options, str) and names_secret(name):
        yield str(options)
