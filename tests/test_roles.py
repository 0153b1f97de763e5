"""The whole matrix: each role, by a login and by a token, at each route with each method. A route without an entry here
fails, and so does one that does something for whom it refuses.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import cycle
from typing import Any, Final, NamedTuple

import pytest
from django.contrib import admin
from django.contrib.admindocs.views import extract_views_from_urlpatterns, simplify_regex
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.template.response import SimpleTemplateResponse
from django.test import Client
from django.urls import get_resolver
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator
from fakeredis import FakeRedis
from pytest_django import Settings
from rest_framework.settings import api_settings

from instances.access.roles import RoleRequired
from instances.admin.records import RecordAdmin
from instances.inventory.sync import synchronize
from instances.models import (
    Annotation,
    AuditEntry,
    Channel,
    Event,
    Finding,
    LabelRule,
    Message,
    Operation,
    Policy,
    Protection,
    Snooze,
    StartFreeze,
    SyncRun,
    Target,
    Token,
    UsageInterval,
    WebhookDelivery,
)
from novita_site.roles import ROLES, Role
from tests.conftest import ApiClient
from tests.groups import group
from tests.novita_answers import NovitaAnswers, make_row

pytestmark = pytest.mark.django_db

METHODS: Final = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
READS: Final = ("GET", "HEAD", "OPTIONS")

VIEWER, OPERATOR, ADMIN = Role.VIEWER, Role.OPERATOR, Role.ADMIN
NOBODY: Final = 9  # No role is high enough.
AUTOCOMPLETE: Final = "/admin/autocomplete"  # It serves fields that look others up, of which there are none.

# Path → method → the lowest role that may. A method that isn't named is not there: a viewer is told so.
API: Final[Mapping[str, Mapping[str, Role]]] = {
    "/api/instances": {"GET": VIEWER},
    "/api/instances/sync": {"POST": OPERATOR},
    "/api/instances/stop-all": {"POST": ADMIN},
    "/api/instances/<pk>": {"GET": VIEWER},
    "/api/instances/<pk>/history": {"GET": VIEWER},
    "/api/instances/<pk>/utilization": {"GET": VIEWER},
    "/api/instances/<pk>/start": {"POST": OPERATOR},
    "/api/instances/<pk>/stop": {"POST": OPERATOR},
    "/api/instances/<pk>/restart": {"POST": OPERATOR},
    "/api/instances/<pk>/protect": {"POST": OPERATOR, "DELETE": ADMIN},
    "/api/operations": {"GET": VIEWER, "POST": OPERATOR},
    "/api/operations/<pk>": {"GET": VIEWER},
    "/api/operations/<pk>/cancel": {"POST": OPERATOR},
    "/api/operations/<pk>/dismiss": {"POST": OPERATOR},
    "/api/instances/<pk>/annotation": {"GET": VIEWER, "PUT": OPERATOR},
    "/api/annotations": {"PUT": OPERATOR},
    "/api/protections": {"GET": VIEWER},
    "/api/start-freeze": {"GET": VIEWER, "PUT": ADMIN, "DELETE": ADMIN},
    "/api/activity": {"GET": VIEWER},
    "/api/policies": {"GET": VIEWER, "POST": ADMIN},
    "/api/policies/<pk>": {"GET": VIEWER, "PUT": ADMIN, "DELETE": ADMIN},
    "/api/policies/<pk>/confirm-stop": {"POST": ADMIN},
    "/api/policies/switch": {"PUT": ADMIN},
    "/api/policies/findings": {"GET": VIEWER},
    "/api/policies/findings/<pk>": {"GET": VIEWER},
    "/api/policies/findings/<pk>/snooze": {"POST": OPERATOR, "DELETE": OPERATOR},
    "/api/costs": {"GET": VIEWER},
    "/api/costs/history": {"GET": VIEWER},
    "/api/costs/instances": {"GET": VIEWER},
    "/api/costs/bill": {"GET": VIEWER},
    "/api/overview": {"GET": VIEWER},
    "/api/cache/clear": {"POST": ADMIN},
    "/api/cache/stats": {"GET": VIEWER},
}
# Routes that the description leaves out. The root's pattern is that of every address under it, too.
API_PAGES: Final = (
    "/api",
    "/api/nope",
    "/api/schema",
    "/api/docs",
    "/api/session",
    "/api/instances.csv",
    "/api/activity.csv",
    "/api/costs/<report>.csv",
)
OPEN: Final = ("/health", "/livez", "/readyz", "/metrics", "/login", "/logout", "/admin/login", "/snooze/<str:signed>")

RECORDS: Final = (
    *("syncrun", "operation", "target", "protection", "webhookdelivery", "auditentry"),
    *("usageinterval", "annotation", "startfreeze", "finding", "snooze", "event", "message"),
)


def _list_pages() -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield each page with the lowest role that may read it, and the lowest that may send to it."""
    for page in (
        "",
        "/costs",
        "/costs/charts",
        "/costs/bill",
        "/costs/trend",
        "/utilization/<str:instance_id>",
        "/activity",
    ):
        yield page, (VIEWER, VIEWER)
    for page in ("", "/logout", "/password_change", "/password_change/done", "/jsi18n", "/<app_label>", "/<url>"):
        yield f"/admin{page}", (VIEWER, VIEWER)
    yield "/admin/r/<path:content_type_id>/<path:object_id>", (VIEWER, VIEWER)
    yield AUTOCOMPLETE, (VIEWER, VIEWER)
    for record in RECORDS:
        for page in ("", "/csv", "/<path:object_id>", "/<path:object_id>/history"):
            yield f"/admin/instances/{record}{page}", (VIEWER, VIEWER)
        yield f"/admin/instances/{record}/<path:object_id>/change", (VIEWER, NOBODY)
        for page in ("/add", "/<path:object_id>/delete"):
            yield f"/admin/instances/{record}{page}", (NOBODY, NOBODY)
    yield "/admin/instances/syncrun/sync", (VIEWER, OPERATOR)
    yield "/admin/instances/webhookdelivery/<int:pk>/send-again", (VIEWER, ADMIN)
    for model in ("instances/token", "auth/user"):
        for page in ("", "/add", "/<path:object_id>/delete", "/<path:object_id>/history"):
            yield f"/admin/{model}{page}", (ADMIN, ADMIN)
        yield f"/admin/{model}/<path:object_id>", (VIEWER, VIEWER)  # leads to the next one
    yield "/admin/instances/token/<path:object_id>/change", (ADMIN, NOBODY)
    for page in ("", "/add", "/<path:object_id>/change", "/<path:object_id>/delete", "/<path:object_id>/history"):
        yield f"/admin/instances/labelrule{page}", (ADMIN, ADMIN)
    yield "/admin/instances/labelrule/<path:object_id>", (VIEWER, VIEWER)
    for word in ("off", "on"):
        yield f"/admin/instances/policy/switch-{word}", (VIEWER, ADMIN)
    yield "/admin/instances/message/<int:pk>/send-again", (VIEWER, ADMIN)
    for page in ("", "/add", "/<path:object_id>/change", "/<path:object_id>/delete", "/<path:object_id>/history"):
        yield f"/admin/instances/channel{page}", (ADMIN, ADMIN)
    yield "/admin/instances/channel/<path:object_id>", (VIEWER, VIEWER)
    for page in ("", "/<path:object_id>", "/<path:object_id>/history"):
        yield f"/admin/instances/policy{page}", (VIEWER, VIEWER)
    yield "/admin/instances/policy/<path:object_id>/change", (VIEWER, ADMIN)
    for page in ("/add", "/<path:object_id>/delete"):
        yield f"/admin/instances/policy{page}", (ADMIN, ADMIN)
    yield "/admin/auth/user/<path:object_id>/change", (ADMIN, ADMIN)
    yield "/admin/auth/user/<id>/password", (ADMIN, ADMIN)


