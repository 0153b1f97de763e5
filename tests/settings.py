"""The settings of the unit tests: nothing from the environment or `.env`, Redis in memory, no background thread."""

import os
import tempfile
from pathlib import Path

from novita_site import env
from novita_site.env import Env
from tests import fake_redis

env.read = lambda root: Env(
    {
        "SECRET_KEY": "FAKE-SECRET-django",
        # `make test-postgres` runs them on a server of its own.
        "DATABASE_URL": os.environ.get("TEST_DATABASE_URL", "sqlite://:memory:"),
        "NOVITA_API_KEY": "FAKE-SECRET-key",
        "NOVITA_BASE_URL": "https://novita.test",
        "NOVITA_SYNC_ON_STARTUP": "0",
        "NOVITA_SYNC_INTERVAL": "0",
        # The first text that is kept makes it; the end of the tests deletes it.
        "FALLBACK_DIR": f"{tempfile.gettempdir()}/novita-panel-tests-{os.getpid()}",
    }
)

from novita_site.settings import *  # noqa: E402, F403 - the environment comes first
from novita_site.settings import CACHES, DATABASES, LOGGING  # noqa: E402 - likewise

# A file: what works in a thread of its own has a connection of its own, which would see another database in memory.
if "TEST_DATABASE_URL" not in os.environ:
    name = f"novita-panel-tests-{os.getpid()}.sqlite3"
    DATABASES["default"]["TEST"] = {"NAME": str(Path(tempfile.gettempdir()) / name)}

# `FAKE_REDIS.connected = False` is an outage.
FAKE_REDIS = fake_redis.make_server()
CACHES["default"]["OPTIONS"]["CONNECTION_POOL_KWARGS"] = {
    "connection_class": fake_redis.PanelConnection,
    "server": FAKE_REDIS,
}

# pytest closes the stream that stands for stderr now, and shows the lines of a failed test anyway.
LOGGING["handlers"]["stderr"]["stream"] = open(os.devnull, "w")  # noqa: SIM115 - open for as long as the tests run

# Otherwise WhiteNoise lists all static files for each test client, in 20 ms.
WHITENOISE_AUTOREFRESH = True
# The default hasher takes 0.2 s for each password, as it should.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
