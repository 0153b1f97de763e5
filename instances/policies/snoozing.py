"""Snoozes: somebody keeps an instance from a policy for a while, by the page, by the API, or by a link in a message."""

import logging
import uuid
from datetime import datetime, time, timedelta
from http import HTTPStatus
from typing import Final
from zoneinfo import ZoneInfo

from django.core import signing
from django.db import transaction
from django.utils import timezone

from instances.access import audit
from instances.access.audit import Actor
from instances.errors import FindingEnded, FindingNotFound, InvalidRequest, LinkNotValid, PanelError
from instances.instance import clean_text, format_time
from instances.models import Action, Finding, FindingState, FindingStep, Snooze, SnoozeLink
from novita_site.log import Fields

log = logging.getLogger(__name__)

MAX_SNOOZE: Final = timedelta(days=366)
LINK_AGE: Final = timedelta(days=2)
TOMORROW: Final = "tomorrow"
DATE: Final = "date"
PRESETS: Final = {"1h": timedelta(hours=1), "4h": timedelta(hours=4)}
_MORNING: Final = time(9)
# A link offers so many days; the page offers as many (list/findings.js).
SHOWN_DAYS: Final = 30
_SALT: Final = "snooze link"
# A stop that is requested can't be snoozed.
_SNOOZABLE: Final = (FindingState.WARNED, FindingState.DUE, FindingState.UNKNOWN, FindingState.SNOOZED)


def find_end(preset: str, zone: str = "") -> datetime:
    """Return the end of a snooze of "1h", "4h" or until "tomorrow" at 09:00 in the zone (default: UTC)."""
    now = timezone.now()
    if preset in PRESETS:
        return now + PRESETS[preset]
    return list_mornings(zone)[0]


def list_mornings(zone: str = "") -> list[datetime]:
    """Return 09:00 in the zone (default: UTC) of each of the next days, from tomorrow on."""
    local = timezone.now().astimezone(_read_zone(zone))
    days = [local.date() + timedelta(days=number) for number in range(1, SHOWN_DAYS + 1)]
    return [datetime.combine(day, _MORNING, local.tzinfo) for day in days]


def _read_zone(name: str) -> ZoneInfo:
    """Return a policy's time zone; UTC without one, and for one that this machine doesn't have."""
    try:
        return ZoneInfo(name or "UTC")
    except (KeyError, ValueError, OSError) as exc:
        log.warning("UTC is used in place of a policy's time zone: %s", exc)
        return ZoneInfo("UTC")


def get(finding_id: int | str) -> Finding:
    """Raises FindingNotFound."""
    is_id = str(finding_id).isascii() and str(finding_id).isdecimal() and len(str(finding_id)) < 19
    finding = Finding.objects.select_related("policy").filter(pk=finding_id).first() if is_id else None
    if finding is None:
        raise FindingNotFound
    return finding


def snooze(finding: Finding, until: datetime, reason: str, *, actor: Actor) -> Snooze:
    """Keep the finding's instance from its policy until a time.

    Raises InvalidRequest for a time that has passed or is too far away, and FindingEnded when the stop is requested
    already or the finding has ended.
    """
    now = timezone.now()
    if until <= now:
        raise InvalidRequest(fields={"until": "This time has passed. Name a later one."})
    if until > now + MAX_SNOOZE:
        raise InvalidRequest(fields={"until": "Name a time within a year."})
    with audit.recorded(actor, Action.SNOOZE, finding.instance_id, reason=reason) as entry:
        entry.target_name, entry.after = finding.name, f"{finding.policy_name}: until {format_time(until)}"
        snoozed = Snooze(
            policy=finding.policy,
            instance_id=finding.instance_id,
            name=finding.name,
            until=until,
            by=actor.name[:150],
            reason=clean_text(reason, 500),
        )
        with transaction.atomic():
            own = Snooze.objects.filter(policy=finding.policy, instance_id=finding.instance_id, removed_at=None)
            own.update(removed_at=now, removed_by=actor.name[:150])
            snoozed.save()
            open_one = Finding.objects.filter(pk=finding.pk, ended_at=None, state__in=_SNOOZABLE)
            if not open_one.update(state=FindingState.SNOOZED, stops_at=None, due_at=None, obstacle=""):
                raise FindingEnded
            FindingStep.objects.create(
                finding=finding,
                state=FindingState.SNOOZED,
                by=actor.name[:150],
                reason=f"Snoozed until {format_time(until)}{f': {snoozed.reason}' if snoozed.reason else ''}",
            )
    log.info("policy %s snoozed%s", finding.policy_name, Fields(id=finding.instance_id or "-", by=actor.name))
    return snoozed


