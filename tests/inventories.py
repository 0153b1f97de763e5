"""The inventory as a synchronization fills it, for tests of something else."""

import pytest

from instances.inventory import sync


def fill_inventory() -> None:
    """Copy the account at Novita. A request for it, and its record in the database, would take three times as long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sync, "record", lambda *args: None)
        sync.synchronize("api")
