"""Owner and project of an instance. Novita has no labels, so the panel keeps them.

An annotation by hand overrides all rules; of the rules, the first whose pattern matches the name counts.
"""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from instances.models import Annotation, LabelRule


class Labels(NamedTuple):
    owner: str | None = None
    project: str | None = None


@dataclass(frozen=True)
class LabelBook:
    """All annotations by instance, and all rules in their order."""

    annotations: Mapping[str, Labels]
    rules: Sequence[tuple[re.Pattern[str], Labels]]

    def find(self, instance_id: str, name: str) -> Labels:
        by_hand = self.annotations.get(instance_id)
        if by_hand:
            return by_hand
        return next((labels for pattern, labels in self.rules if pattern.match(name)), Labels())


def read_book() -> LabelBook:
    """Read annotations and rules. Raises DatabaseError."""
    annotations = Annotation.objects.exclude(owner="", project="").values_list("instance_id", "owner", "project")
    rules = LabelRule.objects.values_list("pattern", "owner", "project")
    return LabelBook(
        {id_: make_labels(owner, project) for id_, owner, project in annotations},
        [(compile_pattern(pattern), make_labels(owner, project)) for pattern, owner, project in rules],
    )


def make_labels(owner: str, project: str) -> Labels:
    return Labels(owner or None, project or None)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the pattern of a rule as a regular expression; only * and ? are special."""
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]")), re.IGNORECASE)
