"""The ledger: which instance was in which charged state, when, and at which price.

Times are in milliseconds since 1970 and prices in 1e-10 USD per hour: sums are exact on every database, and a row is
small.
"""

from datetime import UTC, datetime

from django.db import models

PRICE_UNITS_PER_USD = 10**10


class MeteredInstance(models.Model):
    """An instance that the ledger has seen, as it was last."""

    instance_id = models.CharField(max_length=128, unique=True)
    name = models.CharField(max_length=255, blank=True)
    product_id = models.CharField("product id", max_length=128, blank=True)
    gpu = models.CharField("GPU", max_length=128, blank=True)
    region = models.CharField(max_length=128, blank=True)
    billing_mode = models.CharField("billing mode", max_length=32, blank=True)

    class Meta:
        ordering = ("name", "instance_id")

    def __str__(self) -> str:
        return self.name or self.instance_id


class UsageInterval(models.Model):
    """A time in which one instance's state and price did not change. The intervals of an instance never overlap."""

    class State(models.IntegerChoices):
        GPU = 1, "GPU charged"
        STORAGE = 2, "storage charged"
        NOTHING = 3, "not charged yet"
        GAP = 4, "not observed"

    instance = models.ForeignKey(MeteredInstance, models.CASCADE, related_name="intervals", db_index=False)
    state = models.PositiveSmallIntegerField(choices=State)
    began_ms = models.BigIntegerField("began")
    ended_ms = models.BigIntegerField("ended", null=True, help_text="Empty: until the last observation.")
    price = models.BigIntegerField(null=True, help_text="In 1e-10 USD per hour; empty: not known.")
    gpus = models.PositiveIntegerField("GPUs", default=0)
    is_inferred = models.BooleanField(
        "inferred", default=False, help_text="Not observed, but known from the times of the last start and stop."
    )

    class Meta:
        ordering = ("-began_ms", "-pk")
        constraints = [
            models.UniqueConstraint(
                fields=["instance"], condition=models.Q(ended_ms=None), name="one_open_interval_an_instance"
            )
        ]
        indexes = [
            models.Index(fields=["ended_ms", "began_ms"], name="usage_time"),
            models.Index(fields=["instance", "began_ms"], name="usage_instance"),
        ]

    def __str__(self) -> str:
        return f"{self.get_state_display()} from {self.began_at:%Y-%m-%d %H:%M:%S} UTC"

    @property
    def began_at(self) -> datetime:
        return datetime.fromtimestamp(self.began_ms / 1000, UTC)

    @property
    def ended_at(self) -> datetime | None:
        return None if self.ended_ms is None else datetime.fromtimestamp(self.ended_ms / 1000, UTC)


class HourSums(models.Model):
    """The sums of all instances in one hour (UTC), as `costs.reports.Sums` has them: reports need not add them up."""

    began_ms = models.BigIntegerField("began", primary_key=True)
    # As JSON, since no integer of a database holds them.
    sums = models.JSONField()

    def __str__(self) -> str:
        return f"hour from {datetime.fromtimestamp(self.began_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


class LedgerState(models.Model):
    """The first and the last observation of the account: a single row."""

    began_ms = models.BigIntegerField(null=True, help_text="When the first recorded synchronization began to read.")
    observed_ms = models.BigIntegerField(help_text="When the last recorded synchronization began to read.")
    summed_ms = models.BigIntegerField(null=True, help_text="The hours before are summed.")
    digest = models.CharField(max_length=64, help_text="Identifies everything that the ledger records of the account.")

    def __str__(self) -> str:
        return f"observed until {datetime.fromtimestamp(self.observed_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
