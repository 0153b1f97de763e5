"""The rows of all tables: count them, copy them from one database into another, and the versions of the tables."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from django.apps import apps
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management.color import no_style
from django.db import connections, models
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from instances.access.audit import LOCAL_OWNER
from instances.models import AuditEntry

# The rows of one statement are limited further by SQLite's number of values.
CHUNK: Final = 1000


def list_models() -> list[type[models.Model]]:
    """Return the model of each table, except for logins: nobody stays logged in by a backup."""
    found = apps.get_models(include_auto_created=True)
    return [model for model in found if model._meta.managed and not model._meta.proxy and model is not Session]


def count(alias: str) -> dict[str, int]:
    """Return how many rows the panel's tables have, by what they are. Empty for a database that nobody has used."""
    counts = {}
    nouns: list[type[models.Model]] = [User, *apps.get_app_config("instances").get_models()]
    for model in nouns:
        rows = model._base_manager.using(alias)
        if model is User:
            rows = rows.exclude(username=LOCAL_OWNER)
        if model is AuditEntry:
            # Commands such as `migrate` are recorded before anybody has used the panel.
            rows = rows.exclude(action__startswith="command.")
        if number := rows.count():
            counts[str(model._meta.verbose_name_plural)] = number
    return counts


def copy(source: str, target: str, note: Callable[[int], None] | None = None) -> None:
    """Copy all rows into empty tables. Called in a transaction, at whose end references are checked.

    `note` is called with the number of rows that are copied.
    """
    done = 0
    for model in list_models():
        rows = _read(model, source)
        while chunk := list(islice(rows, CHUNK)):
            _write(model, target, chunk)
            done += len(chunk)
            if note:
                note(done)
    connection = connections[target]
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), list_models()):
            cursor.execute(statement)


def _read(model: type[models.Model], alias: str) -> Iterator[models.Model]:
    return model._base_manager.using(alias).order_by("pk").iterator(CHUNK)


def _write(model: type[models.Model], alias: str, chunk: Sequence[models.Model]) -> None:
    """Write rows as they are. `bulk_create` would set the times of their creation anew."""
    fields = list(model._meta.concrete_fields)
    size = connections[alias].ops.bulk_batch_size(fields, chunk)
    rows: Any = model._base_manager.using(alias)
    for begin in range(0, len(chunk), size):
        rows._insert(chunk[begin : begin + size], fields=fields, using=alias, raw=True)


def empty(alias: str) -> None:
    """Delete the rows of all tables, logins included. Called in a transaction."""
    connection = connections[alias]
    tables = [*(model._meta.db_table for model in list_models()), Session._meta.db_table]
    names = [connection.ops.quote_name(table) for table in tables]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Somebody who reads or writes has 5 s to finish.
            cursor.execute("SET LOCAL lock_timeout = '5s'")
            cursor.execute(f"TRUNCATE {', '.join(names)} CASCADE")
            return
        for name in names:
            cursor.execute(f"DELETE FROM {name}")  # noqa: S608 - the name of a table


# --- The tables' versions


def list_unknown(alias: str) -> list[str]:
    """Return the migrations that this version of the panel doesn't have: the database is of a newer one."""
    loader = MigrationLoader(connections[alias])
    known = set(loader.disk_migrations)
    applied = loader.applied_migrations
    return sorted(f"{app}.{name}" for app, name in applied if app in loader.migrated_apps and (app, name) not in known)


def has_tables(alias: str) -> bool:
    return AuditEntry._meta.db_table in connections[alias].introspection.table_names()


def is_current(alias: str) -> bool:
    executor = MigrationExecutor(connections[alias])
    return not executor.migration_plan(executor.loader.graph.leaf_nodes())
