"""`manage.py create_token`."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from instances.access.audit import get_shell_actor
from instances.access.roles import get_role
from instances.access.tokens import DEFAULT_DAYS, MAX_DAYS, create_token
from instances.instance import clean_text
from novita_site.roles import ROLES, Role


class Command(BaseCommand):
    help = "Create a token for a user's script and print it. It is shown only once, because only its hash is stored."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", help="the owner; the token's role is never higher than the owner's")
        parser.add_argument("--name", required=True, help="the purpose of the token")
        parser.add_argument(
            "--role", choices=list(ROLES), default=Role.VIEWER.label, help="the token's role (default: %(default)s)"
        )
        parser.add_argument(
            "--days", type=int, default=DEFAULT_DAYS, help="days until it expires (default: %(default)s)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not 1 <= options["days"] <= MAX_DAYS:
            raise CommandError(f"--days must be from 1 to {MAX_DAYS}, not {options['days']}.", returncode=2)
        if not 0 < len(options["name"]) <= 100:
            raise CommandError("--name must have 1 to 100 characters.", returncode=2)
        name, username = clean_text(options["name"]), clean_text(options["username"])
        try:
            user = User.objects.get(username=username, is_active=True)
            if ROLES[options["role"]] > get_role(user):
                raise CommandError(f"{user.username}'s role is lower than this: {get_role(user).label}.")
            token, text = create_token(user, name, options["role"], options["days"], actor=get_shell_actor())
        except User.DoesNotExist as exc:
            raise CommandError(f"There is no active user {username!r}.") from exc
        except DatabaseError as exc:
            raise CommandError(
                f"The database can't be used: {exc}. Run `manage.py migrate` if tables are missing."
            ) from exc
        self.stdout.write(text)
        self.stderr.write(f"The token {token.name!r} expires on {token.expiry:%Y-%m-%d}. It is not shown again.")
