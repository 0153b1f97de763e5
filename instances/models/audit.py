"""The activity: who changed something, or tried to."""

from enum import StrEnum

from django.db import models
from django.utils import timezone


class Action(StrEnum):
    """What an entry can be about. Other commands of manage.py are recorded as `command.<name>`."""

    LOGIN = "login"
    LOGOUT = "logout"
    SYNC = "sync"
    CLEAR_CACHE = "cache.clear"
    ADD_USER = "user.add"
    CHANGE_USER = "user.change"
    CHANGE_PASSWORD = "user.password"  # noqa: S105 - an action's name
    DELETE_USER = "user.delete"
    CREATE_TOKEN = "token.create"  # noqa: S105 - an action's name
    REVOKE_TOKEN = "token.revoke"  # noqa: S105 - an action's name
    SET_PROTECTION = "protection.set"
    REMOVE_PROTECTION = "protection.remove"
    FREEZE_STARTS = "starts.freeze"
    UNFREEZE_STARTS = "starts.unfreeze"
    ADD_POLICY = "policy.add"
    CHANGE_POLICY = "policy.change"
    DELETE_POLICY = "policy.delete"
    CONFIRM_POLICY = "policy.confirm"
    SWITCH_POLICIES = "policies.switch"
    SNOOZE = "finding.snooze"
    UNSNOOZE = "finding.unsnooze"
    CHANGE_CHANNELS = "channels.change"
    SET_ANNOTATION = "annotation.set"
    CHANGE_RULES = "rules.change"
    START_INSTANCE = "instance.start"
    STOP_INSTANCE = "instance.stop"
    RESTART_INSTANCE = "instance.restart"
    START_OPERATION = "operation.start"
    STOP_OPERATION = "operation.stop"
    RESTART_OPERATION = "operation.restart"
    CANCEL_OPERATION = "operation.cancel"
    DISMISS_OPERATION = "operation.dismiss"
    RESEND_WEBHOOK = "webhook.resend"


class AuditEntry(models.Model):
    """One change or attempt. Created once and never changed."""

    at = models.DateTimeField("when", default=timezone.now, db_index=True)
    actor = models.CharField("who", max_length=150, help_text="A user, a shell user, or the worker.")
    address = models.CharField(max_length=45, blank=True)
    request_id = models.CharField(max_length=64, blank=True)
    action = models.CharField(max_length=40, db_index=True, help_text="instance.stop, protection.set, cache.clear, …")
    target = models.CharField(
        max_length=128, blank=True, db_index=True, help_text="For example the id of an instance or operation."
    )
    target_name = models.CharField(max_length=255, blank=True)
    reason = models.TextField(blank=True)
    before = models.CharField(max_length=255, blank=True)
    after = models.CharField(max_length=255, blank=True)
    outcome = models.CharField(max_length=40, help_text="done, or the error code.")
    error = models.TextField(blank=True)

    class Meta:
        ordering = ("-at", "-pk")
        indexes = (models.Index(fields=["actor", "-at"], name="entries_of_an_actor"),)
        verbose_name = "activity entry"
        verbose_name_plural = "activity"

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} UTC {self.action}"
