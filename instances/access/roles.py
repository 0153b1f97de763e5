"""Which role a visitor has, and the refusal when it is too low. The admin pages' groups have the roles' names."""

from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.http import HttpRequest
from rest_framework import exceptions
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from instances.errors import NotAllowed, NotAuthenticated
from novita_site.roles import ROLES, Role


def get_role(user: AbstractBaseUser | AnonymousUser) -> Role:
    """Return a user's highest role. The database is read once per request."""
    if not isinstance(user, User) or not user.is_active:
        return Role.NONE
    if user.is_superuser:
        return Role.ADMIN
    if not hasattr(user, "_role"):
        names = user.groups.values_list("name", flat=True)
        highest = max((ROLES.get(name, Role.NONE) for name in names), default=Role.NONE)
        user._role = highest  # type: ignore[attr-defined]  # an attribute of our own, for this request
    role: Role = user._role  # type: ignore[attr-defined]  # likewise
    return role


def find_role(request: HttpRequest | Request) -> Role:
    """Return the role of a request: the lower one of its user's role and its token's."""
    role = get_role(request.user)
    token = getattr(request, "auth", None)
    return min(role, ROLES.get(token.role, Role.NONE)) if token is not None else role


class LoginMissing(NotAuthenticated, exceptions.NotAuthenticated):
    """Also DRF's own class: its browsable pages try each method to choose the forms, and catch only that."""


class RoleTooLow(NotAllowed, exceptions.PermissionDenied):
    """Also DRF's own class, likewise."""


def require(request: HttpRequest | Request, role: Role) -> None:
    """Raise NotAuthenticated for a visitor without a login, and NotAllowed when the role is too low."""
    if not request.user.is_authenticated:
        raise LoginMissing
    if find_role(request) < role:
        raise RoleTooLow(f"This needs the role {role.label}.", suggestion="Ask an admin for that role.")


class RoleRequired(BasePermission):
    """Requires the role that a view's `roles` gives for its action; without an entry, viewer to read and else admin.

    A method that the view doesn't have passes. Its answer is 405.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        action = getattr(view, "action", None) or ""
        is_read = request.method in {"GET", "HEAD", "OPTIONS"}
        has_method = hasattr(view, (request.method or "").lower())
        default = Role.VIEWER if is_read or not has_method else Role.ADMIN
        require(request, getattr(view, "roles", {}).get(action, default))
        return True
