"""Static files: one address for each version, kept by the browser, and the dashboard's files as two bundles."""

import gzip
from collections.abc import Mapping

import pytest
from django.test import Client

from novita_site import bundles, static_files

STYLE = "instances/dashboard.bundle.css"
SCRIPT = "instances/dashboard.bundle.js"
PAGE = "instances/page.bundle.js"
LATER = "instances/later.bundle.js"


def get_address(name: str, version: str = "") -> str:
    return f"/static/{version or static_files.find_version()}/{name}"


@pytest.mark.parametrize(
    "name", [STYLE, SCRIPT, PAGE, LATER, "admin/css/base.css", "instances/session.js", "admin/img/icon-no.svg"]
)
def test_file_with_the_hash_is_kept_for_good(name: str, client: Client) -> None:
    answer = client.get(get_address(name))

    assert answer.status_code == 200
    assert answer["Cache-Control"] == "public, max-age=31536000, immutable"


def test_file_with_another_hash_is_not_kept(client: Client) -> None:
    answer = client.get(get_address(SCRIPT, "0" * 12))

    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-cache"


def test_file_is_compressed_for_those_who_accept_it(client: Client) -> None:
    plain = client.get(get_address(SCRIPT))
    packed = client.get(get_address(SCRIPT), headers={"Accept-Encoding": "gzip"})

    assert "Content-Encoding" not in plain
    assert packed["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.content) == plain.content
    assert packed["Content-Length"] == str(len(packed.content))
    assert packed["Vary"] == "Accept-Encoding"


def test_head_has_the_headers_of_get(client: Client) -> None:
    head, get = client.head(get_address(STYLE)), client.get(get_address(STYLE))

    assert head.content == b""
    assert head["Content-Length"] == get["Content-Length"]


def test_known_file_is_answered_by_304(client: Client) -> None:
    etag = client.get(get_address(STYLE))["ETag"]

    answer = client.get(get_address(STYLE), headers={"If-None-Match": etag})

    assert answer.status_code == 304
    assert answer.content == b""


@pytest.mark.django_db
@pytest.mark.parametrize(
    "name", ["nope.css", "../settings.py", "instances/../../settings.py", "instances", "/etc/hosts"]
)
def test_file_that_does_not_exist_is_not_found(name: str, client: Client) -> None:
    assert client.get(get_address(name)).status_code == 404


def test_file_takes_no_post(client: Client) -> None:
    assert client.post(get_address(STYLE)).status_code in {404, 405}


def test_style_bundle_has_the_rules_of_the_dashboard_and_of_no_other_page() -> None:
    style = bundles.build(STYLE, static_files.read).decode()

    for selector in (
        ".bar",
        ".skip-link",
        "#instances",
        ".status",
        "light-dark(",
        "@media (max-width:",
    ):
        assert selector in style, selector
    for selector in (".form-row", "#changelist", "#header"):
        assert selector not in style, selector
    assert style.count("{") == style.count("}")


def make_reader(files: Mapping[str, str]) -> bundles.Read:
    everything = {"instances/dashboard.js": "", "instances/later.js": "", **files}
    return lambda name: everything[name].encode() if name in everything else None


def test_module_follows_those_that_it_imports() -> None:
    files = {
        "instances/dashboard.js": "import {b as c} from './list/b.js';\n"
        "import * as all from './a.js';\n\n// Why.\nc(all);\n",
        "instances/list/b.js": "import {a} from '../a.js';\n\nexport function b() {\n    return a;\n}\n",
        "instances/a.js": "export const a = 1;\n",
    }

    bundle = bundles.build(SCRIPT, make_reader(files)).decode()

    assert bundle.splitlines() == [
        "const $instances_a = (() => {",
        "const a=1;",
        "return {a};",
        "})();",
        "const $instances_list_b = (() => {",
        "const {a} = $instances_a;",
        "function b(){return a;}",
        "return {b};",
        "})();",
        "const $instances_dashboard = (() => {",
        "const {b: c} = $instances_list_b;",
        "const all = $instances_a;",
        "c(all);",
        "return {};",
        "})();",
        "export {};",
    ]


def test_bundle_that_is_loaded_later_takes_the_common_modules_from_the_first_one() -> None:
    files = {
        "instances/dashboard.js": "import {a} from './a.js';\n\na(() => import('./later.js'));\n",
        "instances/later.js": "import {a} from './a.js';\nimport {b} from './b.js';\n\n"
        "export function use() {\n    a(b);\n}\n",
        "instances/a.js": "export function a() {\n}\n",
        "instances/b.js": "export const b = 1;\n",
    }

    first = bundles.build(SCRIPT, make_reader(files)).decode().splitlines()
    later = bundles.build(LATER, make_reader(files)).decode().splitlines()

    assert "a(()=>import('./later.bundle.js'));" in "".join(first)
    assert first[-1] == "export {$instances_a};"
    assert later[0] == "import {$instances_a} from './dashboard.bundle.js';"
    assert "const $instances_b = (() => {" in later
    assert "const $instances_a = (() => {" not in later
    assert later[-1] == "export const {use} = $instances_later;"


@pytest.mark.django_db
def test_old_page_gets_nothing_to_load_later_from_another_version(client: Client) -> None:
    assert client.get(get_address(LATER)).status_code == 200
    assert client.get(get_address(LATER, "0" * 12)).status_code == 404


@pytest.mark.parametrize(
    ("line", "shortened"),
    [
        ("const a = b + 1; // It isn't c.", "const a=b + 1;"),
        ("call('a = b', \"c, d\");", "call('a = b',\"c, d\");"),
        ("call(`a = ${b}`); // why", "call(`a = ${b}`); // why\n"),
        ("const found = /a, b/.exec(text); // why", "const found = /a, b/.exec(text);\n"),
        ("link('https://a.example // b', c);", "link('https://a.example // b',c);"),
        ("if (a) {", "if(a){"),
        ("[a, b]", "[a,b]\n"),
    ],
)
def test_script_loses_comments_and_blanks_but_no_text(line: str, shortened: str) -> None:
    assert bundles._shorten_line(line) == shortened


@pytest.mark.parametrize(
    ("style", "shortened"),
    [
        ('.a:hover .b,\n.c {\n    color: red;\n    content: ": x";\n}\n', '.a:hover .b,.c{color:red;content:": x";}'),
        (
            "/* Why. */\n@media (max-width: 9px) {\n    .a {\n        top: calc(1px + 2px);\n    }\n}\n",
            "@media (max-width: 9px){.a{top:calc(1px + 2px);}}",
        ),
    ],
)
def test_style_loses_comments_and_blanks_but_no_rule(style: str, shortened: str) -> None:
    assert bundles._shorten_style(style) == shortened


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("export default 1;\n", "another form"),
        ("import './a.js';\n", "another form"),
        ("import {a} from './missing.js';\n", "missing"),
        ("import {a} from './dashboard.js';\n", "imports itself"),
    ],
)
def test_module_that_a_bundle_cannot_express_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        bundles.build(SCRIPT, make_reader({"instances/dashboard.js": text}))