PAGES: Final = dict(_list_pages())
BODIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "/api/instances/<pk>/protect": {"reason": "holds a checkpoint"},
    "/api/operations": {"kind": "stop", "ids": ["a"]},
    "/api/instances/<pk>/annotation": {"owner": "ann"},
    "/api/annotations": {"ids": ["a"], "owner": "ann"},
    "/api/start-freeze": {"until": None, "reason": "trains"},
    "/api/policies": {"name": "Idle", "rule": "idle"},
    "/api/policies/<pk>/confirm-stop": {"name": "Cap"},
    "/api/policies/switch": {"on": False},
    "/api/policies/findings/<pk>/snooze": {"for": "1h"},
}


@pytest.fixture(autouse=True)
def login_wanted(settings: Settings, no_pauses: None) -> None:
    settings.REQUIRE_LOGIN = True
    settings.API_RATE_LIMIT = 0


@pytest.fixture
def account(novita: NovitaAnswers) -> dict[str, str]:
    """A copy with an instance "a", and one of each record; returns the models' names with their ids."""
    novita.lists(make_row("a"))
    synchronize("command")
    operation = Operation.objects.create(
        kind="stop", is_whole_account=False, selection="stop:a", deadline_at=timezone.now()
    )
    user = User.objects.create_user("target")
    token, _ = Token.objects.create(user=user, name="of the target")
    records = [
        operation,
        Target.objects.create(operation=operation, instance_id="a"),
        Protection.objects.create(instance_id="a", reason="precious"),
        WebhookDelivery.objects.create(operation=operation, message_id="msg_1", receiver="https://hook.test"),
        AuditEntry.objects.create(actor="ann", action="instance.stop", outcome="done"),
        SyncRun.objects.get(),
        UsageInterval.objects.get(),
        Annotation.objects.create(instance_id="a", owner="ann"),
        LabelRule.objects.create(pattern="*", owner="ann"),
        StartFreeze.objects.create(reason="precious", removed_at=timezone.now()),
        policy := Policy.objects.create(name="Idle", rule="idle"),
        Finding.objects.create(policy=policy, policy_name="Idle", policy_version=1, mode="stop", state="warned"),
        Snooze.objects.create(policy=policy, instance_id="a", until=timezone.now(), by="ann"),
        channel := Channel.objects.create(name="ops", receiver="https://hook.test"),
        event := Event.objects.create(kind="test", key="k", title="Test"),
        Message.objects.create(event=event, channel=channel, message_id="msg_2", state="sent"),
        user,
        token,
    ]
    return {str(one._meta.model_name): str(one.pk) for one in records}


