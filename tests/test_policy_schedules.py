"""The weekly hours of a schedule policy, also when the clocks change."""

from datetime import UTC, datetime

import pytest

from instances.policies import schedule
from instances.policies.schedule import WrongSchedule

WEEK = "Mon-Fri 08:00-20:00"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        # Monday 23 November 2026; Berlin is an hour ahead of UTC.
        *(("2026-11-23T06:59:59", False), ("2026-11-23T07:00:00", True), ("2026-11-23T18:59:59", True)),
        *(("2026-11-23T19:00:00", False), ("2026-11-28T10:00:00", False)),
    ],
)
def test_hours_are_those_of_the_time_zone(moment: str, is_open: bool) -> None:
    assert schedule.read(WEEK, "Europe/Berlin").is_open(at(moment)) is is_open


@pytest.mark.parametrize(
    ("zone", "moment", "is_open"),
    [
        # 08:00 in Berlin: 07:00 UTC in winter, 06:00 in summer. Summer began on 29 March 2026, and ended on 25 October.
        *(("Europe/Berlin", "2026-03-27T06:30:00", False), ("Europe/Berlin", "2026-03-30T06:30:00", True)),
        *(("Europe/Berlin", "2026-10-23T06:30:00", True), ("Europe/Berlin", "2026-10-26T06:30:00", False)),
        # 08:00 in New York: 13:00 UTC in winter, 12:00 in summer. 8 March and 1 November 2026.
        *(("America/New_York", "2026-03-06T12:30:00", False), ("America/New_York", "2026-03-09T12:30:00", True)),
        *(("America/New_York", "2026-10-30T12:30:00", True), ("America/New_York", "2026-11-02T12:30:00", False)),
    ],
)
def test_hours_move_with_the_clocks(zone: str, moment: str, is_open: bool) -> None:
    assert schedule.read(WEEK, zone).is_open(at(moment)) is is_open


@pytest.mark.parametrize("moment", ["2026-10-25T00:15:00", "2026-10-25T01:15:00"])
def test_hour_that_occurs_twice_is_inside_both_times(moment: str) -> None:
    assert schedule.read("Sun 02:00-02:45", "Europe/Berlin").is_open(at(moment))


@pytest.mark.parametrize(
    ("hours", "moment", "is_open"),
    [
        # The hour from 02:00 to 03:00 doesn't occur on 29 March.
        *(("Sun 02:15-04:00", "2026-03-29T01:30:00", True), ("Sun 01:00-02:30", "2026-03-29T00:30:00", True)),
        ("Sun 01:00-02:30", "2026-03-29T01:45:00", False),
    ],
)
def test_hour_that_is_skipped_ends_no_hours_early(hours: str, moment: str, is_open: bool) -> None:
    assert schedule.read(hours, "Europe/Berlin").is_open(at(moment)) is is_open


@pytest.mark.parametrize(
    ("hours", "moment", "is_open"),
    [
        *(("Fri 20:00-02:00", "2026-11-28T01:30:00", True), ("Fri 20:00-02:00", "2026-11-27T01:30:00", False)),
        *(("Sat-Mon 10:00-12:00", "2026-11-22T11:00:00", True), ("Sat-Mon 10:00-12:00", "2026-11-24T11:00:00", False)),
        *(
            ("mon 00:00-24:00", "2026-11-23T23:59:59", True),
            ("Mon 08:00-10:00, Mon 12:00-13:00", "2026-11-23T12:30:00", True),
        ),
        ("Mon 08:00-10:00; Tue 12:00-13:00", "2026-11-23T12:30:00", False),
    ],
)
def test_hours_are_read(hours: str, moment: str, is_open: bool) -> None:
    assert schedule.read(hours, "UTC").is_open(at(moment)) is is_open


def test_excepted_days_have_no_allowed_hours() -> None:
    plan = schedule.read(WEEK, "UTC", "2026-11-23, 2026-11-25..2026-11-26")

    assert [day for day in range(23, 28) if plan.is_open(at(f"2026-11-{day}T12:00:00"))] == [24, 27]


def test_last_end_is_known_over_a_weekend() -> None:
    assert schedule.read(WEEK, "UTC").find_last_end(at("2026-11-29T12:00:00")) == at("2026-11-27T20:00:00")


def test_last_end_more_than_a_week_ago_is_not_known() -> None:
    plan = schedule.read(WEEK, "UTC", "2026-10-01..2026-11-30")

    assert plan.find_last_end(at("2026-11-29T12:00:00")) is None


def test_next_begin_is_known() -> None:
    assert schedule.read(WEEK, "UTC").find_next_begin(at("2026-11-27T21:00:00")) == at("2026-11-30T08:00:00")


@pytest.mark.parametrize(
    ("hours", "zone", "excepted", "part"),
    [
        *(
            ("", "UTC", "", "Name the allowed hours"),
            ("Mon", "UTC", "", "is not like"),
            ("Mo 8-20", "UTC", "", "is not like"),
        ),
        *(("Mox 08:00-20:00", "UTC", "", "is not a day"), ("Mon 08:00-25:00", "UTC", "", "is not a time")),
        *(
            ("Mon 24:00-02:00", "UTC", "", "not begin then"),
            (WEEK, "", "", "time zone"),
            (WEEK, "Mars/Base", "", "time zone"),
        ),
        *((WEEK, "../etc/passwd", "", "time zone"), (WEEK, "UTC", "2026-13-01", "is not like")),
        *(
            (WEEK, "UTC", "2026-12-02..2026-12-01", "after the last"),
            (WEEK, "UTC", "2000-01-01..2026-12-01", "at most"),
        ),
    ],
)
def test_wrong_schedule_is_refused_with_what_would_be_valid(hours: str, zone: str, excepted: str, part: str) -> None:
    with pytest.raises(WrongSchedule, match=part):
        schedule.read(hours, zone, excepted)
