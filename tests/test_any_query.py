"""Any query string, at any address, gives a page or a refusal, and never an error of the service itself."""

import re
from itertools import cycle
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from instances.models import Operation
from tests.groups import group
from tests.novita_answers import NovitaAnswers
from tests.test_headers import ROUTES, ROUTES_OF_EACH_KIND, account  # noqa: F401 - a fixture

pytestmark = pytest.mark.django_db

HTML = {"accept": "text/html"}
LONG = "x" * 4000
VALUES = ["", "x", "%00", "%ff", "'", "9" * 30, "x,y", "[", "2026-13-45", LONG]
# In turn: their names mean nothing to any address.
FORMS = ["&", "=", "?", "%", "=".join(["a"] * 50), "&".join(f"a{number}=1" for number in range(2000))]
QUERIES = ["x", "page=1&page=2", "next=//evil.test&next=%00"]
API_QUERIES = ["format=html"]
ADMIN_QUERIES = [
    "_to_field=x",
    "_popup=1&_to_field=id",
    "_changelist_filters=" + "%26".join(f"a{number}%3D1" for number in range(50)),
]
# What only a list takes.
LIST_QUERIES = [
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
    "_facets=1",
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


def list_fields() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return for each model the fields to look up, and those that its list links to.

    Django decides by the kind of a field, and by whether the list links to it: the first of each kind over all models
    stands for the others.
    """
    fields: dict[str, list[str]] = {}
    linked: dict[str, list[str]] = {}
    kinds = set()
    for model, model_admin in admin.site._registry.items():
        model_name = str(model._meta.model_name)
        links = {model_admin.date_hierarchy: None} | {
            one if isinstance(one, str) else "x": None for one in model_admin.list_filter
        }
        fields[model_name], linked[model_name] = ["pk"], []
        for name in filter(None, links):
            kind = "x" if name == "x" else type(model._meta.get_field(name.partition("__")[0])).__name__
            kind += f" {'__' in name} {name == model_admin.date_hierarchy}"
            if kind not in kinds:
                kinds.add(kind)
                linked[model_name].append(name)
        for field in model._meta.get_fields():
            if (field_kind := (type(field), field.name in links)) not in kinds:
                kinds.add(field_kind)
                fields[model_name].append(field.name)
    fields["operation"] += ["operation__kind", "user__password"]
    return fields, linked


FIELDS, LINKED = list_fields()


def assert_answered(client: Client, path: str, query: str) -> None:
    answer: Any = client.get(f"{path}?{query}", headers=HTML)
    b"".join(answer)
    assert answer.status_code < 500 and answer.status_code != 405, (path, query[:100], answer.status_code)


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    "cases",
    group(
        zip((route for route in ROUTES_OF_EACH_KIND if not route.startswith("/static/")), cycle(FORMS), strict=False)
    ),
    ids=lambda cases: cases[0][0],
)
@pytest.mark.thorough
def test_any_query_string_is_answered(client: Client, cases: list[tuple[str, str]]) -> None:
    for path, form in cases:
        if client.get(path, headers=HTML).status_code in {403, 404, 405}:
            continue
        for query in (form, *QUERIES, *(ADMIN_QUERIES if path.startswith("/admin/") else API_QUERIES)):
            assert_answered(client, path, query)


# The lists of records have the same view: the first one gets each query, and the others every second.
RECORD_LISTS = [route for route in ROUTES if re.fullmatch(r"/admin/\w+/\w+/", route)]
LISTS = [
    *((path, [0, 1] if number == 0 else [number % 2]) for number, path in enumerate(RECORD_LISTS)),
    *((path, [0, 1]) for path in ("/", "/api/instances", "/api/operations", "/api/protections")),
    ("/admin/instances/operation/csv/", [0, 1]),
]


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("cases", group(LISTS), ids=lambda cases: cases[0][0])
@pytest.mark.thorough
def test_any_query_string_of_a_list_is_answered(client: Client, cases: list[tuple[str, list[int]]]) -> None:
    for path, halves in cases:
        for query in [query for half in halves for query in LIST_QUERIES[half::2]]:
            assert_answered(client, path, query)


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("model", [model._meta.model_name for model in admin.site._registry])
@pytest.mark.thorough
def test_any_lookup_is_answered(client: Client, model: str) -> None:
    (made,) = [one for one in admin.site._registry.items() if one[0]._meta.model_name == model]
    opts = made[0]._meta
    path = reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist")

    for name in FIELDS[model]:
        for lookup in LOOKUPS:
            assert_answered(client, path, f"{lookup.format(name)}=x")
    for name in LINKED[model]:
        for number, lookup in enumerate(("exact", "in", "isnull", "gte", "year", "id__exact")):
            # The field reads a value, whatever the lookup: each lookup tries every second one.
            for value in VALUES[number % 2 :: 2]:
                assert_answered(client, path, f"{name}__{lookup}={value}&_facets=1")
    name = made[1].date_hierarchy
    for year, month, day in [("9999", "12", "31"), ("0", "1", "1"), ("9" * 20, "2", "3"), ("2026", "2", "30")]:
        if name not in LINKED[model]:
            break
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

    assert many.status_code == 400
    assert "20 words" in many.json()["message"]
    assert few.status_code == 200
    assert few.context["cl"].result_count == 1


def test_of_a_parameter_given_twice_the_page_takes_the_first_as_its_script_does(
    client: Client, novita: NovitaAnswers
) -> None:
    page = client.get("/?search=first&search=second").content.decode()

    assert 'value="first"' in page