def make_user(role: Role | None, name: str = "ann") -> User:
    """Make a user with a role; None for a superuser."""
    user = User.objects.create_user(name, is_superuser=role is None)
    if role:
        user.groups.add(Group.objects.get_or_create(name=role.label)[0])
    return user


# Those for whom each route is tried, the lowest role first.
SESSIONS: Final = {"nobody": -1, **{role.label: int(role) for role in Role}}


def make_client(who: str) -> Client:
    """Make a client of nobody, of a user with this role, of a superuser, or of one's token."""
    if who == "nobody":
        return ApiClient()
    if who == "wrong token":
        return ApiClient(headers={"Authorization": f"Bearer nvp_{'0' * 64}"})
    name = who.removesuffix("'s token")
    user = make_user(None if name == "superuser" else next(role for role in Role if role.label == name), who)
    if name == who:
        client = ApiClient()
        client.force_login(user)
        return client
    _, text = Token.objects.create(user=user, name=name, role=name if name in ROLES else "admin")
    return ApiClient(headers={"Authorization": f"Bearer {text}"})


# The limits count refused requests, too; what was read at Novita is kept for some minutes, and so is whose metrics
# somebody looks at.
_PASSING: Final = re.compile(b":(rate|known|bills):|:metrics-watched$")


def take_stock(novita: NovitaAnswers, raw_redis: FakeRedis) -> tuple[Any, ...]:
    """Return all that an act would change."""
    models = (Operation, Protection, Annotation, LabelRule, SyncRun, Token, User, Session)
    models += (StartFreeze, Policy, Finding, Snooze, Channel, Event, Message)
    return (
        *(model.objects.count() for model in models),
        list(AuditEntry.objects.values_list("actor", "action", "target", "outcome")),
        list(User.objects.values_list("password", "is_active")),
        list(Operation.objects.values_list("state", "notes")),
        list(WebhookDelivery.objects.values_list("state", "tries")),
        sorted(key for key in raw_redis.scan_iter() if not _PASSING.search(key)),
        # Reading the bill reads Novita, too.
        [call.request.url for call in novita.mock.calls if call.request.method != "GET"],
    )


