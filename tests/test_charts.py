"""Charts: which markup is drawn for which points."""

import re
from collections.abc import Sequence

import pytest

from instances.pages import charts
from instances.pages.charts import Column, Point

HOUR = 3_600_000


def make_points(values: Sequence[float | None]) -> list[Point]:
    return [Point(number * HOUR, value) for number, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "line", "area"),
    [
        ([2, 4, 4, 0], "M0 50H250V0H750V100H1000", "M0 50H250V0H750V100H1000V100H0Z"),
        ([4], "M0 0H1000", "M0 0H1000V100H0Z"),
        ([4, None, None, 2], "M0 0H250M750 50H1000", "M0 0H250V100H0ZM750 50H1000V100H750Z"),
        ([None, 4, None], "M333 0H667", "M333 0H667V100H333Z"),
        ([None, None], "", ""),
        ([], "", ""),
        ([0, 0], "M0 100H1000", "M0 100H1000V100H0Z"),
    ],
    ids=["steps", "one point", "gap", "gaps at both ends", "never observed", "empty", "zero"],
)
def test_line_has_steps_from_zero_and_leaves_gaps_open(values: list[float | None], line: str, area: str) -> None:
    found = charts.draw_paths(make_points(values), 0, max(1, len(values)) * HOUR, 4)

    assert found[0] == line
    assert found[1] == area


@pytest.mark.parametrize(
    ("values", "top"),
    [([], 1), ([0], 1), ([None, 3.0], 3), ([62.69], 80), ([110.4], 120), ([0.021], 0.024), ([10], 10)],
)
def test_scale_ends_at_a_round_number(values: list[float | None], top: float) -> None:
    assert charts.find_top(values) == pytest.approx(top)


def draw(values: Sequence[float | None]) -> str:
    points = make_points(values)
    return charts.draw_line(points, 0, len(points) * HOUR, sentence="A <sentence>.", say=lambda value: f"${value:g}")


def test_line_is_an_image_with_a_sentence_and_labels_the_last_and_the_highest_value() -> None:
    svg = draw([1, 5, 2, 2, 2, 2])

    assert re.search(r'role="img"><title>A &lt;sentence&gt;\.</title>', svg)
    assert re.findall(r'class="chart-value.*?>(.*?)<', svg) == ["$2", "$5"]
    assert re.findall(r'class="chart-scale.*?>(.*?)<', svg) == ["$5", "$2.5"]


def test_last_label_stands_above_the_line_that_leads_to_it() -> None:
    labels = re.findall(r'class="chart-value.*?y="(.*?)">(.*?)<', draw([1] * 20 + [4, 2]))

    assert labels == [("10", "$2")]


def test_last_label_stands_at_the_end_of_what_was_observed() -> None:
    assert re.findall(r'<circle class="chart-end" cx="(.*?)%"', draw([1, 1, None, None])) == ["50"]


def test_line_without_observations_says_so() -> None:
    assert "Not observed" in draw([None, None])


@pytest.mark.parametrize(
    ("days", "labels"),
    [
        (1, ["04:00", "08:00", "12:00", "16:00", "20:00"]),
        (2, ["Thu 12:00", "Fri 00:00", "Fri 12:00"]),
        (4, ["2 Jan", "3 Jan", "4 Jan"]),
        (30, ["6 Jan", "11 Jan", "16 Jan", "21 Jan", "26 Jan"]),
        (366, ["Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]),
        (400, ["Mar", "May", "Jul", "Sep", "Nov", "1971"]),
    ],
)
def test_ticks_are_round_times_in_utc(days: int, labels: list[str]) -> None:
    found = [tick.label for tick in charts.find_ticks(0, days * 24 * HOUR)]

    assert found[: len(labels)] == labels
    assert len(found) <= 14


def test_columns_are_stacked_from_zero_and_each_part_says_its_amount() -> None:
    columns = [Column("1 Jan", [3, 1], ["A: $3", "B: $1"]), Column("2 Jan", [0, 2], ["A: $0", "B: $2"])]

    svg = charts.draw_columns(columns, sentence="Two days.", say=lambda value: f"${value:g}")

    parts = re.findall(
        r'<rect class="series-(\d)" x="(.*?)%" width="(.*?)%" y="(\d+)" height="(\d+)"><title>(.*?)<', svg
    )
    assert parts == [
        ("1", "5", "40", "52", "108", "A: $3"),
        ("2", "5", "40", "16", "36", "B: $1"),
        ("2", "55", "40", "88", "72", "B: $2"),
    ]
    assert re.findall(r'class="chart-tick.*?>(.*?)<', svg) == ["1 Jan", "2 Jan"]


def test_scale_of_columns_stands_beside_them() -> None:
    svg = charts.draw_columns([Column("1 Jan", [3], ["A"])], sentence="", say=str)

    assert '<svg class="chart-plot is-columns"' in svg


def test_columns_of_a_year_touch_each_other() -> None:
    svg = charts.draw_columns([Column("1 Jan", [3], ["A"])] * 200, sentence="", say=str)

    assert '<svg class="chart-plot is-dense"' in svg
    assert 'x="0%" width="0.6%"' in svg
    assert 'x="99.5%" width="0.6%"' in svg
