"""The local owner: every visitor at the machine, and no visitor through a proxy."""

from typing import Any

import pytest
from pytest_django import Settings

from instances.inventory.sync import synchronize
from tests.conftest import ApiClient
from tests.novita_answers import NovitaAnswers, make_row

pytestmark = pytest.mark.django_db

LIST = "/api/instances"
PUBLIC = "https://panel.example.com"
ADDED_BY_PROXIES = """
Forwarded Forwarded-For Via X-Forwarded-For X-Forwarded-Proto X-Forwarded-Anything X-Forwarded Forwarded-Proto
X-Real-IP X-Real-Port X-Original-URL X-Original-Host X-Original-Forwarded-For X-Originating-IP X-Client-IP Client-IP
X-Cluster-Client-IP X-ProxyUser-Ip Proxy-Client-IP WL-Proxy-Client-IP X-Remote-IP Remote-User X-Scheme Front-End-Https
Max-Forwards X-Request-Start X-Varnish X-Envoy-External-Address X-Envoy-Internal X-Kong-Request-Id X-BlueCoat-Via
CF-Connecting-IP CF-Connecting-IPv6 CF-Ray CF-Visitor CF-IPCountry CF-Access-Jwt-Assertion CF-Warp-Tag-Id CDN-Loop
True-Client-IP Akamai-Origin-Hop X-Akamai-Edgescape Fastly-Client-IP Fastly-FF X-Sucuri-ClientIP Incap-Client-IP
CloudFront-Viewer-Address X-Amz-Cf-Id X-Amzn-Trace-Id X-Edge-Location Ali-CDN-Real-IP CDN-Src-Ip
Fly-Client-IP Fly-Region Fly-Request-Id X-Azure-ClientIP X-Azure-Ref X-Azure-FDID X-FD-HealthProbe X-ARR-LOG-ID
X-ARR-SSL X-MS-Client-Principal DISGUISED-HOST WAS-DEFAULT-HOSTNAME X-Appengine-User-IP X-Appengine-Country
X-Goog-Authenticated-User-Email X-Cloud-Trace-Context X-Vercel-Id X-Vercel-Forwarded-For X-NF-Client-Connection-IP
X-Railway-Edge Rndr-Id DO-Connecting-IP X-Replit-User-Id
X-NginX-Proxy X-Forward-For X-Rewrite-URL X-Cdn X-Https
Tailscale-User-Login Tailscale-User-Name Tailscale-Headers-Info Ngrok-Auth-User-Id X-Tunnel-Id X-Auth-Request-User
X-Visitor-IP My-Own-Client-IP X-Source-IP X-Peer-Addr X-New-Cdn-Client-Ip-Country
"""
# Headers that local programs send and proxies don't add.
SENT_BY_PROGRAMS = """
User-Agent Accept Accept-Language Cookie Cache-Control DNT Sec-GPC Upgrade-Insecure-Requests X-Requested-With Priority
X-Request-Id X-Correlation-Id Idempotency-Key traceparent tracestate baggage sentry-trace X-B3-TraceId Sec-CH-UA
X-CSRFToken Viewport-Width If-None-Match Range From Prefer X-Prometheus-Scrape-Timeout-Seconds X-Api-Key X-Auth-Token
"""

LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
FETCH = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
FORM = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.fixture
def account(novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"))
    synchronize("command")


def wants_login(answer: Any) -> bool:
    return answer.status_code == 401 or (answer.status_code == 302 and answer["Location"].startswith("/login/"))


def test_headers_of_a_proxy_make_a_request_require_login(client: ApiClient) -> None:
    opened = [
        name
        for name in ADDED_BY_PROXIES.split()
        for value in ("127.0.0.1", "")
        if not wants_login(client.get(LIST, headers={name: value}))
    ]

    assert opened == []


def test_headers_of_a_local_program_require_no_login(client: ApiClient) -> None:
    refused = [name for name in SENT_BY_PROGRAMS.split() if wants_login(client.get(LIST, headers={name: "1"}))]

    assert refused == []


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": PUBLIC},
        {"Origin": PUBLIC, **FETCH},
        {"Origin": "http://192.0.2.7:8080"},
        {"Origin": "http://localhost.evil.test"},
        {"Origin": "http://["},
        {"Origin": "testserver"},
        {"Referer": f"{PUBLIC}/"},
        {"Referer": f"{PUBLIC}/", **FETCH},
        {"Referer": "http://panel.example.com/", "Origin": "null", "Sec-Fetch-Site": "none"},
        {"Referer": f"{PUBLIC}/login/", **FORM},
    ],
    ids=str,
)
def test_page_with_another_host_name_can_neither_read_nor_act(
    client: ApiClient, novita: NovitaAnswers, headers: dict[str, str]
) -> None:
    assert wants_login(client.get(LIST, headers=headers))
    assert wants_login(client.get("/", headers=headers))
    for path in ("/api/cache/clear", "/api/instances/a/stop", "/api/instances/stop-all", "/api/instances/sync"):
        assert client.post(path, headers=headers).status_code in {401, 403}

    assert len(novita.mock.calls) == 1, "Novita was asked"
    assert client.get(LIST).json()["total"] == 1, "the next request of the owner himself is served"


OWN_AND_LINKS = [
    LINK,
    {**LINK, "Referer": "https://wiki.example.com/gpus"},
    {**LINK, "Referer": "https://wiki.example.com/gpus", "Sec-Fetch-User": "?1"},
    {**LINK, "Sec-Fetch-Site": "same-site", "Referer": "http://localhost:8000/"},
    {**LINK, "Sec-Fetch-Site": "none"},
    {"Referer": "http://localhost:3000/", **FETCH},
    {"Referer": "http://127.0.0.1:3000/"},
    {"Referer": "http://[::1]:3000/"},
    {"Referer": "http://testserver/admin/"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Referer": ""},
]


def test_owner_opens_the_dashboard_from_links_and_own_pages(client: ApiClient) -> None:
    for headers in OWN_AND_LINKS:
        assert client.get("/", headers=headers).status_code == 200, headers


@pytest.mark.parametrize(
    "change",
    [
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Dest": "iframe"},
        {"Sec-Fetch-Dest": "image"},
    ],
    ids=str,
)
def test_foreign_referer_is_accepted_only_for_a_followed_link(client: ApiClient, change: dict[str, str]) -> None:
    assert wants_login(client.get("/", headers={**LINK, "Referer": f"{PUBLIC}/", **change}))


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("path", ["/", LIST, "/api/docs", "/admin/"])
def test_http_1_0_requires_login(client: ApiClient, path: str) -> None:
    assert wants_login(client.get(path, SERVER_PROTOCOL="HTTP/1.0"))
    assert wants_login(client.post("/api/instances/stop-all", SERVER_PROTOCOL="HTTP/1.0", CONTENT_LENGTH="0"))


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
def test_probe_over_http_1_0_is_answered(client: ApiClient, path: str) -> None:
    answer = client.get(path, SERVER_PROTOCOL="HTTP/1.0")

    assert answer.status_code == 200
    assert path != "/health" or answer.json().keys() == {"status", "timestamp"}


def test_foreign_page_in_the_owners_browser_does_not_end_access(client: ApiClient, settings: Settings) -> None:
    for headers in ({"Origin": "https://evil.test"}, {"Referer": "https://evil.test/"}, {"CF-Ray": "1"}):
        client.get(LIST, headers=headers)
        client.post("/api/cache/clear", headers=headers)

        assert client.get(LIST).status_code == 200
        assert client.post("/api/cache/clear").status_code == 200