def find_path(template: str, account: Mapping[str, str]) -> str:
    """Put ids into a route."""
    model = re.match(r"/admin/\w+/(\w+)/<", template)
    id_ = account.get(model[1], "1") if model else "a"
    if template.startswith("/api/operations/"):
        id_ = account["operation"]
    path = template.replace("<app_label>", "instances").replace("<url>", "nope/")
    return re.sub(r"<[^>]*>", id_, path)


def is_refusal(answer: Any, method: str, code: str) -> bool:
    """Tell whether it is the API's refusal, in the one shape of all errors."""
    if method == "HEAD":
        return answer.content == b""
    body = answer.json()
    names = {"success", "code", "message", "suggestion", "requestId", "timestamp"}
    return body.keys() == names and body["code"] == code and not body["success"] and body["message"].endswith(".")


@pytest.fixture
def pages_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render a page for GET and POST. Django would render what it renders for GET for each other method again."""
    render = SimpleTemplateResponse.rendered_content

    def render_once(response: Any) -> str:
        is_new = getattr(response, "_request", None) is None or response._request.method in {"GET", "POST"}
        return str(render.fget(response)) if is_new else ""  # type: ignore[attr-defined]  # a property

    monkeypatch.setattr(SimpleTemplateResponse, "rendered_content", property(render_once))


# --- No route is missing here


def list_views() -> Any:
    """Return every view with the pattern of its route."""
    return extract_views_from_urlpatterns(get_resolver().url_patterns)


def list_routes() -> set[str]:
    """Return every route that there is, without the slash that may stand at its end."""
    return {simplify_regex(regex).replace("\\", "").rstrip("/") for _, regex, _, _ in list_views()}


def test_every_route_has_its_entry_here() -> None:
    known = {*API, *API_PAGES, *OPEN, *PAGES} - {"/api/nope"}

    assert list_routes() - known == set(), "a new route: who may?"
    assert known - list_routes() == set(), "no such route any more"


def test_every_method_of_the_api_has_its_entry_here() -> None:
    described = SchemaGenerator().get_schema(public=True)["paths"]  # type: ignore[no-untyped-call]  # its
    routes = {
        (path.replace("{id}", "<pk>"), method.upper())
        for path, methods in described.items()
        for method in methods
        if path != "/health"
    }

    assert routes == {(path, method) for path, methods in API.items() for method in methods}


# --- The API


def test_each_view_of_the_api_takes_the_same_logins_and_requires_a_role() -> None:
    views = {view.cls for view, regex, _, _ in list_views() if simplify_regex(regex).startswith("/api/")}

    assert len(views) > 5
    for view in views:
        assert view.authentication_classes == api_settings.DEFAULT_AUTHENTICATION_CLASSES, view
        assert view.permission_classes == [RoleRequired], view


class Request(NamedTuple):
    """A request of somebody, and whether that role must be refused."""

    who: str
    role: int
    method: str
    template: str
    path: str
    is_refused: bool


def list_requests(
    template: str,
    path: str,
    whom: Mapping[str, int],
    methods: Callable[[int], Iterable[str]],
    least: Callable[[str], int],
) -> list[Request]:
    """Return each visitor's requests, by the methods for a role and the least role for a method."""
    return [
        Request(who, role, one, template, path, role < least(one))
        for who, role in whom.items()
        for one in methods(role)
    ]


@pytest.fixture
def find_wrong(novita: NovitaAnswers, raw_redis: FakeRedis) -> Callable[..., list[str]]:
    """Send requests. Return the wrong answers, and what has changed by refused requests and by reads.

    Another site's page may make a browser send any read: an image, a link and a prefetched address change nothing.
    """

    def find_wrong(requests: list[Request], write_body: Any, is_right: Callable[[Request, Any], bool]) -> list[str]:
        clients = {who: make_client(who) for who in dict.fromkeys(one.who for one in requests)}
        harmless = [one for one in requests if one.is_refused or one.method in READS]
        wrong = []

        def send(one: Request) -> None:
            body, headers = write_body(one), {"Sec-Fetch-Site": "cross-site"} if one.method in READS else {}
            answer = clients[one.who].generic(one.method, one.path, body, "application/json", headers=headers)
            if not is_right(one, answer):
                wrong.append(f"{one.who}: {one.method} {one.path}: {answer.status_code}")
            if one.path == "/admin/logout/" and one.method == "POST" and not one.is_refused:
                clients[one.who].force_login(User.objects.get(username=one.who))

        before = take_stock(novita, raw_redis)
        for one in harmless:
            send(one)
        if (after := take_stock(novita, raw_redis)) != before:
            wrong.append(f"changed: {before} → {after}")
        for one in requests:
            if one not in harmless:
                send(one)
        return wrong

    return find_wrong


