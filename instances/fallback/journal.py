"""Keeps the records that the database could not store, and stores them there later, exactly once.

They are in this process's `standby`. A thread copies them to Redis and to a file every second, so that other processes
can show them, and can store them if this process dies.
"""

import atexit
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.core import serializers
from django.db import DatabaseError, DataError, IntegrityError, connection, connections, models, transaction
from django.utils import timezone

from instances.fallback import kept, standby
from instances.models import AuditEntry, Operation, Target, WebhookDelivery
from novita_site.log import Fields

log = logging.getLogger(__name__)

PREFIX: Final = "unrecorded-"
TICK_SECONDS: Final = 0.5
# An unchanged copy is written again as a sign that its process is alive.
SIGN_SECONDS: Final = 10
DEAD_AFTER: Final = timedelta(seconds=45)
RECORD_EVERY_SECONDS: Final = 2
# A stop waits for its copy for this time at most: a disk may hang.
KEEP_SECONDS: Final = 2
# A copy that the database has refused so often is unusable. Another process may cause a single refusal.
MAX_REFUSALS: Final = 3
MAX_ENTRIES: Final = 5000
NOTE: Final = "Recorded later: the database could not be written while the operation ran."
NOTE_DEAD: Final = "The process ended while the database could not be written."
_ADVISORY_LOCK: Final = 0x6E6F7669


@dataclass
class Copy:
    """The records that one process could not store."""

    name: str
    kept_at: datetime
    is_last: bool = False
    text: str = ""
    operations: list[Operation] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    deliveries: list[WebhookDelivery] = field(default_factory=list)
    entries: list[AuditEntry] = field(default_factory=list)

    @property
    def is_dead(self) -> bool:
        # The absolute difference, since a clock may have been set back.
        return self.is_last or abs(timezone.now() - self.kept_at) > DEAD_AFTER

    def find_targets(self, operation: Operation) -> list[Target]:
        return [target for target in self.targets if target.operation_id == operation.pk]


# Called with each operation that was recorded later.
after_recording: list[Callable[[Operation], None]] = []

_thread: threading.Thread | None = None
_lock = threading.Lock()
# Held while the copy is written, so that an older copy never replaces a newer one.
_writing = threading.Lock()
_refusals: Counter[str] = Counter()
_is_ending = threading.Event()
_holders = 0
_places: list[str] = []
_name = ""


def get_name() -> str:
    """Return the name of this process's copy; a forked process has its own."""
    global _name
    own = f"{PREFIX}{socket.gethostname()[:40]}-{os.getpid()}-".encode("ascii", "replace").decode().replace("?", "-")
    if not _name.startswith(own):
        _name = own + uuid.uuid4().hex[:8]
    return _name


# --- Keeping


def start() -> None:
    """Keep and record this process's unrecorded rows in a thread, until there are none."""
    global _thread
    with _lock:
        if _thread is None or not _thread.is_alive():
            # A command ends when its work is done. It may register again.
            atexit.unregister(end)
            atexit.register(end)
            _thread = threading.Thread(target=_keep, name="journal", daemon=True)
            _thread.start()


def keep_now() -> list[str]:
    """Copy the rows in memory now, so that they outlive the process; returns the places of the copy."""
    thread = threading.Thread(target=_keep_once, name="journal", daemon=True)
    thread.start()
    thread.join(KEEP_SECONDS)
    return [] if thread.is_alive() else get_places()


def _keep_once() -> None:
    try:
        with _writing:
            _keep_copy(_read_own(), is_last=_is_ending.is_set())
    except Exception:
        # The journal's thread tries again.
        log.exception("journal: not kept")
    finally:
        connections.close_all()


@contextmanager
def held() -> Iterator[None]:
    """Don't delete recorded rows from memory while the block reads them."""
    global _holders
    with _lock:
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1


def get_places() -> list[str]:
    """Return the places of the copy: "Redis", and the path of a file."""
    return list(_places)


def keep_entries(entries: Sequence[AuditEntry]) -> None:
    """Keep audit entries that the database could not store, up to MAX_ENTRIES: anybody can cause failed logins."""
    with standby.used():
        if AuditEntry.objects.count() + len(entries) > MAX_ENTRIES:
            log.warning("%d audit entries dropped: the database has been unavailable for too long", len(entries))
            return
        for entry in entries:
            entry.pk = None
        AuditEntry.objects.bulk_create(entries)
    start()


