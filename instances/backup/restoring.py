"""Puts a backup in place of the database: all of it, or nothing.

A backup is checked, brought to this version's tables and settled in a private copy first. One transaction then replaces
the database, so that a process that is killed leaves the old one.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.fernet import InvalidToken
from django.conf import settings
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connection, transaction
from django.utils import timezone

from instances.backup import files, holding, rows
from instances.errors import BackupFailed, BackupRefused
from instances.models import (
    Channel,
    EvaluationState,
    Finding,
    FindingState,
    FindingStep,
    Message,
    Operation,
    Policy,
    Target,
    WebhookDelivery,
)
from instances.notifications import sealing
from novita_site.private_files import find_database

RESTORED: Final = "The database was restored from a backup."
NOT_ACTING: Final = (
    "Protections and snoozes since the backup are lost, so policies stop nothing until an admin lets them act again, "
    "under Policies in /admin/."
)
_INTERRUPTED: Final = "It was not followed to its end: the database was restored from a backup."


@dataclass
class Restored:
    """What a database has now. `notes` are sentences on what people should do."""

    counts: Mapping[str, int]
    notes: list[str]


def restore(path: Path, *, replaces: bool, while_running: bool = False) -> Restored:
    """Replace the database by a backup. A database that has records is replaced only with `replaces`.

    Raises BackupRefused and BackupFailed; the database is then as it was.
    """
    target = find_database()
    is_damaged = target is not None and _is_damaged(target)
    # A damaged file tells nothing of its users, except by the lock.
    is_alone = not while_running and not is_damaged
    try:
        with holding.locked(target) if target and not while_running else nullcontext():
            if is_alone:
                _refuse_running(target)
            if not replaces:
                _refuse_used(is_damaged=is_damaged)
            return _replace(target, path, is_alone=is_alone, is_damaged=is_damaged)
    except (DatabaseError, sqlite3.Error, OSError) as exc:
        raise BackupFailed(f"Nothing was restored, and the database is as it was. {files.explain(exc)}") from exc


def _replace(target: Path | None, path: Path, *, is_alone: bool, is_damaged: bool) -> Restored:
    with files.copied(path, target.parent if target else settings.VAR_DIR) as copy:
        with files.opened(copy) as alias:
            _bring_up_to_date(alias, path)
            notes = _settle(alias)
            counts = rows.count(alias)
            if target is None:
                _replace_rows(alias, is_alone=is_alone)
        if target is not None:
            _replace_file(target, copy, is_alone=is_alone, is_damaged=is_damaged)
    return Restored(counts, notes)


def _is_damaged(file: Path) -> bool:
    if not file.exists():
        return False
    try:
        with closing(sqlite3.connect(file, timeout=10)) as database:
            return bool(database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
    except sqlite3.OperationalError as exc:
        raise BackupRefused(f"{file} can't be used. {files.explain(exc)}") from exc
    except sqlite3.DatabaseError:
        return True


def _refuse_running(target: Path | None) -> None:
    """Raises BackupRefused while another process has the database open: its operations would be lost under it."""
    connection.close()
    if target is None:
        _refuse_sessions()
    elif target.exists():
        with closing(sqlite3.connect(target, timeout=1)) as database:
            _take_alone(database)


def _take_alone(database: sqlite3.Connection) -> None:
    """Keep everybody else out of a file until this connection is closed. Raises BackupRefused if one is in.

    Everybody who has a database open in WAL mode has a lock that this mode excludes.
    """
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    try:
        database.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        raise holding.make_refusal() from exc
    database.execute("ROLLBACK")


def _refuse_sessions() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() "
            "AND usename = current_user AND pid <> pg_backend_pid())"
        )
        if cursor.fetchone()[0]:
            raise holding.make_refusal()


def _refuse_used(*, is_damaged: bool) -> None:
    if is_damaged:
        raise BackupRefused(
            "The database's file is damaged.", suggestion="--replace moves it aside, and restores the backup."
        )
    if rows.has_tables(DEFAULT_DB_ALIAS) and (counts := rows.count(DEFAULT_DB_ALIAS)):
        raise BackupRefused(
            f"The database is not empty ({describe(counts)}).",
            suggestion="--replace deletes all of that, and restores the backup.",
        )


def describe(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {number:,}" for name, number in counts.items())


def _bring_up_to_date(alias: str, path: Path) -> None:
    if not rows.has_tables(alias):
        raise BackupRefused(f"{path} has no tables of the panel.", suggestion="Name a file of `manage.py backup`.")
    _refuse_newer(alias, str(path))
    if connection.vendor != "sqlite":
        _refuse_newer(DEFAULT_DB_ALIAS, "The database")
    call_command("migrate", database=alias, verbosity=0, interactive=False)


def _refuse_newer(alias: str, name: str) -> None:
    if unknown := rows.list_unknown(alias):
        raise BackupRefused(
            f"{name} is of a newer version of the panel: it has the migration {unknown[-1]}.",
            suggestion="Update the panel first.",
        )


# --- A backup is older than the account


def _settle(alias: str) -> list[str]:
    """End what was under way when the backup was made: nothing is stopped or sent because of an old record."""
    now = timezone.now()
    with transaction.atomic(using=alias):
        running = Operation.objects.using(alias).filter(state__in=Operation.RUNNING)
        open_ = Target.objects.using(alias).filter(operation__in=running.values("pk"), state__in=Target.OPEN)
        open_.update(state=Target.State.UNKNOWN, error=_INTERRUPTED)
        running.update(
            state=Operation.State.FINISHED,
            success=False,
            result=_INTERRUPTED,
            finished_at=now,
            claim="",
            claimed_until=None,
        )
        for model in (WebhookDelivery, Message):
            due = model.objects.using(alias).filter(state__in=("waiting", "due"))
            due.update(state="dead", next_attempt_at=None, ended_at=now)
        findings = Finding.objects.using(alias).filter(ended_at=None)
        FindingStep.objects.using(alias).bulk_create(
            FindingStep(finding_id=pk, at=now, state=FindingState.CLEARED, reason=RESTORED)
            for pk in findings.values_list("pk", flat=True)
        )
        findings.update(state=FindingState.CLEARED, reason=RESTORED, ended_at=now)
        acting = Policy.objects.using(alias).filter(mode=Policy.Mode.STOP, is_on=True)
        is_acting = acting.exists()
        if is_acting:
            off = {"is_switched_off": True, "switched_by": "restore", "switched_at": now}
            EvaluationState.objects.using(alias).update_or_create(
                pk=1, defaults={**off, "claim": "", "claimed_until": None}
            )
    return [*_find_lost_urls(alias), *([NOT_ACTING] if is_acting else [])]


def _find_lost_urls(alias: str) -> list[str]:
    lost = [channel.name for channel in Channel.objects.using(alias) if not _can_unseal(channel.sealed_url)]
    if not lost:
        return []
    return [
        f"The URLs of these notification channels were encrypted with another SECRET_KEY: {', '.join(lost)}. Add that "
        "key to SECRET_KEY_FALLBACKS, or enter the URLs again in /admin/."
    ]


def _can_unseal(sealed_url: str) -> bool:
    try:
        return bool(sealing.unseal(sealed_url))
    except InvalidToken:
        return False


# --- The exchange


def _replace_rows(alias: str, *, is_alone: bool) -> None:
    # The tables may be missing, or older; this changes no row.
    call_command("migrate", verbosity=0, interactive=False)
    with transaction.atomic():
        rows.empty(DEFAULT_DB_ALIAS)
        if is_alone:
            # Somebody may have come since the first look. From here on the others wait for the new rows.
            _refuse_sessions()
        rows.copy(alias, DEFAULT_DB_ALIAS)


def _replace_file(target: Path, copy: Path, *, is_alone: bool, is_damaged: bool) -> None:
    connection.close()
    if is_damaged:
        moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        for suffix in ("-wal", "-shm", "-journal", ""):
            file = target.with_name(target.name + suffix)
            if file.exists():
                file.rename(target.with_name(f"{target.name}.damaged-{moment}{suffix}"))
    if not target.exists():
        target.touch(mode=0o600)
    with closing(sqlite3.connect(target, timeout=1 if is_alone else 10)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        if is_alone:
            # Somebody may have come since the first look. From here on nobody comes.
            _take_alone(database)
        with closing(sqlite3.connect(copy)) as source:
            files.copy_database(source, database)