@pytest.mark.thorough
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("templates", group((*API, *API_PAGES)), ids=lambda templates: templates[0])
def test_the_api_does_for_each_role_what_it_may(
    account: Mapping[str, str], find_wrong: Callable[..., list[str]], templates: list[str]
) -> None:
    def list_methods(role: int, template: str) -> Iterable[str]:
        known = sorted({"GET", *API.get(template, {})})
        # What a method answers that isn't there depends on no role, so only a viewer tries all of them.
        return METHODS if role == VIEWER else known if role > VIEWER else sorted({*known, "PATCH"})

    requests = [one for template in templates for one in list_api_requests(template, account, SESSIONS, list_methods)]

    wrong = find_wrong(requests, write_api_body, is_right_of_api)

    assert wrong == []


TOKENS: Final = {
    "wrong token": -1,
    **{f"{role.label}'s token": int(role) for role in Role},
    "superuser": int(ADMIN),
    "superuser's token": int(ADMIN),
}


@pytest.mark.thorough
@pytest.mark.django_db(transaction=True)
def test_a_token_does_what_its_role_may(account: Mapping[str, str], find_wrong: Callable[..., list[str]]) -> None:
    """All views take tokens as they take sessions, so some stand for all."""
    templates = ["/api/instances/<pk>/protect", "/api/operations", "/api/cache/clear", "/api/docs"]
    requests = [one for template in templates for one in list_api_requests(template, account, TOKENS)]

    wrong = find_wrong(requests, write_api_body, is_right_of_api)

    assert wrong == []


def list_api_requests(
    template: str,
    account: Mapping[str, str],
    whom: Mapping[str, int],
    list_methods: Callable[[int, str], Iterable[str]] = lambda role, template: METHODS,
) -> list[Request]:
    return list_requests(
        template,
        find_path(template, account),
        whom,
        lambda role: list_methods(role, template),
        lambda method: API.get(template, {}).get(method, VIEWER),
    )


def write_api_body(request: Request) -> bytes | str:
    has_body = request.method == "POST" and request.template in BODIES
    return json.dumps(BODIES[request.template]) if has_body else b""


def is_right_of_api(request: Request, answer: Any) -> bool:
    if not request.is_refused:
        return answer.status_code not in {401, 403, 500} and _has_method(request, answer)
    # The page of the documentation is made for browsers, which are led to the login.
    if request.role == -1 and request.template == "/api/docs" and request.method == "GET":
        return bool(answer.status_code == 302)
    status, code = (401, "NOT_AUTHENTICATED") if request.role == -1 else (403, "NOT_ALLOWED")
    return answer.status_code == status and is_refusal(answer, request.method, code)


def _has_method(request: Request, answer: Any) -> bool:
    if request.template not in API or request.method in {"HEAD", "OPTIONS"}:
        return True
    return (answer.status_code == 405) == (request.method not in API[request.template])


@pytest.mark.parametrize("path", ["/api/instances", "/api/cache/stats", "/api/protections", "/api/docs", "/api"])
def test_a_user_without_a_role_reads_nothing_in_a_browser_either(path: str) -> None:
    client = Client(headers={"accept": "text/html"})
    client.force_login(make_user(Role.NONE))

    answer = client.get(path)

    assert answer.status_code == 403
    assert b"NOT_ALLOWED" in answer.content


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
@pytest.mark.parametrize("path", ["/api/operations", "/api/instances/a/protect", "/api/cache/clear"])
def test_a_page_of_the_api_opens_for_who_may_not_act_there(role: Role, path: str) -> None:
    client = Client(headers={"accept": "text/html"})
    client.force_login(make_user(role))

    assert client.get(path).status_code in {200, 405}
    assert client.delete(path).status_code in {403, 405}


