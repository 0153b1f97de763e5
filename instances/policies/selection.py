"""Which instances a policy applies to: all that match its fields, are running, and aren't protected."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from instances.costs.labels import compile_pattern
from instances.inventory.queries import fold
from instances.models import Policy

Shown = Mapping[str, Any]


def select(policy: Policy, listed: Iterable[Shown], protected: Collection[str]) -> Iterator[Shown]:
    """Yield the instances, as the API shows them, that the policy judges."""
    matches = _make_test(policy)
    for shown in listed:
        if shown["group"] == "running" and shown["id"] not in protected and matches(shown):
            yield shown


def _make_test(policy: Policy) -> Callable[[Shown], bool]:
    """Return the test for all fields but the state; text is compared as in the list's filters."""
    pattern = compile_pattern(policy.name_pattern) if policy.name_pattern else None
    gpu, region, owner, project = (fold(getattr(policy, name)) for name in ("gpu", "region", "owner", "project"))

    def matches(shown: Shown) -> bool:
        return (
            (pattern is None or bool(pattern.match(shown["name"])))
            and (not region or region in (fold(shown["region"]), fold(shown["clusterId"])))
            and (not gpu or gpu in fold(shown["productName"]))
            and (not owner or owner == fold(shown["owner"] or ""))
            and (not project or project == fold(shown["project"] or ""))
            and (not policy.billing_mode or policy.billing_mode == shown["billingMode"])
        )

    return matches
