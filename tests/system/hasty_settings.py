"""The impatient settings, for tests in which another program holds SQLite's lock: nobody waits for it for long."""

from tests.system.impatient_settings import *  # noqa: F403 - all settings, with changes below
from tests.system.impatient_settings import DATABASES

DATABASE_WAIT_SECONDS = 1.0
if "timeout" in DATABASES["default"]["OPTIONS"]:
    DATABASES["default"]["OPTIONS"]["timeout"] = 1.5
