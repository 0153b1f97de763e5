"""Policies: which instances are warned of and stopped by themselves, and what each policy found."""

import uuid

from django.db import models
from django.utils import timezone


class Policy(models.Model):
    """One rule, and the instances it applies to."""

    class Mode(models.TextChoices):
        OBSERVE = "observe", "observe: record what it would do and save"
        NOTIFY = "notify", "notify: warn people"
        STOP = "stop", "stop: warn people, then stop"

    class Rule(models.TextChoices):
        IDLE = "idle", "idle: no work for some time"
        LEASE = "lease", "lease: running for too long"
        SCHEDULE = "schedule", "schedule: running outside the allowed hours"
        BUDGET = "budget", "budget: the team spends too much"

    name = models.CharField(max_length=100, unique=True)
    mode = models.CharField(max_length=10, choices=Mode, default=Mode.OBSERVE)
    is_on = models.BooleanField("switched on", default=True)

    # What it applies to. An empty field applies to all. Protected instances are never included.
    name_pattern = models.CharField(
        max_length=255,
        blank=True,
        help_text="The whole name; * stands for any characters, ? for one, and case is ignored: train-*",
    )
    region = models.CharField(max_length=128, blank=True, help_text="The full name of a region, or id of a cluster.")
    gpu = models.CharField("GPU", max_length=128, blank=True, help_text="Part of the product's name: A100.")
    owner = models.CharField(max_length=100, blank=True)
    project = models.CharField(max_length=100, blank=True)
    billing_mode = models.CharField(
        "billing mode", max_length=32, blank=True, choices=[(mode, mode) for mode in ("onDemand", "spot", "monthly")]
    )

    rule = models.CharField(max_length=10, choices=Rule)
    threshold_percent = models.FloatField(
        "idle: threshold in percent", default=5, help_text="Utilization up to this value counts as idle."
    )
    window_minutes = models.PositiveIntegerField("idle: minutes without work", default=60)
    start_grace_minutes = models.PositiveIntegerField(
        "idle: minutes after a start", default=30, help_text="Not judged within this time after a start."
    )
    max_hours = models.FloatField("lease: hours since the last start", null=True, blank=True)
    hours = models.CharField(
        "schedule: allowed hours",
        max_length=500,
        blank=True,
        help_text="Weekly: Mon-Fri 08:00-20:00, Sat 10:00-14:00",
    )
    time_zone = models.CharField(
        "schedule: time zone", max_length=64, blank=True, help_text="A name such as Europe/Berlin."
    )
    excepted_days = models.CharField(
        "schedule: days without allowed hours",
        max_length=500,
        blank=True,
        help_text="Dates and ranges: 2026-12-24, 2026-12-31..2027-01-01",
    )
    hand_start_hours = models.FloatField(
        "schedule: hours after a start by hand",
        default=2,
        help_text="An instance that somebody starts outside the allowed hours is judged after this time.",
    )
    max_usd_per_hour = models.FloatField("budget: USD per hour", null=True, blank=True)
    min_runway_hours = models.FloatField("budget: hours that the balance must last", null=True, blank=True)

    warning_minutes = models.PositiveIntegerField(
        "minutes between warning and stop",
        default=30,
        help_text="A stop comes this long after its warning at the earliest.",
    )
    max_stops_per_hour = models.PositiveIntegerField(
        default=10, help_text="Further instances are left running, and people are asked."
    )
    stop_confirmed_by = models.CharField(
        "stop confirmed by",
        max_length=150,
        blank=True,
        help_text="The admin who typed the name of this budget policy, so that it may stop instances.",
    )
    # Each change counts up. A finding of an earlier version starts again with a warning.
    version = models.PositiveIntegerField(default=1)
    changed_by = models.CharField("changed by", max_length=150, blank=True)
    changed_at = models.DateTimeField("changed", default=timezone.now)

    class Meta:
        ordering = ("name",)
        verbose_name_plural = "policies"

    def __str__(self) -> str:
        return self.name


class FindingState(models.TextChoices):
    WARNED = "warned", "warned"
    DUE = "due", "due"
    STOPPING = "stopping", "stopping"
    STOPPED = "stopped", "stopped"
    SNOOZED = "snoozed", "snoozed"
    UNKNOWN = "unknown", "unknown"
    CLEARED = "cleared", "cleared"


