"""Rename fields and values to the field's terms: requested instead of asked, result instead of verdict."""

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

STATES = {"operation": ("asking", "requesting"), "target": ("asked", "requested")}


def rename_states(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    for model, (old, new) in STATES.items():
        apps.get_model("instances", model).objects.filter(state=old).update(state=new)
    apps.get_model("instances", "auditentry").objects.filter(action="protection.lift").update(action="protection.remove")


def restore_states(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    for model, (old, new) in STATES.items():
        apps.get_model("instances", model).objects.filter(state=new).update(state=old)
    apps.get_model("instances", "auditentry").objects.filter(action="protection.remove").update(action="protection.lift")


class Migration(migrations.Migration):
    # PostgreSQL changes no table that has pending row changes in the same transaction.
    atomic = False

    dependencies = [("instances", "0006_origin_help")]

    operations = [
        migrations.RemoveConstraint("operation", "one_running_operation"),
        migrations.RenameField("operation", "verdict", "result"),
        migrations.RenameField("target", "asked_at", "requested_at"),
        migrations.RenameField("target", "next_ask_at", "next_request_at"),
        migrations.RenameField("target", "seen_at", "read_at"),
        migrations.RunPython(rename_states, restore_states),
        migrations.AddConstraint(
            "operation",
            models.UniqueConstraint(
                fields=["selection"],
                condition=models.Q(state__in=("requesting", "verifying")),
                name="one_running_operation",
            ),
        ),
    ]