def _keep() -> None:
    """Copy and record until no row is left, or the process ends."""
    global _thread
    text, kept_at, tried_at = "", float("-inf"), float("-inf")
    try:
        while not _is_ending.is_set():
            try:
                with _writing:
                    rows = _read_own()
                    if text != (text := json.dumps(rows)) or time.monotonic() - kept_at > SIGN_SECONDS:
                        _keep_copy(rows)
                        kept_at = time.monotonic()
                if _has_work(rows) and time.monotonic() - tried_at > RECORD_EVERY_SECONDS:
                    tried_at = time.monotonic()
                    record_own()
                with _writing, _lock:
                    if not _read_own():
                        kept.remove(get_name())
                        _thread = None
                        return
            except Exception:
                log.exception("journal: a round failed")
            _is_ending.wait(TICK_SECONDS)
    finally:
        connections.close_all()


def end() -> None:
    """Leave the last copy of the unrecorded rows to other processes, as this one ends."""
    if standby.exists() and not _is_ending.is_set():
        _is_ending.set()
        if not _writing.acquire(timeout=KEEP_SECONDS):
            return  # The disk hangs; after a while other processes use the existing copy.
        try:
            if rows := _read_own():
                _keep_copy(rows, is_last=True)
            else:
                kept.remove(get_name())
        finally:
            _writing.release()


def _keep_copy(rows: list[dict[str, Any]], *, is_last: bool = False) -> None:
    global _places
    document = {"keptAt": timezone.now().isoformat(), "isLast": is_last, "rows": rows}
    _places = kept.write(get_name(), json.dumps(document)) if rows else _places


def _read_own() -> list[dict[str, Any]]:
    if not standby.exists():
        return []
    with standby.used():
        found: list[models.Model] = []
        for model in (Operation, Target, WebhookDelivery, AuditEntry):
            found += model._default_manager.all()
    rows: list[dict[str, Any]] = json.loads(serializers.serialize("json", found))
    return rows


def _has_work(rows: list[dict[str, Any]]) -> bool:
    return any(row["model"].endswith("auditentry") or row["fields"].get("finished_at") for row in rows)


# --- Recording


def record_own() -> bool:
    """Record the finished operations of this process; False when the database can't, or a block still reads them."""
    copy = _parse(get_name(), {"keptAt": timezone.now().isoformat(), "rows": _read_own()})
    copy.operations = [operation for operation in copy.operations if operation.finished_at]
    if not _record(copy):
        return False
    with _lock:
        if _holders:
            return False
        with standby.used():
            # With their targets.
            Operation.objects.filter(pk__in=[operation.pk for operation in copy.operations]).delete()
            AuditEntry.objects.filter(pk__in=[entry.pk for entry in copy.entries]).delete()
    return True


def record_left_behind() -> None:
    """Record the rows of processes that died; a worker advances operations that were still running."""
    for copy in read_copies():
        if copy.name == get_name() or not copy.is_dead:
            continue
        try:
            if _record(copy, is_dead=True):
                # A process that was only suspended may have kept more since.
                kept.remove(copy.name, copy.text)
        except (IntegrityError, DataError, TypeError, ValueError) as exc:
            log.debug("%s is refused: %s", copy.name, exc)
            _refusals[copy.name] += 1
            if _refusals[copy.name] >= MAX_REFUSALS:
                kept.set_aside(copy.name, copy.text, f"the database refuses it: {exc}")


def _record(copy: Copy, *, is_dead: bool = False) -> bool:
    try:
        with transaction.atomic():
            if connection.vendor == "postgresql":
                # Processes that record at the same moment take turns; SQLite's transactions do so anyway.
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_LOCK])
            if copy.name == get_name() and not standby.exists():
                # The memory was dropped while this waited for its turn.
                return False
            for operation in copy.operations:
                _record_operation(copy, operation, is_dead=is_dead)
            for entry in copy.entries:
                same = {name: getattr(entry, name) for name in ("at", "action", "actor", "target")}
                if not AuditEntry.objects.filter(**same).exists():
                    _insert(entry)
    except DatabaseError as exc:
        if is_dead and isinstance(exc, (IntegrityError, DataError)):
            raise
        log.debug("%s not recorded yet: %s", copy.name, exc)
        # A connection that was opened while the file was read-only stays read-only.
        if not connection.in_atomic_block:
            connection.close()
        return False
    for operation in copy.operations:
        log.warning("operation recorded later%s", Fields(id=operation.pk, result=operation.result))
        for work in after_recording:
            work(operation)
    return True


