"""The errors that sftkit raises, and the exit code of each.

SftkitError            1   a mistake the user can fix; shown as one sentence, never a traceback
├── ConfigError        2   a key, value or combination of the configuration (all reported at once)
│   ├── UsageError     2   the same, caused by the command line
│   └── RequirementError 1 a key needs a package or hardware that this machine does not have
├── SourceError        1   a data path that cannot be found, opened or understood
├── DataError          1   rows that cannot be used, named as `path:row`
├── TokenizerError     1   a tokenizer or chat template that cannot be loaded or used
├── OutputError        1   an output directory that cannot be written, or holds other data; a broken manifest
└── TrainingError      1   a model, a set of training arguments or shards that cannot be trained on

Any other exception is a bug in sftkit: exit code 70, with a traceback.

Messages contain no credentials: `redact` hides those of URLs that a message names.
"""

from __future__ import annotations

from collections.abc import Sequence

from sftkit.redaction import redact

EXIT_BUG = 70
EXIT_INTERRUPTED = 130


class SftkitError(Exception):
    """A mistake the user can fix. The message is one sentence that names the key, path or `path:row`."""

    exit_code = 1

    def __init__(self, *parts: str) -> None:
        super().__init__(*map(redact, parts))


class ConfigError(SftkitError):
    """One or more mistakes in a configuration, all reported together. `problems` has one sentence for each."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = tuple(map(redact, (problems,) if isinstance(problems, str) else problems))
        super().__init__("\n".join(self.problems))


class UsageError(ConfigError):
    """A configuration error caused by the command line."""


class RequirementError(ConfigError):
    """A configuration that is right, but needs a package or hardware that this machine does not have."""

    exit_code = 1


class SourceError(SftkitError):
    """A data path that cannot be found, opened or understood as a whole."""


class DataError(SftkitError):
    """Rows that cannot be used, or too few of them."""


class TokenizerError(SftkitError):
    """A tokenizer or chat template that cannot be loaded or used."""


class OutputError(SftkitError):
    """An output directory that cannot be written or that holds another data set, or a manifest that cannot be read."""


class TrainingError(SftkitError):
    """A model, training arguments or shards that cannot be trained on."""
