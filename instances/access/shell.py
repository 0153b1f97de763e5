"""Writes an audit entry for each manage.py command that may change something.

Unknown commands are recorded too, because a list of the commands that change something would be out of date one day.
"""

import getpass
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from django.apps import apps
from django.core.management import get_commands
from django.db import DatabaseError

# These change none of the service's data. Django itself records migrations.
READING: Final = frozenset(
    {
        "check",
        "check_worker",
        "collectstatic",
        "compilemessages",
        "diffsettings",
        "dumpdata",
        "findstatic",
        "help",
        "inspectdb",
        "makemessages",
        "makemigrations",
        "migrate",
        "novita_simulator",
        "optimizemigration",
        "runserver",
        "sendtestemail",
        "showmigrations",
        "spectacular",
        "sqlflush",
        "sqlmigrate",
        "sqlsequencereset",
        "squashmigrations",
        "startapp",
        "startproject",
        "test",
        "testserver",
        "up",
        "version",
    }
)
# These write their own entries.
RECORDING: Final = frozenset(["create_token", "stop_all", "sync_instances"])
# The arguments of these can contain secrets.
UNNAMED: Final = frozenset(["dbshell", "shell"])


@contextmanager
def recorded_command(arguments: Sequence[str]) -> Iterator[None]:
    """Run the block, which executes `arguments`, and record the command with its outcome."""
    outcome = ""
    try:
        yield
    except SystemExit as exc:
        outcome = f"exit status {exc.code}" if exc.code else ""
        raise
    except BaseException as exc:
        outcome = type(exc).__name__
        raise
    finally:
        _record(arguments[1:], outcome)


def _record(arguments: Sequence[str], outcome: str) -> None:
    name = arguments[0] if arguments else "help"
    is_requesting = not {"--help", "-h", "--version"}.isdisjoint(arguments)
    # The command did not run if the apps are not loaded.
    if is_requesting or name in READING | RECORDING or not apps.ready or name not in get_commands():
        return
    from instances.access import audit

    entry = audit.make_entry(audit.get_shell_actor(), f"command.{name}"[:40], _find_target(name, arguments[1:]))
    if outcome:
        entry.outcome = outcome[:40]
    audit.save([entry])


def _find_target(name: str, given: Sequence[str]) -> str:
    """Return the user's name that a command was about, or its arguments."""
    if name in UNNAMED:
        return ""
    if name == "createsuperuser":
        from django.contrib.auth.models import User

        # The command may have prompted for the name.
        with suppress(DatabaseError):
            return str(User.objects.latest("pk"))
    if name == "changepassword" and not given:
        return getpass.getuser()
    return " ".join(given)