def test_a_browser_that_is_not_logged_in_gets_a_refusal_for_a_form() -> None:
    answer = Client(headers={"accept": "text/html"}).post("/api/cache/clear", "", "application/json")

    assert answer.status_code == 401
    assert b"NOT_AUTHENTICATED" in answer.content


# --- What else than the route decides


@pytest.fixture
def running_operations() -> dict[bool, str]:
    """Two operations that go on, of the whole account and of a part of it."""
    return {
        is_whole: str(
            Operation.objects.create(
                kind="stop", is_whole_account=is_whole, selection=f"stop:{is_whole}", deadline_at=timezone.now()
            ).pk
        )
        for is_whole in (True, False)
    }


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/operations", '{"kind": "stop", "ids": ["a"], "webhookUrl": "https://hook.test/"}'),
        ("/api/operations", '{"kind": "stop", "ids": ["a"], "webhookUrl": "https://hook.test/", "dryRun": true}'),
        ("/api/instances/stop-all", '{"dryRun": true}'),
        ("/api/instances/stop-all", '{"webhookUrl": "https://hook.test/"}'),
        ("/api/instances/stop-all", "{"),
    ],
)
def test_webhooks_and_stop_all_are_an_admins(
    novita: NovitaAnswers, raw_redis: FakeRedis, role: Role, path: str, body: str
) -> None:
    client = ApiClient()
    client.force_login(make_user(role))
    before = take_stock(novita, raw_redis)

    answer = client.post(path, body)

    assert answer.status_code == 403
    assert answer.json()["code"] == "NOT_ALLOWED"
    assert take_stock(novita, raw_redis) == before


def test_an_operator_may_try_out_a_stop_of_some(novita: NovitaAnswers) -> None:
    client = ApiClient()
    client.force_login(make_user(Role.OPERATOR))
    novita.shows(make_row("a"))

    answer = client.post("/api/operations", '{"kind": "stop", "ids": ["a"], "dryRun": true}')

    assert answer.status_code == 200
    assert not Operation.objects.exists()


@pytest.mark.parametrize(
    ("role", "is_whole", "status"),
    [
        (Role.VIEWER, False, 403),
        (Role.VIEWER, True, 403),
        (Role.OPERATOR, False, 200),
        (Role.OPERATOR, True, 403),
        (Role.ADMIN, True, 200),
    ],
)
def test_only_an_admin_cancels_a_stop_of_all(
    running_operations: dict[bool, str], role: Role, is_whole: bool, status: int
) -> None:
    client = ApiClient()
    client.force_login(make_user(role))
    id_ = running_operations[is_whole]

    answer = client.post(f"/api/operations/{id_}/cancel")

    assert answer.status_code == status
    assert (Operation.objects.get(pk=id_).state == "cancelled") == (status == 200)


# --- The pages


def test_all_records_have_the_same_permissions() -> None:
    for model, model_admin in admin.site._registry.items():
        if model._meta.model_name not in RECORDS:
            continue
        assert isinstance(model_admin, RecordAdmin), model
        assert model_admin.role_to_view == VIEWER, model
        for name in ("view", "add", "change", "delete", "module"):
            method = getattr(type(model_admin), f"has_{name}_permission")
            assert method is getattr(RecordAdmin, f"has_{name}_permission"), (model, name)


def list_page_requests(
    template: str, account: Mapping[str, str], whom: Mapping[str, int], methods: Mapping[int, Iterable[str]]
) -> list[Request]:
    """Return the requests of a page: GET and POST, unless `methods` names others for a role."""
    reader, sender = PAGES[template]
    # Django takes other methods for a GET, or doesn't have them.
    needed = {"POST": sender, **dict.fromkeys(READS, reader)}
    return list_requests(
        template,
        f"{find_path(template, account)}/" if template else "/",
        whom,
        lambda role: methods.get(role, ("GET", "POST")),
        lambda one: needed.get(one, min(reader, sender)),
    )


def is_right_page(request: Request, answer: Any) -> bool:
    if not request.is_refused:
        is_known = request.path == f"{AUTOCOMPLETE}/" and answer.status_code == 403
        return not is_login(answer) and (is_known or answer.status_code not in {401, 403, 500})
    if request.role == -1:
        return is_login(answer)
    return answer.status_code == 403 and (b"Not allowed" in answer.content or request.method == "HEAD")


