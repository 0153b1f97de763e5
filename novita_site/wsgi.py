"""The entry for WSGI servers. Importing it is how `instances.refresher` knows that a server runs."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "novita_site.settings")
_django = get_wsgi_application()

from instances.api.shortcut import shorten  # noqa: E402 - it needs Django's settings and models

application = shorten(_django)
