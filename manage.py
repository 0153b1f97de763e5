#!/usr/bin/env python3
"""Django's command line."""

import os
import sys

from novita_site import streams


def main() -> None:
    streams.make_safe()
    # What other commands print is a result, such as a token.
    is_result = sys.argv[1:2] and sys.argv[1] not in {"migrate", "runserver", "up"}
    streams.write_json_if_wanted("stderr", *([] if is_result else ["stdout"]))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "novita_site.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        # Django itself goes on without settings, and then doesn't know our commands.
        __import__(os.environ["DJANGO_SETTINGS_MODULE"])
    except ImproperlyConfigured as exc:
        sys.exit(str(exc))
    from instances.access.shell import recorded_command
    from instances.monitoring import counters

    try:
        with recorded_command(sys.argv):
            execute_from_command_line(sys.argv)
    finally:
        counters.try_to_flush()


if __name__ == "__main__":
    main()
