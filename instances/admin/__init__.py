"""The records and the accounts as admin pages. Importing these modules registers the pages."""

from instances.admin import (
    accounts,
    audit,
    costs,
    freezes,
    notifications,
    operations,
    policies,
    protections,
    sync_runs,
    webhooks,
)

__all__ = [
    "accounts",
    "audit",
    "costs",
    "freezes",
    "notifications",
    "operations",
    "policies",
    "protections",
    "sync_runs",
    "webhooks",
]
