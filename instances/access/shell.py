"""The record of what a shell's user does by manage.py: every command that may change something leaves an audit entry.

A command that this module doesn't know is recorded: a list of what changes something would be out of date one day.
"""

import getpass
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from django.apps import apps
from django.core.management import get_commands
from django.db import DatabaseError

# These change nothing of the service's. Django itself records what migrate did.
READING: Final = frozenset(
    {
        "check",
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
# These record themselves what they do.
RECORDING: Final = frozenset(["create_token", "stop_all", "sync_instances"])
# Of these the arguments may hold anything, secrets included.
UNNAMED: Final = frozenset(["dbshell", "shell"])


@contextmanager
def recorded_command(arguments: Sequence[str]) -> Iterator[None]:
    """Run the block, which executes `arguments`, and record it with its outcome."""
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
    # Without the apps the command didn't run either.
    if is_requesting or name in READING | RECORDING or not apps.ready or name not in get_commands():
        return
    from instances.access import audit

    entry = audit.make_entry(audit.get_shell_actor(), f"command.{name}"[:40], _find_target(name, arguments[1:]))
    if outcome:
        entry.outcome = outcome[:40]
    audit.save([entry])


def _find_target(name: str, given: Sequence[str]) -> str:
    """Return whom or what a command was about: a user's name, or else its arguments."""
    if name in UNNAMED:
        return ""
    if name == "createsuperuser":
        from django.contrib.auth.models import User

        # It may have asked for the name.
        with suppress(DatabaseError):
            return str(User.objects.latest("pk"))
    if name == "changepassword" and not given:
        return getpass.getuser()
    return " ".join(given)
