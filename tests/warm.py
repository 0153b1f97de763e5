"""Forks the test processes from one process that has imported all tests, which takes 3 s of CPU in each.

xdist starts its processes by `subprocess`, and offers no hook to start them otherwise.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection
from django.test.client import ClientHandler
from django.urls import reverse
from execnet import gateway_base, gateway_io
from hypothesis import strategies

from tests import python

# An empty SQLite database with all tables, in the forks.
migrated: Path | None = None


def prepare() -> None:
    """Make what each fork needs: a fork server, hypothesis' table of characters, and a database that the forks copy."""
    global migrated
    # One for all test processes, in place of one in each.
    python.start_server()
    # In a fresh clone, where no earlier run has kept it, it takes 1.3 s.
    strategies.characters(codec="utf-8").validate()
    if not apps.ready:
        return
    # Otherwise the first request in each process imports the views.
    reverse("dashboard")
    ClientHandler().load_middleware()
    if connection.vendor != "sqlite":
        return
    folder, owner = tempfile.mkdtemp(prefix="novita-panel-tests-"), os.getpid()
    atexit.register(lambda: shutil.rmtree(folder) if os.getpid() == owner else None)
    path = Path(folder) / "migrated.sqlite3"
    name = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = str(path)
    call_command("migrate", verbosity=0)
    connection.close()
    connection.settings_dict["NAME"] = name
    migrated = path


def fork_test_processes(config: pytest.Config) -> None:
    """Let xdist's processes be forks."""
    server = python.start_server(*config.invocation_params.args)

    class ForkedIO(gateway_io.Popen2IOMaster):
        def __init__(self, args: Sequence[str], execmodel: Any) -> None:
            its_input, to_it = os.pipe()
            from_it, its_output = os.pipe()
            # Of the arguments, `-u` is the first.
            command = [args[0], *args[2:]]
            self.popen: Any = python.Fork(
                command, cwd=os.getcwd(), env=os.environ, stdin=its_input, stdout=its_output, server=server
            )
            os.close(its_input)
            os.close(its_output)
            gateway_base.Popen2IO.__init__(self, open(to_it, "wb"), open(from_it, "rb"), execmodel)  # noqa: SIM115 - open for as long as the process

    gateway_io.Popen2IOMaster = ForkedIO  # type: ignore[misc]  # no hook
