"""A list of records as a CSV file, without cells that a spreadsheet would run as formulas."""

import csv
import io
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from django.http import StreamingHttpResponse
from django.utils import timezone

from instances.instance import format_time

CSV_ROWS_AT_ONCE: Final = 500

# A text with more invisible characters than this at its start is treated as a formula.
MAX_BLANKS: Final = 200

# Spreadsheets treat a text that starts with one of these as a formula. Some ignore invisible characters before it.
FORMULA_SIGNS: Final = "=+-@\N{MINUS SIGN}"
BYTE_ORDER_MARK: Final = "\ufeff"


def name_column(field: str) -> str:
    """Name a column as the API would: `operation__kind` is `operationKind`."""
    first, *others = field.replace("__", "_").split("_")
    return first + "".join(word.capitalize() for word in others)


def write_cell(value: Any) -> Any:
    match value:
        case bool():
            return str(value).lower()
        case datetime():
            return format_time(value)
        case str() if may_be_formula(value):
            return f"'{value}"
    return value


def may_be_formula(text: str) -> bool:
    if text.startswith(("\t", "\r", "\n")):
        return True
    for char in text[:MAX_BLANKS]:
        # Full-width and small signs count as the plain ones. Spaces and invisible characters are skipped.
        for plain in unicodedata.normalize("NFKC", char):
            if unicodedata.category(plain)[0] not in "CMZ":
                return plain in FORMULA_SIGNS
    return len(text) > MAX_BLANKS


def write_csv(fields: Iterable[str], rows: Iterable[Sequence[Any]], *, has_mark: bool = True) -> Iterator[str]:
    buffer = io.StringIO()
    if has_mark:
        # Without the mark, Excel reads the file in the machine's legacy code page.
        buffer.write(BYTE_ORDER_MARK)
    writer = csv.writer(buffer)
    writer.writerow(name_column(field) for field in fields)
    for number, row in enumerate(rows, 1):
        writer.writerow(write_cell(value) for value in row)
        if number % CSV_ROWS_AT_ONCE == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def answer_csv(name: str, fields: Iterable[str], rows: Iterable[Sequence[Any]]) -> StreamingHttpResponse:
    """Send a file whose name has the day."""
    return StreamingHttpResponse(
        write_csv(fields, rows),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}-{timezone.now():%Y-%m-%d}.csv"'},
    )