class Finding(models.Model):
    """What a policy found about one instance, from the first warning to the end. Without a finding all is well.

    A budget policy has one finding for the whole account, without an instance.
    """

    State = FindingState

    policy = models.ForeignKey(Policy, models.SET_NULL, null=True, related_name="findings")
    policy_name = models.CharField("policy", max_length=100)
    policy_version = models.PositiveIntegerField()
    mode = models.CharField(max_length=10, choices=Policy.Mode)
    instance_id = models.CharField(max_length=128, blank=True, db_index=True)
    name = models.CharField(max_length=255, blank=True)
    started = models.CharField(
        "last start", max_length=20, blank=True, help_text="The run it is about. A later start ends the finding."
    )
    state = models.CharField(max_length=10, choices=State)
    reason = models.TextField(help_text="Why the policy warns, or why it no longer does.")
    obstacle = models.TextField(blank=True, help_text="Why it is not stopped although it is due.")
    since = models.DateTimeField(null=True, help_text="Since when the rule is broken, as far as known.")
    usd_per_hour = models.DecimalField(
        "USD per hour", max_digits=12, decimal_places=5, null=True, help_text="What a stop saves; empty: not known."
    )
    began_at = models.DateTimeField("began", default=timezone.now, db_index=True)
    warned_at = models.DateTimeField("warned", null=True)
    stops_at = models.DateTimeField("stops", null=True, help_text="When the stop is planned.")
    due_at = models.DateTimeField("due", null=True)
    stopping_at = models.DateTimeField("stop requested", null=True)
    ended_at = models.DateTimeField("ended", null=True, db_index=True)
    operation_id = models.UUIDField(null=True, help_text="The operation that stops it.")
    # Times of the watch (see EvaluationState), in seconds.
    warned_watch = models.FloatField(default=0)
    stopping_watch = models.FloatField(null=True)

    class Meta:
        ordering = ("-began_at", "-pk")
        verbose_name = "policy finding"
        constraints = [
            models.UniqueConstraint(
                fields=["policy", "instance_id"], condition=models.Q(ended_at=None), name="one_open_finding"
            )
        ]

    def __str__(self) -> str:
        return f"{self.policy_name}: {self.name or self.instance_id or 'the account'}"


class FindingStep(models.Model):
    """One change of a finding's state."""

    finding = models.ForeignKey(Finding, models.CASCADE, related_name="steps")
    at = models.DateTimeField("when", default=timezone.now, db_index=True)
    state = models.CharField(max_length=10, choices=FindingState)
    by = models.CharField("who", max_length=150, blank=True, help_text="Empty: the policy itself.")
    reason = models.TextField(blank=True)
    # Of a requested stop: when, by the watch, and of how many instances. The hourly limit counts these.
    watch = models.FloatField(null=True)
    stopped = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ("at", "pk")

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} UTC {self.state}"


class Snooze(models.Model):
    """Somebody keeps an instance from a policy until a time. Without a policy: from all of them."""

    policy = models.ForeignKey(Policy, models.CASCADE, null=True, related_name="snoozes")
    instance_id = models.CharField(max_length=128, blank=True, db_index=True)
    name = models.CharField(max_length=255, blank=True)
    until = models.DateTimeField()
    by = models.CharField("snoozed by", max_length=150)
    reason = models.TextField(blank=True)
    at = models.DateTimeField("when", default=timezone.now, db_index=True)
    removed_at = models.DateTimeField("removed", null=True)
    removed_by = models.CharField("removed by", max_length=150, blank=True)

    class Meta:
        ordering = ("-at", "-pk")

    def __str__(self) -> str:
        return f"{self.name or self.instance_id} until {self.until:%Y-%m-%d %H:%M} UTC"


class SnoozeLink(models.Model):
    """A link in a message that snoozes one finding, once. The link is this id, signed."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    finding = models.ForeignKey(Finding, models.CASCADE, related_name="links")
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"link for {self.finding}"


class EvaluationState(models.Model):
    """The evaluation of all policies: a single row.

    `watch_seconds` counts the seconds in which workers watched, by their steady clocks. It stands still while no worker
    runs, and a wall clock that jumps doesn't move it: grace periods and hourly limits are counted by it.
    """

    watch_seconds = models.FloatField(default=0)
    evaluated_at = models.DateTimeField(null=True)
    claim = models.CharField(max_length=36, blank=True)
    claimed_until = models.DateTimeField(null=True)
    is_switched_off = models.BooleanField("acting is switched off", default=False)
    switched_by = models.CharField(max_length=150, blank=True)
    switched_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return "off" if self.is_switched_off else "on"

    @classmethod
    def is_off(cls) -> bool:
        """Tell whether somebody has switched all acting off. Raises DatabaseError."""
        return cls.objects.filter(is_switched_off=True).exists()
