"""The encoding of JSON columns, and their text for searches."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from django.db import models


class ReadableEncoder(json.JSONEncoder):
    """Writes names as they are, without \\u escapes, because the search in the records must find them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "ensure_ascii": False})


class WordsField(models.TextField):  # type: ignore[type-arg]  # Django itself has no such arguments
    """The words of other columns that hold JSON, each once, as one text.

    PostgreSQL stores JSON in a form of its own. It took 1 s to make the texts of 100,000 rows for a search.
    """

    def __init__(self, *args: Any, of: Iterable[str] = (), **options: Any) -> None:
        self.of = tuple(of)
        super().__init__(*args, **{**options, "blank": True, "editable": False})

    def deconstruct(self) -> Any:
        name, path, args, options = super().deconstruct()
        return name, path, args, {**options, "of": self.of}

    def pre_save(self, model_instance: models.Model, add: bool) -> str:
        words = list_words([getattr(model_instance, name) for name in self.of])
        setattr(model_instance, self.attname, words)
        return words


def list_words(value: Any) -> str:
    return "\n".join(dict.fromkeys(_read_words(value)))


def _read_words(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for key, item in value.items():
                if key == "id":
                    yield quote_id(item)
                else:
                    yield str(key)
                    yield from _read_words(item)
        case list():
            for item in value:
                yield from _read_words(item)
        case _:
            yield str(value)


def quote_id(id_: str) -> str:
    """Return how an id stands among the words: no other id contains it, and hardly a name."""
    return f'"{id_}"'
