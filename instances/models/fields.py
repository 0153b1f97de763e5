"""How a JSON column is written."""

import json
from typing import Any


class ReadableEncoder(json.JSONEncoder):
    """Writes names as they are and not as \\u escapes, so that a search in the records finds them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "ensure_ascii": False})
