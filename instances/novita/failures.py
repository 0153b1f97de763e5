"""What each answer and each failure of Novita means, as one of our errors."""

import email.utils
import json
import re
import time
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

import requests
import urllib3

from instances.errors import (
    InsufficientResource,
    InvalidStateChange,
    NotFoundAtNovita,
    NovitaBadAnswer,
    NovitaError,
    NovitaRateLimited,
    NovitaRefused,
    NovitaRejectedKey,
    NovitaTimeout,
    NovitaUnavailable,
)
from instances.outgoing import egress

MAX_BODY_BYTES: Final = 64 * 1024 * 1024


class _NotJson:
    pass


# The body of a good answer that is not JSON.
NOT_JSON: Final = _NotJson()

_REASON: Final = re.compile("[A-Z][A-Z_]{2,49}")
_PLAIN_WORD: Final = re.compile(
    r"[\"'(]?(?:[A-Za-z]?[a-z]{0,15}|[a-z]{1,9}'[a-z]{1,2}|[A-Z]{1,5}|\d{1,4})[\"')]?[.,;:!?]?"
)
_SECRET_NAME: Final = re.compile("passw|passphrase|secret|token|key|credential|command|env", re.IGNORECASE)


def read_body(response: requests.Response) -> bytes:
    """Read and unpack the body, up to the limit: 97 kB of gzip can hold 100 MB."""
    body = bytearray()
    for piece in response.iter_content(64 * 1024):
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise NovitaBadAnswer(f"Novita's answer is larger than {MAX_BODY_BYTES >> 20} MB.")
    return bytes(body)


def check_answer(response: requests.Response, raw: bytes) -> Any:
    """Return the parsed body of a good answer, or NOT_JSON. Raises NovitaError for any other answer."""
    status = response.status_code
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = NOT_JSON
    if 200 <= status < 300:
        return body
    retry_after = parse_retry_after(response.headers.get("Retry-After"))
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        if isinstance(body, dict):
            raise NovitaRejectedKey
        raise NovitaRejectedKey(f"Novita's edge refuses us (HTTP {status}).")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        raise NovitaRateLimited(retry_after=retry_after)
    if status >= 500:
        raise NovitaUnavailable(f"Novita returned an error (HTTP {status}).", retry_after=retry_after)
    if 300 <= status < 400:
        raise NovitaBadAnswer("Novita answered with a redirect, which is not followed.")
    if not isinstance(body, dict):
        # A gateway's 404 page must not pass for "no such instance".
        raise NovitaBadAnswer(f"Novita answered HTTP {status}, and not in its own format.")
    raise _name_refusal(status, body)


def _name_refusal(status: int, body: dict[str, Any]) -> NovitaError:
    """Read Novita's `{"code", "reason", "message"}`."""
    reason, message = str(body.get("reason") or ""), str(body.get("message") or "")
    if reason == "RESOURCE_NOT_FOUND" or (status == HTTPStatus.NOT_FOUND and (reason or body.get("code") == status)):
        return NotFoundAtNovita()
    if reason == "INSUFFICIENT_RESOURCE":
        return InsufficientResource()
    name = reason if _REASON.fullmatch(reason) else str(status)
    words = " ".join(f"{_keep_plain_words(message)} ({name})".split())
    if "invalid state" in message.lower() or reason == "INVALID_STATE":
        return InvalidStateChange(f"Novita refused: {words}.")
    return NovitaRefused(f"Novita refused: {words}.")


def _keep_plain_words(message: str) -> str:
    """Return the plain words of a message of Novita's, with … in place of the others.

    People need the reason. An error may also quote a password, a command, a key or an address, which would be stored
    and shown. A secret that looks like a plain word follows its name, so everything after such a name is left out.
    """
    words = message[:200].split()
    kept: list[str] = []
    for number, word in enumerate(words, 1):
        kept.append(word if _PLAIN_WORD.fullmatch(word) else "…")
        if _SECRET_NAME.search(word):
            kept += ["…"] if words[number:] else []
            break
    return re.sub("…( …)+", "…", " ".join(kept))


def name_failure(exc: requests.RequestException, url: str, *, is_cut: bool) -> NovitaError:
    """Return the error for a call without a complete answer. `is_cut`: the budget ended it."""
    way = egress.name_way(url)
    # A silence in the middle of a body arrives as a ConnectionError around urllib3's ReadTimeoutError.
    is_silence = bool(exc.args) and isinstance(exc.args[0], urllib3.exceptions.ReadTimeoutError)
    if is_cut or is_silence or isinstance(exc, requests.ReadTimeout):
        return NovitaTimeout(f"Novita did not answer in time{way}.")
    if explained := egress.explain(exc, url):
        return NovitaUnavailable(f"Novita can't be reached: {explained[0]}", suggestion=explained[1])
    if isinstance(exc, requests.exceptions.ContentDecodingError):
        return NovitaBadAnswer("Novita's answer can't be unpacked.")
    if isinstance(exc, requests.ConnectTimeout):
        return NovitaUnavailable(f"Novita can't be reached: no connection in time{way}.")
    if isinstance(exc, requests.exceptions.ChunkedEncodingError):
        return NovitaUnavailable(f"Novita's answer ended too early{way}.")
    return NovitaUnavailable(f"Novita can't be reached{way}.")


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After, which may be a number or a date; None when it is absent or malformed."""
    if not value:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value[:12])
    try:
        moment: datetime = email.utils.parsedate_to_datetime(value)
        return max(0.0, moment.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
