"""Parses request bodies; an ambiguous one is refused."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

from instances.api.serializers import REPEATED
from instances.api.strict import show_name
from instances.errors import InvalidRequest


class StrictJsonParser(JSONParser):
    """Accepts JSON in UTF-8, without NaN and without repeated keys."""

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            parsed: dict[str, Any] = json.loads(
                stream.read().decode("utf-8"), object_pairs_hook=_make_object, parse_constant=_refuse_constant
            )
        except ValueError as exc:
            raise ParseError from exc
        return parsed


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if repeated:
        raise InvalidRequest(fields=dict.fromkeys(map(show_name, repeated), REPEATED))
    return dict(pairs)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
