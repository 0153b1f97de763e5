"""Start, stop, restart of one instance.

Novita only takes an order, so an action reports "initiated", and the copy shows what Novita says until a fresh read
shows the effect. An answer that got lost, or that contradicts itself, is resolved by reading the instance.
"""

import dataclasses
import logging
from dataclasses import dataclass
from typing import Final

from instances import cache
from instances.errors import (
    CacheUnavailable,
    InstanceNotFound,
    InvalidState,
    InvalidStateChange,
    NotFoundAtNovita,
    NovitaBadAnswer,
    NovitaError,
    NovitaTimeout,
    NovitaUnavailable,
    PanelError,
)
from instances.instance import ActionName, Group, Instance, from_json
from instances.novita import Budget, Novita, get_novita

log = logging.getLogger(__name__)

ACTION_SECONDS: Final = 45
SECOND_LOOK_SECONDS: Final = 1
MAX_ID_LENGTH: Final = 128


@dataclass(frozen=True)
class _Rule:
    """The status that Novita gives first, and the groups that show the action asked or done."""

    first_status: str
    effects: tuple[Group, ...]


_RULES: Final[dict[ActionName, _Rule]] = {
    "start": _Rule("toStart", ("starting", "running")),
    "stop": _Rule("toStop", ("stopping", "stopped")),
    "restart": _Rule("toRestart", ("starting",)),
}


@dataclass(frozen=True)
class ActionResult:
    """`is_initiated` is False when the instance was already so, and nothing was asked."""

    instance: Instance
    is_initiated: bool
    message: str


def act(action: ActionName, instance_id: str, *, requested_by: str = "") -> ActionResult:
    """Ask Novita for an action on an instance, and show its new status in the copy at once.

    Raises InstanceNotFound, InvalidState when the status doesn't allow it, NovitaError when Novita did not take it or
    it can't be told whether it did, and CacheUnavailable before anything is asked.
    """
    try:
        result = _act(action, instance_id, get_novita(), Budget(ACTION_SECONDS))
    except PanelError as exc:
        log.info(
            "action %s id=%.64s by=%s outcome=%s error=%r", action, instance_id, requested_by, exc.code, exc.message
        )
        raise
    outcome = "initiated" if result.is_initiated else "already"
    log.info(
        "action %s id=%s by=%s outcome=%s status=%s", action, instance_id, requested_by, outcome, result.instance.status
    )
    return result


def _act(action: ActionName, instance_id: str, novita: Novita, budget: Budget) -> ActionResult:
    if not instance_id or len(instance_id) > MAX_ID_LENGTH or not instance_id.isprintable():
        raise InstanceNotFound
    _, shown = cache.find_instance(instance_id)
    before = from_json(shown) if shown else None
    if before is None or action not in before.actions:
        # The copy may be old: it must neither forbid a stop nor call something stopped that was started meanwhile.
        before = _read(instance_id, novita, budget)
        if before.group in _RULES[action].effects:
            return ActionResult(before, False, f"{_call(before)} is already {before.status}")
        if action not in before.actions:
            raise InvalidState(
                f"{_call(before)} is {before.status}: a {action} is not possible now.", suggestion=_suggest(before)
            )
    try:
        state = novita.ask(action, instance_id, budget)
    except NotFoundAtNovita as exc:
        _remove(instance_id)
        raise InstanceNotFound from exc
    except (NovitaTimeout, NovitaUnavailable, NovitaBadAnswer, InvalidStateChange) as exc:
        after = _find_effect(action, before, exc, novita, budget)
    else:
        after = dataclasses.replace(before, status=state or _RULES[action].first_status)
        _write(after)
    return ActionResult(after, True, f"{action.capitalize()} initiated for {_call(after)}")


def _find_effect(action: ActionName, before: Instance, error: NovitaError, novita: Novita, budget: Budget) -> Instance:
    """Read the instance after an answer that tells nothing; return it if it shows the effect, else raise the truth."""
    try:
        after = _read(before.id, novita, budget)
        if not _shows_effect(action, before, after):
            budget.pause(SECOND_LOOK_SECONDS)
            after = _read(before.id, novita, budget)
    except NovitaError as unread:
        error.message += " Whether it was done is not known: the instance can't be read either."
        error.suggestion = "Look again in a minute before you repeat it."
        raise error from unread
    if _shows_effect(action, before, after):
        return after
    error.message += f" {_call(after)}, read just now, is {after.status}."
    error.suggestion = _suggest(after)
    raise error


def _shows_effect(action: ActionName, before: Instance, after: Instance) -> bool:
    # An instance that runs again may have restarted or not; only a later start tells.
    has_restarted = action == "restart" and after.last_started_at != before.last_started_at
    return after.group in _RULES[action].effects or (after.group == "running" and has_restarted)


def _call(instance: Instance) -> str:
    return instance.name or instance.id


def _suggest(instance: Instance) -> str:
    if instance.actions:
        return f"Possible now: {', '.join(instance.actions)}."
    if instance.group in {"starting", "stopping"}:
        return "Wait until it rests; the copy follows it every few seconds."
    return "No action is possible in this status."


def _read(instance_id: str, novita: Novita, budget: Budget) -> Instance:
    try:
        instance = novita.get_instance(instance_id, budget)
    except NotFoundAtNovita as exc:
        _remove(instance_id)
        raise InstanceNotFound from exc
    _write(instance)
    return instance


def _write(instance: Instance) -> None:
    """Show an instance's new status. What Novita was asked stands, so a failure here is only logged."""
    try:
        cache.write_instance(instance)
    except CacheUnavailable as exc:
        log.warning("the copy does not show %s of %s yet: %s", instance.status, instance.id, exc)


def _remove(instance_id: str) -> None:
    try:
        cache.remove_instance(instance_id)
    except CacheUnavailable as exc:
        log.warning("the copy still shows %s, which is gone: %s", instance_id, exc)
