"""Which role a visitor has, and the refusal when it is too low. The admin pages' groups have the roles' names."""

from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.http import HttpRequest
from rest_framework import exceptions
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from instances.errors import NotAllowed, NotAuthenticated
from instances.role import ROLES, Role


def get_role(user: AbstractBaseUser | AnonymousUser) -> Role:
    """Return a user's highest role; asked once for each request."""
    if not isinstance(user, User) or not user.is_active:
        return Role.NONE
    if user.is_superuser:
        return Role.ADMIN
    if not hasattr(user, "_role"):
        names = user.groups.values_list("name", flat=True)
        highest = max((ROLES.get(name, Role.NONE) for name in names), default=Role.NONE)
        user._role = highest  # type: ignore[attr-defined]  # our own mark on this request's user
    role: Role = user._role  # type: ignore[attr-defined]  # likewise
    return role


def find_role(request: HttpRequest | Request) -> Role:
    """Return the role that a request has: its token's, when that is lower than its user's."""
    role = get_role(request.user)
    token = getattr(request, "auth", None)
    return min(role, ROLES.get(token.role, Role.NONE)) if token is not None else role


class LoginMissing(NotAuthenticated, exceptions.NotAuthenticated):
    """DRF's own, too: its pages try out who may, to show the forms of what one may do, and know no other."""


class RoleTooLow(NotAllowed, exceptions.PermissionDenied):
    """Likewise."""


def require(request: HttpRequest | Request, role: Role) -> None:
    """Raise NotAuthenticated for a visitor whom nobody knows, and NotAllowed for one whose role is too low."""
    if not request.user.is_authenticated:
        raise LoginMissing
    if find_role(request) < role:
        raise RoleTooLow(f"This needs the role {role.label}.", suggestion="Ask an admin for it.")


class RoleRequired(BasePermission):
    """Asks a view for the role that its action needs: `roles` names them; what it doesn't name is an admin's.

    Reading needs a viewer. A method that the view doesn't have is let through, to be told so.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        action = getattr(view, "action", None) or ""
        is_read = request.method in {"GET", "HEAD", "OPTIONS"}
        has_method = hasattr(view, (request.method or "").lower())
        default = Role.VIEWER if is_read or not has_method else Role.ADMIN
        require(request, getattr(view, "roles", {}).get(action, default))
        return True
