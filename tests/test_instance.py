"""How Novita's rows are read, and what each status means."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from instances.instance import GROUPS, STATUSES, Group, MalformedInstance, from_json, get_status, say_times
from instances.novita.rows import from_novita
from tests.novita_answers import make_row

NUMBERS = {"gpuNum": "gpuNum", "cpuNum": "cpuNum", "memory": "memoryGb", "rootfsSize": "rootfsSizeGb"}
TIMES = ["createdAt", "lastStartedAt", "lastStoppedAt", "endTime"]
SECRETS = [
    "sshPassword",
    "envs",
    "command",
    "entrypoint",
    "imageAuth",
    "imageAuthId",
    "connectComponentSSH",
    "connectComponentWebTerminal",
    "connectComponentJupyter",
    "connectComponentLog",
]


def show(row: dict[str, Any]) -> dict[str, Any]:
    """Return what the API shows of a row, after storage."""
    kept = json.dumps(from_novita(row).to_json(), ensure_ascii=False).encode()
    return from_json(json.loads(kept)).to_json()


def test_row_is_shown_with_the_fields_of_the_api() -> None:
    assert show(make_row("a1b2c3d4e5f60718")) == {
        "id": "a1b2c3d4e5f60718",
        "name": "name-a1b2c3d4e5f60718",
        "status": "running",
        "group": "running",
        "actions": ["stop", "restart"],
        "region": "US-CA-06 (California)",
        "clusterId": "us-ca-6",
        "productId": "4090.16c62g",
        "productName": "RTX 4090 24GB",
        "gpuNum": 1,
        "cpuNum": 16,
        "memoryGb": 62,
        "rootfsSizeGb": 60,
        "imageUrl": "docker.io/library/ubuntu:22.04",
        "billingMode": "onDemand",
        "spotStatus": None,
        "createdAt": "2025-10-09T08:53:20Z",
        "lastStartedAt": "2025-10-09T08:55:20Z",
        "lastStoppedAt": None,
        "endTime": None,
        "statusError": None,
        "portMappings": [{"port": 8188, "type": "http", "endpoint": "https://a1-8188.test"}],
        "pricePerHour": None,
        "costPerHour": None,
        "priceSource": None,
        "prepaid": False,
        "owner": None,
        "project": None,
    }


@pytest.mark.parametrize("rest", [{}, dict.fromkeys(make_row().keys() - {"id"})], ids=["absent", "null"])
def test_row_needs_only_an_id(rest: dict[str, None]) -> None:
    texts = ["name", "region", "clusterId", "productId", "productName", "imageUrl"]
    costs = ["pricePerHour", "costPerHour", "priceSource", "owner", "project"]
    unknown = ["billingMode", "spotStatus", "statusError", *NUMBERS.values(), *TIMES, *costs]

    assert show({"id": "a", **rest}) == {
        "id": "a",
        "status": "unknown",
        "group": "other",
        "actions": [],
        "portMappings": [],
        "prepaid": False,
        **dict.fromkeys(texts, ""),
        **dict.fromkeys(unknown),
    }


@pytest.mark.parametrize("value", ["16", 16, 16.0, "16.0", " 16 "])
@pytest.mark.parametrize(("field", "shown"), NUMBERS.items())
def test_number_may_be_a_string(field: str, shown: str, value: object) -> None:
    assert show(make_row(**{field: value}))[shown] == 16


@pytest.mark.parametrize("value", ["0", 0])
def test_zero_gpus_is_a_number(value: object) -> None:
    assert show(make_row(gpuNum=value))["gpuNum"] == 0


@pytest.mark.parametrize(
    "value",
    [None, "", "many", True, [], {}, "9" * 40, 10**40, float("inf"), float("nan"), "1.5.5", "+-1.5", ".", "0x10"],
)
def test_unreadable_number_is_unknown(value: object) -> None:
    assert show(make_row(cpuNum=value))["cpuNum"] is None


@pytest.mark.parametrize("value", ["1760000000", 1760000000])
@pytest.mark.parametrize("field", TIMES)
def test_time_is_shown_in_utc(field: str, value: object) -> None:
    assert show(make_row(**{field: value}))[field] == "2025-10-09T08:53:20Z"


@pytest.mark.parametrize("value", ["0", 0, "-1", -1, "", None, "soon", "99999999999999999", True, 1e300])
@pytest.mark.parametrize("field", TIMES)
def test_value_for_never_is_no_time(field: str, value: object) -> None:
    assert show(make_row(**{field: value}))[field] is None


@pytest.mark.parametrize(
    ("group", "statuses"),
    [
        ("running", "running"),
        ("starting", "pending toCreate creating pulling toStart starting toRestart restarting toReset resetting"),
        ("stopping", "toStop stopping toRemove removing freezing"),
        ("stopped", "exited"),
        ("gone", "removed"),
        ("other", "migrating hibernating RUNNING"),
    ],
)
def test_status_is_kept_and_has_its_group(group: str, statuses: str) -> None:
    rows = [show(make_row(status=status)) for status in statuses.split()]

    assert [(row["status"], row["group"]) for row in rows] == [(status, group) for status in statuses.split()]


@pytest.mark.parametrize(
    ("status", "actions"),
    [
        ("running", ["stop", "restart"]),
        ("exited", ["start"]),
        ("toStop", []),
        ("pulling", []),
        ("removed", []),
        ("migrating", []),
        ("hibernating", []),
    ],
)
def test_actions_are_those_that_novita_accepts_in_the_status(status: str, actions: list[str]) -> None:
    assert show(make_row(status=status))["actions"] == actions


@pytest.mark.parametrize(
    ("group", "is_moving", "is_billed", "needs_stop", "shows_done", "shows_under_way", "requestable"),
    [
        ("running", False, True, True, "start restart", "", "stop restart"),
        ("starting", True, True, True, "", "start restart", "stop"),
        ("stopping", True, True, False, "", "stop", ""),
        ("stopped", False, False, False, "stop", "", "start"),
        ("gone", False, False, False, "stop", "", ""),
        ("other", False, None, False, "", "", "stop"),
    ],
)
def test_each_group_has_one_meaning(
    group: Group,
    is_moving: bool,
    is_billed: bool | None,
    needs_stop: bool,
    shows_done: str,
    shows_under_way: str,
    requestable: str,
) -> None:
    meaning = GROUPS[group]

    assert meaning.is_moving == is_moving
    assert meaning.is_billed == is_billed
    assert meaning.needs_stop == needs_stop
    assert meaning.done == tuple(shows_done.split())
    assert meaning.under_way == tuple(shows_under_way.split())
    assert meaning.requestable == tuple(requestable.split())


@pytest.mark.parametrize("name", STATUSES)
def test_operation_may_request_what_novita_accepts(name: str) -> None:
    status = get_status(name)

    assert set(status.actions) <= set(GROUPS[status.group].requestable)


@pytest.mark.parametrize(
    ("status", "label"),
    [
        ("running", "Running"),
        ("exited", "Stopped"),
        ("toStop", "Stopping"),
        ("stopping", "Stopping"),
        ("pulling", "Pulling image"),
        ("removed", "Removed"),
        ("unknown", "Unknown"),
        ("hibernating", "hibernating"),
        ("", ""),
    ],
)
def test_status_has_a_label_and_an_unknown_one_keeps_its_name(status: str, label: str) -> None:
    assert get_status(status).label == label


@pytest.mark.parametrize("name", ["", None])
def test_region_without_a_name_is_shown_by_its_id(name: str | None) -> None:
    assert show(make_row(clusterName=name))["region"] == "us-ca-6"


@pytest.mark.parametrize("product_id", ["26", 26])
def test_id_of_digits_stays_text(product_id: object) -> None:
    assert show(make_row(productId=product_id))["productId"] == "26"


def test_failure_is_shown_in_novitas_words() -> None:
    error = {"state": "ImagePullFailed", "message": "image pull failed"}

    assert show(make_row(status="creating", statusError=error))["statusError"] == error


@pytest.mark.parametrize("error", [{"state": "", "message": ""}, {}, None, "", []])
def test_empty_failure_is_none(error: object) -> None:
    assert show(make_row(statusError=error))["statusError"] is None


@pytest.mark.parametrize(
    ("mappings", "shown"),
    [
        ([{"port": "22", "type": "tcp", "endpoint": "a:1"}], [{"port": 22, "type": "tcp", "endpoint": "a:1"}]),
        ([{}], [{"port": None, "type": "", "endpoint": ""}]),
        ([None, "8188", 22], []),
        ({"port": 22}, []),
    ],
)
def test_malformed_port_mappings_are_left_out(mappings: object, shown: list[dict[str, Any]]) -> None:
    assert show(make_row(portMappings=mappings))["portMappings"] == shown


@pytest.mark.parametrize("field", SECRETS)
@pytest.mark.parametrize("secret", ["FAKE-SECRET", [{"key": "FAKE-SECRET", "value": "FAKE-SECRET"}]])
def test_no_secret_of_a_row_reaches_an_instance(field: str, secret: object) -> None:
    instance = from_novita(make_row(**{field: secret}))

    assert "FAKE-SECRET" not in f"{instance!r} {instance.to_json()}"


@pytest.mark.parametrize(
    "name",
    [
        "🚀 train",
        "\u202egnp.exe\u202c",
        "<script>alert(1)</script>",
        "a\x00b\r\nc\x1b[31m",
        "{{ 7 * 7 }}",
        "n" * 300,
        "  ",
    ],
    ids=ascii,
)
def test_hostile_name_is_only_text(name: str) -> None:
    assert show(make_row(name=name))["name"] == name


@pytest.mark.parametrize("field", ["name", "status", "clusterName", "productName", "imageUrl", "billingMode"])
def test_half_a_surrogate_pair_becomes_a_question_mark(field: str) -> None:
    row = make_row(**{field: json.loads(r'"a\ud83d"')})

    assert "a?" in show(row).values()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, "a row is null, not an object"),
        (["FAKE-SECRET"], "a row is a list, not an object"),
        ("FAKE-SECRET", "a row is a str, not an object"),
        (make_row(""), "a row has no id"),
        (make_row(id_=None), "a row has no id"),  # type: ignore[arg-type]  # wrong on purpose
        (make_row(id_=True), "a row has no id"),  # type: ignore[arg-type]  # wrong on purpose
        (make_row(id_=["a"]), "a row has no id"),  # type: ignore[arg-type]  # wrong on purpose
        ({"sshPassword": "FAKE-SECRET"}, "a row has no id"),
    ],
)
def test_malformed_row_is_refused_without_its_contents(row: object, reason: str) -> None:
    with pytest.raises(MalformedInstance) as refusal:
        from_novita(row)

    assert str(refusal.value) == reason


UNHURRIED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Text can contain anything that JSON can, halves of surrogate pairs included, and is often nearly a number.
text = st.text(st.characters()) | st.from_regex(r"[-+0-9._e ]{1,12}", fullmatch=True)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | text
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=4)
# Novita's fields with any values; only the id is valid.
fields = st.fixed_dictionaries({}, optional=dict.fromkeys(make_row().keys() - {"id"}, anything))
rows = st.builds(lambda id_, rest: {**rest, "id": id_}, text.filter(bool) | st.integers(), fields)


@pytest.mark.thorough
@UNHURRIED
@given(anything | rows)
def test_any_json_is_an_instance_or_malformed(value: object) -> None:
    with contextlib.suppress(MalformedInstance):
        from_novita(value)


@pytest.mark.thorough
@UNHURRIED
@given(rows)
@example(make_row())
@example(make_row(cpuNum="+-1.5"))
def test_every_row_with_an_id_survives_storage_unchanged(row: dict[str, Any]) -> None:
    instance = from_novita(row)

    written = json.dumps(instance.to_json(), ensure_ascii=False, allow_nan=False).encode()

    assert from_json(json.loads(written)) == instance


def test_times_in_a_sentence_are_written_for_people() -> None:
    sentence = "Stops at 2026-01-15T18:30:00Z: no work since 2026-01-15T17:00:00Z."

    assert say_times(sentence) == "Stops at 2026-01-15 18:30 UTC: no work since 2026-01-15 17:00 UTC."
