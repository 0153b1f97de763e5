"""The entry for WSGI servers. Importing it is how `instances.refresher` knows that a server runs."""

import os
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "novita_site.settings")
_django = get_wsgi_application()

from instances.api.shortcut import shorten  # noqa: E402 - it needs Django's settings and models

_panel = shorten(_django)


def _take_prefix_off(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer a path with and without PATH_PREFIX: some proxies remove it, and a load balancer calls /livez."""
    path: str = environ["PATH_INFO"]
    if path == settings.PATH_PREFIX or path.startswith(f"{settings.PATH_PREFIX}/"):
        environ["PATH_INFO"] = path.removeprefix(settings.PATH_PREFIX)
    return _panel(environ, start_response)


application = _take_prefix_off if settings.PATH_PREFIX else _panel