def _record_operation(copy: Copy, operation: Operation, *, is_dead: bool) -> None:
    recorded = Operation.objects.filter(pk=operation.pk).first()
    if recorded is not None and (recorded.finished_at or NOTE in recorded.notes):
        return
    targets = copy.find_targets(operation)
    operation.notes = [*operation.notes, NOTE]
    operation.claim, operation.claimed_until, operation.next_round_at = "", None, timezone.now()
    if is_dead and operation.finished_at is None:
        operation.notes.append(NOTE_DEAD)
        same = Operation.objects.filter(selection=operation.selection, state__in=Operation.RUNNING)
        if same.exclude(pk=operation.pk).exists():
            _end_unseen(operation, targets)
    for name in ("retry_of_id", "superseded_by_id"):
        pk = getattr(operation, name)
        is_known = pk in {one.pk for one in copy.operations} or Operation.objects.filter(pk=pk).exists()
        setattr(operation, name, pk if is_known else None)
    # The part that the database stored before it failed is older.
    Operation.objects.filter(pk=operation.pk).delete()
    operation.save(force_insert=True, using="default")
    for row in (*targets, *(one for one in copy.deliveries if one.operation_id == operation.pk)):
        _insert(row)


def _end_unseen(operation: Operation, targets: Sequence[Target]) -> None:
    """End an operation that another one has followed already: that one verifies the current state."""
    for target in targets:
        if target.state in Target.OPEN:
            target.state = Target.State.UNKNOWN
            target.error = "Not verified: the process ended before that."
    operation.state, operation.finished_at, operation.success = Operation.State.FINISHED, timezone.now(), False
    operation.result = "Not verified: the process ended, and a newer operation has replaced this one."


def _insert(row: models.Model) -> None:
    """Insert a copy of a row under a new key of the database."""
    number, row.pk = row.pk, None
    row.save(force_insert=True, using="default")
    row.pk = number


# --- Reading


def read_copies() -> list[Copy]:
    """Return the newest copy of each process's unrecorded rows."""
    copies: dict[str, Copy] = {}
    for name, text in kept.read_all(PREFIX):
        try:
            document = json.loads(text)
            _check(document["rows"])
            copy = _parse(name, document)
        except Exception as exc:  # Damaged data can raise any exception.
            kept.set_aside(name, text, f"it is damaged: {exc!r}")
            continue
        copy.text = text
        if name not in copies or copies[name].kept_at < copy.kept_at:
            copies[name] = copy
    return list(copies.values())


def _parse(name: str, document: dict[str, Any]) -> Copy:
    copy = Copy(name, datetime.fromisoformat(document["keptAt"]).astimezone(UTC), document.get("isLast") is True)
    lists: dict[type[models.Model], list[Any]] = {
        Operation: copy.operations,
        Target: copy.targets,
        WebhookDelivery: copy.deliveries,
        AuditEntry: copy.entries,
    }
    for parsed in serializers.deserialize("python", document["rows"], ignorenonexistent=True):
        lists[type(parsed.object)].append(parsed.object)
    return copy


def _check(rows: list[dict[str, Any]]) -> None:
    """Raise ValueError for a row without a field that a process always writes: an incomplete row is unusable."""
    for row, parsed in zip(rows, serializers.deserialize("python", rows, ignorenonexistent=True), strict=True):
        if row.get("pk") is None:
            raise ValueError("a row has no key")
        for field_ in parsed.object._meta.concrete_fields:
            if field_.primary_key:
                continue
            # A field of a newer version may be missing when it has a plain default.
            is_optional = field_.null or field_.blank or (field_.has_default() and not callable(field_.default))
            value = getattr(parsed.object, field_.attname)
            if field_.name not in row["fields"] and not is_optional:
                raise ValueError(f"a row lacks {field_.name}")
            if value is None and not field_.null:
                raise ValueError(f"{field_.name} is null")
            if field_.choices and value not in dict(field_.flatchoices):
                raise ValueError(f"{field_.name} is {value!r}")
            if isinstance(value, datetime) and timezone.is_naive(value):
                raise ValueError(f"{field_.name} has no time zone")
        notes = getattr(parsed.object, "notes", [])
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise ValueError("notes are no list of texts")
