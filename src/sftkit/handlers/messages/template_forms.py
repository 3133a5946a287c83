"""What a chat template can read, as far as the conversion of messages depends on it."""

from __future__ import annotations

from typing import Any, Protocol


class TemplateForms(Protocol):
    """Tells which forms of messages a chat template writes as they are."""

    def knows_role(self, role: str) -> bool:
        """Return whether the template has a form of its own for a role."""

    def writes_role(self, role: str) -> bool:
        """Return whether the template writes the text of messages with a role."""

    def writes_calls(self) -> bool:
        """Return whether the template writes `tool_calls`."""

    def takes_objects(self) -> bool:
        """Return whether the template writes arguments of calls that are objects."""

    def writes_bare_calls(self) -> bool:
        """Return whether the template writes tool calls whose name is not under `function`."""

    def writes_part(self, kind: str) -> bool:
        """Return whether the template writes content parts of a type: `thinking`, `tool_use`, `tool_result`."""

    def writes_objects_as_json(self) -> bool:
        """Return whether the template writes the result of a tool that is an object as JSON."""

    def ignores_calls(self, value: Any) -> bool:
        """Return whether the template writes a message whose `tool_calls` are null or empty like one without."""


class NoTemplate:
    """Stands for the template where there is none."""

    def knows_role(self, role: str) -> bool:
        """False."""
        return False

    def writes_role(self, role: str) -> bool:
        """True: whatever comes next has to read messages as they are converted."""
        return True

    def writes_calls(self) -> bool:
        """True, as for roles."""
        return True

    def takes_objects(self) -> bool:
        """True, as for roles."""
        return True

    def writes_bare_calls(self) -> bool:
        """False."""
        return False

    def writes_part(self, kind: str) -> bool:
        """False."""
        return False

    def writes_objects_as_json(self) -> bool:
        """False."""
        return False

    def ignores_calls(self, value: Any) -> bool:
        """False."""
        return False


class WholeRowTemplate(NoTemplate):
    """Stands for a template that takes whole rows as `messages`: it was written for the form that the rows have."""

    def knows_role(self, role: str) -> bool:
        """True."""
        return True

    def writes_bare_calls(self) -> bool:
        """True."""
        return True

    def writes_part(self, kind: str) -> bool:
        """True."""
        return True

    def writes_objects_as_json(self) -> bool:
        """True."""
        return True

    def ignores_calls(self, value: Any) -> bool:
        """True."""
        return True
