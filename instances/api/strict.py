"""Serializers and fields that take a request at its word: they refuse what is unknown or of another type."""

from collections.abc import Iterator, Mapping
from typing import Any

from rest_framework import serializers

from instances.errors import InvalidRequest
from instances.instance import clean_text


def show_name(name: str) -> str:
    """Return a field's name for an error: cut, and without unpaired surrogates."""
    return name.encode("utf-8", "replace").decode()[:100]


def _list_reasons(errors: Any) -> Iterator[str]:
    """Yield each sentence once; DRF groups those on a list's items by the items' numbers."""
    if isinstance(errors, Mapping):
        errors = dict.fromkeys(reason for reasons in errors.values() for reason in _list_reasons(reasons))
    yield from map(str, errors)


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses unknown fields: a misspelt one must not be ignored."""

    def check(self) -> dict[str, Any]:
        """Return the values. Raises InvalidRequest with a sentence for each invalid field."""
        data = self.initial_data
        if not isinstance(data, dict):
            raise InvalidRequest("The request body must be a JSON object.")
        unknown = {show_name(name): "Unknown field." for name in data if name not in self.fields}
        self.is_valid()
        wrong = {name: " ".join(_list_reasons(reasons)) for name, reasons in self.errors.items()}
        if unknown or wrong:
            raise InvalidRequest(fields={**wrong, **unknown})
        return dict(self.validated_data)


class TextField(serializers.CharField):
    """Accepts a string, and no number in its place."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class FlagField(serializers.BooleanField):
    """Accepts true and false, and no word for them: a request that stops a team's work must not be guessed at."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class NothingSerializer(StrictSerializer):
    """The body of a request without fields: absent, or an empty object."""


class NoteField(TextField):
    """Replaces the characters that can't be stored: the encoding of a note must not prevent a stop."""

    def to_internal_value(self, data: Any) -> str:
        return super().to_internal_value(clean_text(data) if isinstance(data, str) else data)
