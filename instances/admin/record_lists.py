"""The list of a record page: its number of rows, and its dates without reading every row for them."""

from datetime import date, datetime
from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest


class RecordList(ChangeList):
    # Whether a search found more than the newest rows that are shown.
    is_cut = False

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> Any:
        found = super().get_queryset(request, exclude_parameters)
        self.is_cut = getattr(request, "is_search_cut", False)
        return found

    @property
    def shown_count(self) -> str:
        return f"{self.result_count:,}"

    def list_dates(self) -> dict[str, Any]:
        """Return links to years, months or days between the first and the last row.

        Django's own list reads every row, and calls a function for each on SQLite.
        """
        name = self.date_hierarchy
        year, month, day = (self.params.get(f"{name}__{part}") for part in ("year", "month", "day"))
        first, last = self._find_ends(name)
        if first is None or last is None:
            return {"back": self._link("All dates") if year or month or day else None, "choices": []}
        if day:
            return {"back": self._link_back(year, month), "choices": []}
        chosen_year = year
        if not year and first.year == last.year:
            year = str(first.year)
            month = str(first.month) if first.month == last.month else None
        if year and month:
            days = [date(first.year, first.month, number) for number in range(first.day, last.day + 1)]
            choices = [self._link(f"{one:%B} {one.day}", year=year, month=month, day=one.day) for one in days]
            return {"back": self._link_back(year, None) if chosen_year else None, "choices": choices}
        if year:
            months = [date(first.year, number, 1) for number in range(first.month, last.month + 1)]
            choices = [self._link(f"{one:%B} {one.year}", year=year, month=one.month) for one in months]
            return {"back": self._link("All dates") if chosen_year else None, "choices": choices}
        return {
            "back": None,
            "choices": [self._link(str(one), year=one) for one in range(first.year, last.year + 1)],
        }

    def _find_ends(self, name: str) -> tuple[datetime | None, datetime | None]:
        """Return the first and the last time of the rows that the filters leave."""
        times = self.queryset.order_by(name).values_list(name, flat=True)
        return times.first(), times.reverse().first()

    def _link(self, title: str, **parts: Any) -> dict[str, str]:
        chosen = {f"{self.date_hierarchy}__{part}": str(value) for part, value in parts.items()}
        return {"title": title, "link": self.get_query_string(chosen, [f"{self.date_hierarchy}__"])}

    def _link_back(self, year: str | None, month: str | None) -> dict[str, str]:
        if year and month:
            return self._link(f"{date(int(year), int(month), 1):%B %Y}", year=year, month=month)
        return self._link(year, year=year) if year else self._link("All dates")
