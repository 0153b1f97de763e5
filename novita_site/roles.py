"""The three roles, which OIDC_ROLES may name. `instances/access/roles.py` finds the role of a visitor."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final


class Role(IntEnum):
    """What a user or a token may do. Each role includes the rights of the previous one.

    viewer: read. operator: sync, start, stop, restart, protect. admin: everything.
    """

    NONE = 0
    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def label(self) -> str:
        return self.name.lower()


ROLES: Final[Mapping[str, Role]] = {role.label: role for role in Role if role}
