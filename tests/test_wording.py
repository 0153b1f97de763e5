"""Each state of a target has one sentence, the same for page, command, webhook and record."""

import pytest
from django.utils import timezone

from instances.errors import InvalidStateChange, NovitaRejectedKey
from instances.instance import STATUSES
from instances.models import Operation, Target
from instances.operations import wording

REFUSED = "Novita refused."


def say(kind: str = "stop", *, is_finished: bool = False, operation_state: str = "verifying", **fields: object) -> str:
    operation = Operation(kind=kind, state=operation_state, finished_at=timezone.now() if is_finished else None)
    return wording.say_target(operation, Target(**fields))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"state": "pending"}, "Queued."),
        ({"state": "pending", "is_finished": True}, "Not requested."),
        ({"state": "pending", "operation_state": "cancelled"}, "Not requested."),
        ({"state": "requested", "attempts": 1, "status": "toStop"}, "Stop requested; not yet stopped."),
        ({"state": "requested", "status": "stopping"}, "Already stopping."),
        ({"state": "requested", "status": "running"}, "Queued."),
        ({"state": "requested", "attempts": 2, "kind": "start"}, "Start requested; not yet running."),
        ({"state": "confirmed", "attempts": 1, "status": "exited"}, "Stopped (verified)."),
        ({"state": "confirmed", "status": "exited"}, "Already stopped."),
        ({"state": "confirmed", "attempts": 1, "status": "removed"}, "Removed (verified)."),
        ({"state": "confirmed", "attempts": 1, "kind": "restart"}, "Restarted (verified)."),
        ({"state": "failed", "error": REFUSED}, "Novita refused. Retrying."),
        ({"state": "failed", "error": REFUSED, "is_finished": True}, REFUSED),
        ({"state": "failed", "error": REFUSED, "attempts": Target.MAX_ATTEMPTS}, REFUSED),
        ({"state": "failed", "error": REFUSED, "error_code": NovitaRejectedKey.code}, REFUSED),
        ({"state": "failed", "error": REFUSED, "error_code": InvalidStateChange.code}, "Novita refused. Retrying."),
        ({"state": "skipped", "error": "Protected: the demo"}, "Protected: the demo"),
        ({"state": "skipped"}, "Skipped."),
    ],
)
def test_each_target_has_one_sentence(fields: dict[str, object], sentence: str) -> None:
    assert say(**fields) == sentence  # type: ignore[arg-type]  # some are keywords of the function


@pytest.mark.parametrize(
    ("kind", "status", "attempts", "sentence"),
    [
        ("stop", "running", 3, "Still running at the deadline (3 attempts)."),
        ("stop", "toStop", 1, "Still stopping at the deadline (1 attempt)."),
        ("stop", "running", 0, "Still running at the deadline (no stop requested)."),
        ("start", "exited", 2, "Not running at the deadline: it is stopped (2 attempts)."),
    ],
)
def test_undone_target_names_status_and_attempts(kind: str, status: str, attempts: int, sentence: str) -> None:
    assert wording.say_undone(kind, Target(status=status, attempts=attempts)) == sentence


@pytest.mark.parametrize("status", STATUSES)
def test_each_known_status_has_words(status: str) -> None:
    assert wording.say_status(status) != f"in status {status}"
    assert wording.say_impossible("stop", status).startswith("Can't be stopped while it is ")
