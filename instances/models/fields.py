"""The encoding of JSON columns."""

import json
from typing import Any


class ReadableEncoder(json.JSONEncoder):
    """Writes names as they are, without \\u escapes, because the search in the records must find them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "ensure_ascii": False})
