"""`manage.py notify --test`: sends a test to every channel, and says which took it."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from instances.models import EventKind, Message
from instances.notifications import events, sending


class Command(BaseCommand):
    help = (
        "Send a test to every service of NOTIFY_URLS and every notification channel, and say which took it. "
        "Exit status 0: all did. 1: one did not, or there is none."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--test", action="store_true", required=True, help="send the test")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._test()
        except DatabaseError as exc:
            raise CommandError(f"The database can't be used: {exc}.") from exc

    def _test(self) -> None:
        if not events.is_heard(EventKind.TEST):
            raise CommandError(
                "There is no channel: set NOTIFY_URLS, or add one under Notification channels in /admin/."
            )
        event = events.tell(
            EventKind.TEST, "command", "Test of Novita panel", ["This channel works."], is_repeated=True
        )
        if event is None:
            raise CommandError("Nothing was sent: the test can't be recorded in the database. The log says why.")
        failed = 0
        for message in event.messages.select_related("channel"):
            sending.send(message.pk)
            message.refresh_from_db()
            name = message.channel or message.service
            if message.state == Message.State.SENT:
                self.stdout.write(f"{name}: sent")
                continue
            failed += 1
            attempt = message.attempts.first()
            self.stdout.write(f"{name}: {attempt.error if attempt else 'not sent'}")
            # Somebody looks at this one now; it isn't repeated later.
            message.state = Message.State.DEAD
            message.save(update_fields=["state"])
        if failed:
            raise CommandError(f"{failed} of {event.messages.count()} channels did not take the test.")
