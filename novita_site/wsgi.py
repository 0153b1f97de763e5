"""The entry for WSGI servers. Importing it is how `instances.refresher` knows that a server runs."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "novita_site.settings")
application = get_wsgi_application()
