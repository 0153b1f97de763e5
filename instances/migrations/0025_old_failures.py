from datetime import timedelta

from django.db import migrations
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import F


def dismiss_old_failures(apps, schema_editor):
    """Dismiss the failures that nobody could dismiss, since they are older than dismissals.

    Those of the last day before are shown: their instances may still run.
    """
    database = schema_editor.connection.alias
    recorded = MigrationRecorder(schema_editor.connection).applied_migrations()
    since = recorded["instances", "0019_dismissals"].applied - timedelta(days=1)
    operations = apps.get_model("instances", "Operation").objects.using(database)
    old = operations.filter(success=False, dismissed_at=None, finished_at__lt=since)
    old.update(dismissed_at=F("finished_at"))


class Migration(migrations.Migration):

    dependencies = [
        ("instances", "0024_sync_words"),
    ]

    operations = [
        migrations.RunPython(dismiss_old_failures, migrations.RunPython.noop),
    ]
