"""The services of NOTIFY_URLS (Slack, Teams, Discord, mail, PagerDuty and many more), called by Apprise.

Their URLs contain secrets: nothing here shows or logs one, and Apprise itself logs nothing.
"""

import hashlib
import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.conf import settings

logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Service:
    """A service; `name` is its scheme and a few letters of a hash. Without `kinds` it receives all events."""

    name: str
    url: str
    kinds: frozenset[str]


class NotSent(Exception):
    """The service did not take the message; Apprise doesn't say why."""


def list_services() -> list[Service]:
    return _read(tuple(settings.NOTIFY_URLS))


def find(name: str) -> Service | None:
    return next((one for one in list_services() if one.name == name), None)


@lru_cache(maxsize=4)
def _read(entries: tuple[tuple[str, frozenset[str]], ...]) -> list[Service]:
    return [Service(_name(url), url, kinds) for url, kinds in entries]


def _name(url: str) -> str:
    digest = hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:6]
    return f"{url.partition('://')[0][:40]} {digest}"


def send(service: Service, title: str, text: str) -> None:
    """Send one message. Raises NotSent."""
    import apprise  # Takes 0.2 s, which only a worker with services pays.

    sender: Any = apprise.Apprise()
    try:
        is_sent = sender.add(service.url) and sender.notify(title=title, body=text)
    except Exception as exc:  # Some plugins let the errors of their libraries pass.
        raise NotSent(f"{type(exc).__name__}.") from None
    if not is_sent:
        raise NotSent("The service did not accept the message.")