def list_same_pages(record: str) -> list[str]:
    """Return those pages of a record that all records have, for the same roles."""
    pages = [template for template in PAGES if re.fullmatch(rf"/admin/instances/{record}(/.*)?", template)]
    return [template for template in pages if PAGES[template] != (VIEWER, OPERATOR)]


@pytest.mark.usefixtures("pages_rendered_once")
@pytest.mark.parametrize(
    "templates",
    group(one for one in PAGES if one not in {page for record in RECORDS[1:] for page in list_same_pages(record)}),
    ids=lambda templates: templates[0] or "/",
)
@pytest.mark.thorough
def test_a_page_does_for_each_role_what_it_may(
    account: Mapping[str, str], find_wrong: Callable[..., list[str]], templates: list[str]
) -> None:
    # Tokens are for the API. A method that is neither GET nor POST does for all roles the same: they take turns.
    whom = {**SESSIONS, "superuser's token": -1}
    others = cycle(one for one in METHODS if one not in {"GET", "POST"})
    requests = []
    for template, other in zip(templates, others, strict=False):
        methods = {Role.NONE: ("GET", "POST", other), VIEWER: ("GET", "POST", other)}
        requests += list_page_requests(template, account, whom, methods)

    wrong = find_wrong(requests, lambda request: b"", is_right_page)

    assert wrong == []


@pytest.mark.usefixtures("pages_rendered_once")
@pytest.mark.thorough
def test_pages_of_other_records_do_for_each_role_what_those_of_the_first_do(
    account: Mapping[str, str], find_wrong: Callable[..., list[str]]
) -> None:
    whom = {"nobody": -1, "none": 0, "admin": int(ADMIN)}
    templates = [template for record in RECORDS[1:] for template in list_same_pages(record)]
    pages = [list_page_requests(one, account, whom, {-1: ["GET"], 0: ["POST"]}) for one in templates]

    wrong = find_wrong([request for page in pages for request in page], lambda request: b"", is_right_page)

    assert wrong == []


def is_login(answer: Any) -> bool:
    return answer.status_code == 302 and "/login/?next=" in answer["Location"]


# --- What a role is


@pytest.mark.usefixtures("account")
def test_the_groups_carry_the_roles_names() -> None:
    for name, role in ROLES.items():
        client = ApiClient()
        client.force_login(make_user(role, name))
        statuses = [
            client.get("/api/instances").status_code,
            client.post("/api/instances/a/protect", '{"reason": "x"}').status_code,
            client.post("/api/cache/clear").status_code,
        ]
        assert [status != 403 for status in statuses] == [role >= needed for needed in (1, 2, 3)]


def test_the_highest_of_several_roles_counts() -> None:
    user = make_user(Role.VIEWER)
    user.groups.add(Group.objects.get_or_create(name="admin")[0], Group.objects.create(name="cleaners"))
    client = ApiClient()
    client.force_login(user)

    assert client.post("/api/cache/clear").status_code == 200


@pytest.mark.parametrize("name", ["Admin", "admins", "superuser", "none", ""])
def test_a_group_of_another_name_is_no_role(name: str) -> None:
    user = make_user(Role.NONE)
    user.groups.add(Group.objects.create(name=name))
    client = ApiClient()
    client.force_login(user)

    assert client.get("/api/instances").status_code == 403


def test_staff_without_a_role_may_nothing() -> None:
    user = make_user(Role.NONE)
    User.objects.update(is_staff=True)
    client = ApiClient()
    client.force_login(user)

    assert [client.get(path).status_code for path in ("/", "/admin/", "/api/instances")] == [403, 403, 403]


def test_a_role_that_is_taken_away_is_gone_at_once() -> None:
    user = make_user(Role.ADMIN)
    client = ApiClient()
    client.force_login(user)
    assert client.post("/api/cache/clear").status_code == 200

    user.groups.set([Group.objects.get_or_create(name="viewer")[0]])

    assert client.post("/api/cache/clear").status_code == 403
    assert client.get("/api/instances").status_code == 200
