"""Any query string, at any address, gives a page or a refusal, and never an error of the service itself."""

from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from instances.models import Operation
from tests.novita_answers import NovitaAnswers
from tests.test_headers import ROUTES, account  # noqa: F401 - a fixture

pytestmark = pytest.mark.django_db

HTML = {"accept": "text/html"}
LONG = "x" * 4000
VALUES = ["", "x", "%00", "%ff", "'", "-1", "9" * 30, "1e9", "x,y", "[", '{"a": 1}', "2026-13-45", LONG]
QUERIES = [
    "&",
    "=",
    "?",
    "%",
    "x",
    "page=1&page=2",
    "=".join(["a"] * 50),
    "&".join(f"a{number}=1" for number in range(2000)),
    "q=" + "+".join(["word"] * 1000),
    "q=" + "+".join(["w"] * 21),
    "q=%22" + LONG,
    "q=" + LONG * 20,
    "q=%00",
    "q=%5B%5C%25_%27%22",
    "o=" + ".".join(["1", "-2"] * 2000),
    "o=1.1.-1.x.99999999999999999999",
    "p=99999999999999999999",
    "p=-1",
    "p=x",
    "all=x&p=x",
    "e=1&x=1",
    "_to_field=x",
    "_popup=1&_to_field=id",
    "_facets=1",
    "_changelist_filters=" + "%26".join(f"a{number}%3D1" for number in range(50)),
    "next=//evil.test&next=%00",
    "format=html",
]
LOOKUPS = [
    "{}",
    "{}__exact",
    "{}__contains",
    "{}__icontains",
    "{}__regex",
    "{}__in",
    "{}__isnull",
    "{}__gte",
    "{}__range",
    "{}__year",
    "{}__month",
    "{}__date",
    "{}__has_key",
    "{}__id__exact",
    "{}__nothing__at__all",
    "{}____",
]


def list_linked() -> dict[str, list[str]]:
    """Return for each model the names that its list links to: the first of each kind of field over all models."""
    linked: dict[str, list[str]] = {}
    kinds = set()
    for model, model_admin in admin.site._registry.items():
        names = {model_admin.date_hierarchy: None} | {
            one if isinstance(one, str) else "x": None for one in model_admin.list_filter
        }
        linked[str(model._meta.model_name)] = []
        for name in filter(None, names):
            kind = "x" if name == "x" else type(model._meta.get_field(name.partition("__")[0])).__name__
            kind += f" {'__' in name} {name == model_admin.date_hierarchy}"
            if kind not in kinds:
                kinds.add(kind)
                linked[str(model._meta.model_name)].append(name)
    return linked


LINKED = list_linked()


def assert_answered(client: Client, path: str, query: str) -> None:
    answer: Any = client.get(f"{path}?{query}", headers=HTML)
    b"".join(answer)
    assert answer.status_code < 500 and answer.status_code != 405, (path, query[:100], answer.status_code)


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("path", [route for route in ROUTES if not route.startswith("/static/")])
def test_any_query_string_is_answered(client: Client, path: str) -> None:
    if client.get(path, headers=HTML).status_code in {403, 404, 405}:
        return

    for query in QUERIES:
        assert_answered(client, path, query)


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("model", [model._meta.model_name for model in admin.site._registry])
def test_any_lookup_is_answered(client: Client, model: str) -> None:
    (made,) = [one for one in admin.site._registry.items() if one[0]._meta.model_name == model]
    opts = made[0]._meta
    path = reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist")
    # Django decides by the kind of a field: the first of each kind stands for the others.
    fields = {type(field): field.name for field in reversed(opts.get_fields())}
    names = [*fields.values(), "pk", "operation__kind", "user__password"]

    for name in names:
        for lookup in LOOKUPS:
            assert_answered(client, path, f"{lookup.format(name)}=x")
    for name in LINKED[model]:
        for lookup in ("exact", "in", "isnull", "gte", "lt", "year", "month", "day", "id__exact"):
            for value in VALUES:
                assert_answered(client, path, f"{name}__{lookup}={value}&_facets=1")
    for year, month, day in [("9999", "12", "31"), ("0", "1", "1"), ("9" * 20, "2", "3"), ("2026", "2", "30")]:
        name = made[1].date_hierarchy
        assert_answered(client, path, f"{name}__year={year}")
        assert_answered(client, path, f"{name}__year={year}&{name}__month={month}")
        assert_answered(client, path, f"{name}__year={year}&{name}__month={month}&{name}__day={day}")
        assert_answered(client, path, f"{name}__month={month}&{name}__day={day}")


def test_a_search_of_many_words_is_refused_with_a_word_and_one_of_twenty_is_made(client: Client) -> None:
    Operation.objects.create(
        kind="stop", deadline_at="2026-01-01T00:00Z", reason="w" * 20, is_whole_account=True, selection=""
    )
    path = "/admin/instances/operation/"

    many, few = client.get(f"{path}?q={'w+' * 1000}"), client.get(f"{path}?q={'w+' * 20}")

    assert (many.status_code, "20 words" in many.json()["message"]) == (400, True)
    assert (few.status_code, few.context["cl"].result_count) == (200, 1)


def test_of_a_parameter_given_twice_the_page_takes_the_first_as_its_script_does(
    client: Client, novita: NovitaAnswers
) -> None:
    page = client.get("/?search=first&search=second").content.decode()

    assert 'value="first"' in page