def unsnooze(finding: Finding, *, actor: Actor) -> bool:
    """End the snooze of a finding's instance; its warning begins again. Returns False when there is none."""
    now = timezone.now()
    in_force = Snooze.objects.filter(
        policy=finding.policy, instance_id=finding.instance_id, removed_at=None, until__gt=now
    )
    with audit.recorded(actor, Action.UNSNOOZE, finding.instance_id) as entry:
        entry.target_name, entry.before = finding.name, finding.policy_name
        return bool(in_force.update(removed_at=now, removed_by=actor.name[:150]))


# --- Links


def make_link(finding: Finding) -> str:
    """Return the signed part of an address that snoozes the finding once, within two days."""
    link = SnoozeLink.objects.create(finding=finding, expires_at=timezone.now() + LINK_AGE)
    return signing.Signer(salt=_SALT).sign(link.pk.hex)


def open_link(signed: str) -> tuple[SnoozeLink | None, str]:
    """Return a link that may still be used; None for another, and a sentence for the person."""
    try:
        return read_link(signed), ""
    except PanelError as exc:
        return None, _say_error(exc)


def read_link(signed: str) -> SnoozeLink:
    """Return a link that may still be used. Raises LinkNotValid, and FindingEnded when nothing is left to snooze."""
    try:
        link_id = uuid.UUID(signing.Signer(salt=_SALT).unsign(signed))
    except (signing.BadSignature, ValueError) as exc:
        raise LinkNotValid from exc
    link = SnoozeLink.objects.select_related("finding__policy").filter(pk=link_id).first()
    if link is None or link.used_at is not None or link.expires_at <= timezone.now():
        raise LinkNotValid
    if link.finding.ended_at is not None or link.finding.state not in _SNOOZABLE:
        raise FindingEnded
    return link


def find_link_zone(link: SnoozeLink) -> str:
    """Return the time zone of the mornings that a link offers."""
    return _read_zone(link.finding.policy.time_zone if link.finding.policy else "").key


def use_link(signed: str, preset: str, day: str = "", *, actor: Actor) -> tuple[HTTPStatus, str]:
    """Snooze by a link, which is then used up. Return 200, 400 or 410, and a sentence for the person.

    `day` is that of one of the mornings, for the preset DATE. 400: the link may be used for another day.
    """
    try:
        link = read_link(signed)
        zone = find_link_zone(link)
        until = _find_morning(day, zone) if preset == DATE else find_end(preset, zone)
        with transaction.atomic():
            unused = SnoozeLink.objects.filter(pk=link.pk, used_at=None)
            if not unused.update(used_at=timezone.now()):
                raise LinkNotValid
            snoozed = snooze(link.finding, until, "by the link in a message", actor=actor)
    except PanelError as exc:
        return HTTPStatus.BAD_REQUEST if isinstance(exc, InvalidRequest) else HTTPStatus.GONE, _say_error(exc)
    return HTTPStatus.OK, f"{snoozed.name or 'The account'} is snoozed until {format_time(snoozed.until)}."


def _find_morning(day: str, zone: str) -> datetime:
    """Return the morning of a day, "2026-01-15". Raises InvalidRequest for a day that is not offered."""
    found = [morning for morning in list_mornings(zone) if morning.date().isoformat() == day]
    if not found:
        raise InvalidRequest(fields={"until": f"Name one of the next {SHOWN_DAYS} days."})
    return found[0]


def _say_error(exc: PanelError) -> str:
    reasons = exc.fields.values() if isinstance(exc, InvalidRequest) else ()
    return " ".join(filter(None, [exc.message, *reasons, exc.suggestion]))
