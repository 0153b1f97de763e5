"""Keeps texts outside the database, in Redis and in a file, for the time when it can't be used.

Both are best effort: the file may be on the same full disk.
"""

import hashlib
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from django.conf import settings

from instances import redis_client as keys
from instances.errors import CacheUnavailable
from instances.redis_client import get_redis, redis_errors
from novita_site.private_files import make_folder

log = logging.getLogger(__name__)

# The prefix of the name of an unusable copy.
ASIDE: Final = "unreadable-"
_FILE_NAME: Final = re.compile(r"[\w.-]+\.json")

# Files whose failure is logged already.
_warned: set[Path] = set()


def get_folder() -> Path:
    return Path(settings.FALLBACK_DIR) / _get_mark()


def _get_key() -> str:
    return f"{keys.KEPT}{_get_mark()}"


def _get_mark() -> str:
    """Return a mark of the database, so that panels with different databases keep their texts apart."""
    database = settings.DATABASES["default"]
    parts = [str(database.get(name, "")) for name in ("ENGINE", "HOST", "PORT", "NAME")]
    if "sqlite" in parts[0]:
        parts.append(socket.gethostname())
    return hashlib.sha256(chr(0).join(parts).encode("utf-8", "replace")).hexdigest()[:12]


def write(name: str, text: str) -> list[str]:
    """Keep a text; returns the places where it was kept."""
    places = []
    try:
        with redis_errors(), get_redis().pipeline(transaction=True) as pipeline:
            pipeline.hset(_get_key(), name, text)
            pipeline.expire(_get_key(), keys.KEEP_SECONDS)
            pipeline.execute()
        places.append("Redis")
    except CacheUnavailable as exc:
        log.debug("%s not kept in redis: %s", name, exc)
    path = get_folder() / f"{name}.json"
    # Each thread has its own draft: two that write into one leave a mixture of their texts.
    draft = path.with_suffix(f".{os.getpid()}-{threading.get_native_id()}")
    try:
        make_folder(path.parent)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
        places.append(str(path))
    except OSError as exc:
        log.debug("%s not kept in a file: %s", name, exc)
        with suppress(OSError):
            draft.unlink()
    return places


def read(name: str) -> list[str]:
    """Return the copies of a text."""
    texts = []
    try:
        with redis_errors():
            value = get_redis().hget(_get_key(), name)
        texts += [value.decode("utf-8", "replace")] if isinstance(value, bytes) else []
    except CacheUnavailable as exc:
        log.debug("%s not read from redis: %s", name, exc)
    with suppress(OSError, ValueError):
        texts.append((get_folder() / f"{name}.json").read_text(encoding="utf-8"))
    return texts


def read_all(prefix: str) -> Iterator[tuple[str, str]]:
    """Yield each name with this prefix and its text; twice for a text that is kept in both places."""
    try:
        with redis_errors():
            found: dict[Any, Any] = get_redis().hgetall(_get_key())
        for name, value in found.items():
            if name.startswith(prefix.encode()):
                yield name.decode("utf-8", "replace"), value.decode("utf-8", "replace")
    except CacheUnavailable as exc:
        log.debug("not read from redis: %s", exc)
    for path in _list_files(prefix):
        try:
            yield path.stem, path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            log.debug("%s was removed meanwhile", path)
        except OSError as exc:
            _warn_once(path, f"{path} can't be read: {exc}. The other copies are read.")


def _list_files(prefix: str) -> list[Path]:
    try:
        paths = list(get_folder().iterdir())
    except OSError as exc:
        log.debug("not read from files: %s", exc)
        return []
    return [path for path in paths if path.name.startswith(prefix) and _FILE_NAME.fullmatch(path.name)]


def set_aside(name: str, text: str, reason: object) -> None:
    """Rename the copies that hold this unusable text, so that only a person reads them again."""
    aside = f"{ASIDE}{name}"
    places = []
    try:
        with redis_errors():
            value = get_redis().hget(_get_key(), name)
            if isinstance(value, bytes) and value.decode("utf-8", "replace") == text:
                get_redis().hset(_get_key(), aside, value)
                get_redis().hdel(_get_key(), name)
                places.append(f"{aside} in Redis")
    except CacheUnavailable as exc:
        log.debug("%s not set aside in redis: %s", name, exc)
    path = get_folder() / f"{name}.json"
    try:
        if path.read_text(encoding="utf-8", errors="replace") == text:
            places.append(str(path.replace(path.with_name(f"{aside}.json"))))
    except FileNotFoundError:
        log.debug("%s is in no file", name)
    except OSError as exc:
        _warn_once(path, f"{path} is unusable ({reason}), and can't be renamed: {exc}")
    if places:
        log.warning("%s can't be recorded: %s. It is kept as %s.", name, reason, " and ".join(places))


def _warn_once(path: Path, words: str) -> None:
    if path not in _warned:
        _warned.add(path)
        log.warning("%s", words)


def remove(name: str, text: str | None = None) -> None:
    """Remove a text; with `text`, only where nobody has kept another one meanwhile."""
    try:
        with redis_errors():
            if text is None or get_redis().hget(_get_key(), name) == text.encode("utf-8", "replace"):
                get_redis().hdel(_get_key(), name)
    except CacheUnavailable as exc:
        log.debug("%s not removed from redis: %s", name, exc)
    path = get_folder() / f"{name}.json"
    with suppress(OSError):
        if text is None or path.read_text(encoding="utf-8", errors="replace") == text:
            path.unlink(missing_ok=True)
