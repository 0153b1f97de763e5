"""Whether the database has every migration of this code.

A newer database has more. That is no problem: while a deployment is upgraded, older processes run on beside it.
"""

from functools import cache

from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder


def list_unapplied() -> list[str]:
    """Return what `manage.py migrate` would apply, as app.name. Raises DatabaseError."""
    applied = MigrationRecorder(connection).applied_migrations()
    return [".".join(name) for name in _list_known() if name not in applied]


@cache
def _list_known() -> list[tuple[str, str]]:
    """Return app and name of each migration of the code: 20 ms, once in a process."""
    loader = MigrationLoader(None, load=False)
    loader.load_disk()
    return sorted(loader.disk_migrations)
