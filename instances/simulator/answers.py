"""One HTTP answer in Novita's format, errors included."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

Row = dict[str, Any]


@dataclass
class Answer:
    """One complete HTTP answer. Header names are in title case."""

    status: int = HTTPStatus.OK
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


class Refusal(Exception):
    """An error in Novita's format: `code` equals the HTTP status."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    def answer(self) -> Answer:
        shape = {"code": int(self.status), "reason": self.reason, "message": self.message, "metadata": {}}
        return json_answer(shape, self.status)


def json_answer(value: object, status: int = HTTPStatus.OK) -> Answer:
    return Answer(status, json.dumps(value).encode())


def html_answer(text: str, status: int) -> Answer:
    return Answer(status, text.encode("utf-8", "surrogatepass"), {"Content-Type": "text/html; charset=utf-8"})


def invalid(message: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT", message)  # The reason is invented.


def invalid_state() -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, "INVALID_STATE", "invalid state change")


def wrong_method(allowed: Iterable[str]) -> Refusal:
    message = "this path accepts " + " or ".join(allowed)
    return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
