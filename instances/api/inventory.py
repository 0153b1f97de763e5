"""The API's JSON of the inventory: a synchronization, the cache's figures, and health; instances as rows of a file."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from django.utils import timezone

from instances.health import Health
from instances.instance import format_time
from instances.inventory import queries
from instances.inventory.report import SyncReport
from instances.inventory.store import Stats
from novita_site import __version__
from novita_site.roles import Role

_FIELDS: Final = (
    *("id", "name", "status", "group", "gpuNum", "productName", "costPerHour", "pricePerHour", "prepaid"),
    *("billingMode", "spotStatus", "createdAt", "lastStartedAt", "lastStoppedAt", "endTime", "region", "clusterId"),
    *("owner", "project", "cpuNum", "memoryGb", "rootfsSizeGb", "imageUrl", "changedAt"),
)
CSV_FIELDS: Final = (*_FIELDS, "spent", "statusError")


def show_cells(instances: Iterable[Mapping[str, Any]]) -> Iterator[list[Any]]:
    """Yield the row of each instance in a CSV file."""
    now = timezone.now()
    for one in instances:
        spent, error = queries.find_spent(one, now), one["statusError"] or {}
        yield [
            *(one[name] for name in _FIELDS),
            None if spent is None else round(spent, 2),
            " ".join(filter(None, error.values())),
        ]


def show_report(report: SyncReport) -> dict[str, Any]:
    """Return the answer of POST /api/instances/sync and of `sync_instances --json`."""
    return {
        "success": True,
        "message": "Dry run: nothing was changed" if report.is_dry_run else "Synchronization completed successfully",
        "novitaInstances": report.novita_instances,
        "redisInstances": report.redis_instances,
        "synchronized": report.novita_instances,
        "deleted": len(report.difference.removed),
        "errors": report.errors,
        "timestamp": format_time(timezone.now()),
        "duration": report.duration_ms,
        "added": len(report.difference.added),
        "changed": len(report.difference.changed),
        "unconfirmed": len(report.difference.unconfirmed),
    }


def show_stats(stats: Stats) -> dict[str, Any]:
    """Return the answer of GET /api/cache/stats."""
    state = stats.state
    return {
        "size": state.size,
        "bytes": stats.size_bytes,
        "generation": state.generation,
        "revision": state.revision,
        "ageSeconds": state.freshness.age_seconds,
        "notModified": state.not_modified,
        "lease": {**state.lease, "endsInSeconds": state.lease_seconds} if state.lease is not None else None,
    }


def show_health(health: Health, role: Role) -> dict[str, Any]:
    """Return the answer of GET /health: the status alone for a visitor without a role."""
    if role < Role.VIEWER:
        return {"status": health.status, "timestamp": format_time(timezone.now())}
    return {
        "status": health.status,
        "version": __version__,
        "timestamp": format_time(timezone.now()),
        "services": health.services,
        "sync": _show_sync(health),
        "warnings": health.warnings,
        "unappliedMigrations": health.unapplied_migrations,
    }


def _show_sync(health: Health) -> dict[str, Any]:
    state = health.state
    as_of = state.freshness.as_of if state else None
    cleared_at = state.cleared_at if state and as_of is None else None
    age = state.freshness.age_seconds if state else None
    return {
        "available": as_of is not None,
        "lastSync": format_time(state.last_sync) if state and state.last_sync else None,
        "clearedAt": format_time(cleared_at) if cleared_at else None,
        "isLocked": bool(state and state.lease is not None),
        "cacheSize": state.size if state else 0,
        "ageSeconds": int(age) if age is not None else None,
        "isStale": bool(state and as_of is not None and state.freshness.is_stale),
        "lastError": state.error or None if state else None,
        "lastErrorCode": state.code or None if state else None,
    }
