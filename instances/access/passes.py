"""Recognizes a visitor whose login or token was checked in full shortly before, with at most one query.

A full check takes three queries and DRF's authentication. Its result depends on the rows that `_SESSION_ROWS` and
`_TOKEN_ROWS` select. While the same rows are there, the result still holds. So a logout, a revoked token, and a
deactivated or demoted user count at the next request.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from django.conf import settings
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone
from knox.crypto import hash_token

from instances.access.proxies import is_local_owner
from instances.access.roles import find_role
from instances.access.visitors import LAST_USE, find_known_owner
from instances.inventory.sharing import Shared
from novita_site.middleware import Handler
from novita_site.roles import Role

# How many logins and tokens a process recognizes.
MAX_PASSES: Final = 1024

# Where a request's environ has its visit.
VISIT: Final = "novita.visit"

_BEARER: Final = re.compile(r"Bearer ([\w-]{16,128})", re.ASCII)

# SQL, since the ORM takes longer to build the query than the database to run it. The first column tells whose rows they
# are, the last one orders them.
_SESSION_ROWS: Final = """
    SELECT s.session_key, s.session_data, u.id, u.username, u.password, u.is_active, u.is_superuser, g.name
    FROM django_session s JOIN auth_user u ON u.id = %s
    LEFT JOIN auth_user_groups i ON i.user_id = u.id LEFT JOIN auth_group g ON g.id = i.group_id
    WHERE s.session_key = %s AND s.expire_date > %s
"""
# A token whose last use was noted more than a minute ago takes the full check, which notes it again.
_TOKEN_ROWS: Final = """
    SELECT t.digest, t.role, u.id, u.username, u.password, u.is_active, u.is_superuser, g.name
    FROM instances_token t JOIN auth_user u ON u.id = t.user_id
    LEFT JOIN auth_user_groups i ON i.user_id = u.id LEFT JOIN auth_group g ON g.id = i.group_id
    WHERE t.digest = %s AND (t.expiry IS NULL OR t.expiry > %s) AND t.last_used_at > %s
"""  # noqa: S105 - SQL, no password
_ORDER: Final = " ORDER BY 1, 8"


@dataclass(frozen=True)
class Credential:
    """What a request shows: a session's key, or the hash of a token."""

    kind: str
    value: str


@dataclass(frozen=True)
class _Pass:
    """A credential that passed the full check. `rows` is None until they were read before such a check."""

    user_id: int
    role: Role
    rows: list[Any] | None


_passes: OrderedDict[Credential, _Pass] = OrderedDict()


class Visit:
    """The visitor of one request. `role` is None if only the full check can tell it."""

    def __init__(self, request: HttpRequest) -> None:
        self.role: Role | None = None
        # Whether the answer depends on the cookies.
        self.needs_cookies = False
        self._credential: Credential | None = None
        self._rows: list[Any] | None = None
        if header := request.META.get("HTTP_AUTHORIZATION"):
            match = _BEARER.fullmatch(header)
            self._recognize(Credential("token", hash_token(match[1])) if match else None)
        elif is_local_owner(request):
            if find_known_owner():
                self.role = Role.ADMIN
        else:
            self.needs_cookies = True
            if key := request.COOKIES.get(settings.SESSION_COOKIE_NAME):
                self._recognize(Credential("session", key))
            else:
                self.role = Role.NONE

    def _recognize(self, credential: Credential | None) -> None:
        """Compare the rows with those of the last full check. An unknown credential causes no query here."""
        self._credential = credential
        known = _passes.get(credential) if credential else None
        if credential and known:
            self._rows = _share_rows((credential, known.user_id))
            if self._rows and self._rows == known.rows:
                self.role = known.role

    def learn(self, request: HttpRequest, *, is_admitted: bool) -> None:
        """Note the result of the full check of this request.

        The rows were read before the check. So a change in between makes them differ at the next request.
        """
        if self._credential is None:
            return
        if not is_admitted or not request.user.is_authenticated:
            _passes.pop(self._credential, None)
            return
        _passes[self._credential] = _Pass(request.user.pk, find_role(request), self._rows)
        while len(_passes) > MAX_PASSES:
            _passes.popitem(last=False)


def learn(get_response: Handler) -> Handler:
    """Note the result of the full check where a visit was not recognized."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if visit := request.META.get(VISIT):
            visit.learn(request, is_admitted=response.status_code in {HTTPStatus.OK, HTTPStatus.NOT_MODIFIED})
        return response

    return middleware


def _read_rows(asked: Sequence[tuple[Credential, int]]) -> list[list[Any] | None]:
    """Return the rows for each credential and its user, one for each group; None when the database can't be read."""
    now, to_database = timezone.now(), connection.ops.adapt_datetimefield_value
    queries, values = [], list[Any]()
    for credential, user_id in dict.fromkeys(asked):
        if credential.kind == "session":
            queries.append(_SESSION_ROWS)
            values += [user_id, credential.value, to_database(now)]
        else:
            queries.append(_TOKEN_ROWS)
            values += [credential.value, to_database(now), to_database(now - LAST_USE)]
    try:
        with connection.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(queries) + _ORDER, values)
            found: list[Any] = cursor.fetchall()
    except DatabaseError:
        return [None] * len(asked)
    # The same session may be asked for with two users, before and after another login.
    return [
        [row for row in found if row[0] == credential.value and (credential.kind == "token" or row[2] == user_id)]
        for credential, user_id in asked
    ]


_share_rows: Final = Shared(_read_rows)


def clear() -> None:
    """Forget every credential of this process."""
    _passes.clear()
