"""The table: the address holds search, filters, order and page. Names from outside stay text."""

import logging
import re
import statistics
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import (
    CREATED_AT,
    NARROW,
    WIDE,
    Panel,
    Visit,
    Witness,
    make_operation,
    show_operations,
)

pytestmark = pytest.mark.xdist_group("browser 1")

log = logging.getLogger(__name__)

REGIONS = ("US-CA-06 (California)", "AS-SGP-02 (Singapore)", "EU-DE-01 (Frankfurt)")
HOSTILE = {
    "markup": "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>",
    "right to left": "\u202egnp.evil\u202c \u200f\u05e9\u05dc\u05d5\u05dd",
    "long": "x" * 300,
    "long words": "very long " * 30,
    "emoji": "🧨👩‍👩‍👧‍👦🏴‍☠️",
    "combining": "Z" + "\u0301\u0302\u0308" * 60,
}
# Counts what an input costs: texts made comparable, and changed rows.
MEASURE_TYPING = """async texts => {
    const field = document.querySelector('input[name=search]');
    const lower = String.prototype.toLowerCase;
    const costs = [];
    let folded = 0;
    String.prototype.toLowerCase = function () {
        folded += 1;
        return lower.call(this);
    };
    const observer = new MutationObserver(() => {});
    observer.observe(document.querySelector('#instances tbody'), {childList: true});
    for (const text of texts) {
        folded = 0;
        const began = performance.now();
        field.value = text;
        field.dispatchEvent(new InputEvent('input', {bubbles: true}));
        await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
        const rows = new Set(observer.takeRecords().flatMap(one => [...one.addedNodes, ...one.removedNodes]));
        costs.push({ms: performance.now() - began, folded, rows: rows.size});
    }
    return costs;
}"""


def list_names(page: Page) -> list[str]:
    return page.locator("#instances tbody tr[data-id] th").all_inner_texts()


def read_query(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


@pytest.fixture
def many(panel: Panel) -> Panel:
    """250 instances, vm-000 … vm-249, each newer than the one before; two of three run, in three regions."""
    rows = [
        {
            "id": f"id{number:03}",
            "name": f"vm-{number:03}",
            "status": "exited" if number % 3 == 0 else "running",
            "clusterId": f"cluster-{number % 3}",
            "clusterName": REGIONS[number % 3],
            "productId": f"p{number % 10}",
            "productName": "H100 SXM 80GB" if number % 10 == 0 else "RTX 4090 24GB",
            "gpuNum": "2",
            "instancePrice": "35000",
            "createdAt": str(1_700_000_000 + 3600 * number),
        }
        for number in range(250)
    ]
    panel.hold(*rows)
    return panel


def get_tab(page: Page, name: str) -> Locator:
    return page.get_by_role("navigation", name="Status").get_by_role("link", name=re.compile(f"^{name} "))


def choose_filter(page: Page, name: str, value: str) -> None:
    page.get_by_role("button", name=re.compile("^Filters")).click()
    page.get_by_role("combobox", name=name).select_option(value)
    page.keyboard.press("Escape")


def test_row_describes_its_instance(many: Panel, visit: Visit) -> None:
    row = visit("/?search=vm-010").get_by_role("row", name="vm-010")

    for words in ("Running", "2 × H100 SXM 80GB", "0.70", REGIONS[1]):
        expect(row.get_by_role("cell", name=words, exact=True)).to_be_visible()
    expect(row.get_by_text("Running")).to_have_attribute("title", "running")
    expect(row.locator("time")).to_have_text(re.compile(r"^\d+ d ago$"))
    expect(row.locator("time")).to_have_attribute("title", re.compile("2023"))


def test_dearest_instances_come_first_in_the_words_of_the_server(panel: Panel, visit: Visit) -> None:
    started = {"createdAt": str(CREATED_AT), "lastStartedAt": str(CREATED_AT)}
    panel.hold(
        {"id": "price-a", "name": "stopped", "status": "exited", "rootfsSize": 60, **started},
        {"id": "price-b", "name": "cheap", "instancePrice": "35000", "gpuNum": "2", "billingMode": "spot", **started},
        {"id": "price-c", "name": "dear", "instancePrice": "129000", "gpuNum": "8", **started},
        {"id": "price-d", "name": "monthly", "instancePrice": "129000", "billingMode": "monthly", **started},
        {"id": "price-e", "name": "pulling", "status": "pulling", "instancePrice": "35000", **started},
        {
            "id": "price-f",
            "name": "broken",
            "status": "exited",
            "statusError": {"state": "Bad", "message": "no such tag"},
        },
    )
    # Of the columns that show; the boxes and the buttons are the script's.
    read_rows = """all => all.map(row => [...row.cells].map(cell => [cell.className, cell.innerText.trim()])
        .filter(([name, text]) => text && !/select|actions/.test(name)).map(([, text]) => text))"""
    wide = {"width": 1920, "height": 1080}
    plain = visit("/?columns=name,status,gpu,price,up,spent,region,billing", viewport=wide, java_script_enabled=False)
    page = visit("/?columns=name,status,gpu,price,up,spent,region,billing", viewport=wide)
    expect(page.get_by_role("row", name="dear")).to_be_visible()
    scripted = page.locator("tbody tr").evaluate_all(read_rows)

    assert scripted == plain.locator("tbody tr").evaluate_all(read_rows)
    assert [row[0] for row in scripted] == ["broken", "pulling", "dear", "cheap", "monthly", "stopped"], scripted
    dear = scripted[2]
    assert dear[3] == "10.32"
    assert re.fullmatch(r"\d+ d", dear[4])
    assert re.fullmatch(r"\$\d+,\d{3}", dear[5])


def test_pages_of_100_rows_cover_the_whole_list(many: Panel, visit: Visit) -> None:
    page = visit("/?ordering=name")
    pages = page.get_by_role("navigation", name="Pages")
    expect(pages).to_contain_text("of 3")
    first = list_names(page)

    pages.get_by_label("Page").fill("3")
    pages.get_by_label("Page").press("Enter")

    expect(page.get_by_role("row", name="vm-200")).to_be_in_viewport()
    assert first == [f"vm-{number:03}" for number in range(100)]
    assert list_names(page) == [f"vm-{number:03}" for number in range(200, 250)]
    assert read_query(page) == {"ordering": ["name"], "page": ["3"]}
    pages.get_by_role("link", name="Previous").click()
    expect(pages.get_by_label("Page")).to_have_value("2")


def test_heading_sorts_the_whole_list_then_reverses_it_then_returns_to_the_first_order(
    many: Panel, visit: Visit
) -> None:
    page = visit()
    expect(page.locator("tr[data-id]")).to_have_count(100)
    heading = page.get_by_role("columnheader", name="Created")

    heading.get_by_role("link").click()
    expect(heading).to_have_attribute("aria-sort", "descending")
    assert list_names(page)[0] == "vm-249"
    heading.get_by_role("link").click()
    expect(heading).to_have_attribute("aria-sort", "ascending")
    assert list_names(page)[0] == "vm-000"
    assert read_query(page) == {"ordering": ["createdAt"]}
    heading.get_by_role("link").click()

    expect(heading).to_have_attribute("aria-sort", "none")
    assert list_names(page)[0] == "vm-001"
    assert read_query(page) == {}


def test_search_covers_name_id_region_and_gpu(many: Panel, visit: Visit) -> None:
    page = visit()
    for words, found in (("VM-01", 10), ("id24", 10), ("singapore", 83), ("h100", 25), ("cluster-2", 83), ("p0", 25)):
        page.get_by_role("searchbox").fill(words)

        expect(page.locator("#matches")).to_have_text(f"{found} of 250 match")
        assert len(list_names(page)) == found


def test_filters_combine_and_are_cleared_by_one_press(many: Panel, visit: Visit) -> None:
    page = visit()
    expect(get_tab(page, "All")).to_have_attribute("aria-current", "true")
    get_tab(page, "Running").focus()
    page.keyboard.press("Enter")
    choose_filter(page, "Region", REGIONS[2])
    choose_filter(page, "GPU", "H100 SXM 80GB")
    expect(page.locator("#matches")).to_have_text("8 of 250 match")
    expect(get_tab(page, "Running")).to_have_attribute("aria-current", "true")
    expect(get_tab(page, "Running")).to_have_text("Running 8")
    # The other tabs say what they would show.
    expect(get_tab(page, "Stopped")).to_have_text("Stopped 0")

    page.get_by_role("button", name="Clear filters").click()

    expect(page.locator("#matches")).to_have_text("250 instances")
    expect(page.get_by_role("button", name="Clear filters")).to_be_hidden()
    assert len(list_names(page)) == 100
    assert read_query(page) == {}


def test_address_reproduces_the_view(many: Panel, visit: Visit) -> None:
    page = visit()
    page.get_by_role("searchbox").fill("vm-")
    get_tab(page, "Running").click()
    page.get_by_role("columnheader", name="Name").get_by_role("link").click()
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_label("Page", exact=True)).to_have_value("2")

    other = visit(page.url, is_alone=True)

    expect(other.get_by_label("Page", exact=True)).to_have_value("2")
    expect(other.locator("tr[data-id]")).to_have_count(66)
    expect(other.get_by_role("searchbox")).to_have_value("vm-")
    expect(get_tab(other, "Running")).to_have_attribute("aria-current", "true")
    assert list_names(other) == list_names(page)


def test_back_and_forward_step_through_views(many: Panel, visit: Visit) -> None:
    page = visit("/?search=vm-01&group=running")
    expect(page.locator("#matches")).to_have_text("7 of 250 match")
    page.get_by_role("button", name="Clear filters").click()
    page.get_by_role("columnheader", name="Name").get_by_role("link").click()
    expect(page.locator("tr[data-id] th").first).to_have_text("vm-000")

    page.go_back()
    expect(page.locator("tr[data-id] th").first).to_have_text("vm-001")
    page.go_back()

    expect(page.locator("#matches")).to_have_text("7 of 250 match")
    expect(page.get_by_role("searchbox")).to_have_value("vm-01")
    expect(get_tab(page, "Running")).to_have_attribute("aria-current", "true")
    page.go_forward()
    expect(page.locator("#matches")).to_have_text("250 instances")


def test_invalid_address_shows_everything(many: Panel, visit: Visit) -> None:
    page = visit("/?page=999&ordering=evil&group=nonsense&columns=x&x=1")

    expect(page.get_by_label("Page", exact=True)).to_have_value("3")
    expect(get_tab(page, "All")).to_have_attribute("aria-current", "true")


def test_csv_link_exports_all_that_match(many: Panel, visit: Visit) -> None:
    page = visit("/?search=vm-1")
    get_tab(page, "Stopped").click()
    expect(page.locator("#matches")).to_have_text("33 of 250 match")

    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()

    lines = download.value.path().read_text("utf-8-sig").splitlines()
    assert re.fullmatch(r"instances-\d{4}-\d\d-\d\d\.csv", download.value.suggested_filename)
    assert len(lines) == 34


def test_chosen_columns_stay_until_they_are_reset(many: Panel, visit: Visit) -> None:
    page = visit("/?search=vm-010", viewport={"width": 1280, "height": 800})
    headings = page.get_by_role("columnheader")
    shown = ["Name", "Status", "GPU", "$/h", "Up for", "Since start", "Created", "Region", "Actions"]
    expect(headings).to_have_text(shown)

    page.get_by_role("button", name="View").click()
    page.get_by_role("checkbox", name="Billing").check()
    page.get_by_role("checkbox", name="Up for").uncheck()
    page.reload()

    expect(headings).to_have_text([*(name for name in shown[:-1] if name != "Up for"), "Billing", "Actions"])
    page.get_by_role("button", name="View").click()
    page.get_by_role("button", name="Reset columns").click()
    expect(headings).to_have_text(shown)


def test_columns_of_our_user_are_never_dropped_above_900_px(many: Panel, visit: Visit) -> None:
    page = visit("/?search=vm-010", viewport={"width": 1920, "height": 800})
    kept = ["Name", "Status", "GPU", "$/h", "Up for", "Since start", "Created", "Region", "Billing", "Actions"]
    expect(page.get_by_role("columnheader")).to_have_text(kept)

    page.set_viewport_size({"width": 900, "height": 800})

    dropped = {"Up for", "Since start", "Billing"}
    expect(page.get_by_role("columnheader")).to_have_text([name for name in kept if name not in dropped])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


# The names of simulated regions are as long as Novita's.
FIND_CUT = """() => [...document.querySelectorAll('#instances tbody bdi')]
    .filter(one => one.scrollWidth > one.clientWidth && one.checkVisibility()).map(one => one.textContent)"""


def test_name_gpu_and_region_are_whole_beside_a_drawer_and_on_a_tablet(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "finetune-qwen", "productName": "A100 SXM4 80GB", "clusterName": "US-CA-06 (California)"})
    page = visit(viewport={"width": 768, "height": 800})
    name = page.get_by_role("button", name="finetune-qwen", exact=True)
    expect(name).to_be_visible()
    expect(page.get_by_role("columnheader", name="Region")).to_be_hidden()
    assert page.evaluate(FIND_CUT) == [], "on a tablet"

    page.set_viewport_size({"width": 1440, "height": 800})
    name.click()
    expect(page.get_by_role("complementary", name="finetune-qwen")).to_be_visible()

    expect(page.get_by_role("columnheader", name="Region")).to_be_visible()
    assert page.evaluate(FIND_CUT) == [], "beside a drawer"


def test_saved_view_is_a_link_with_filters_order_and_columns(many: Panel, visit: Visit) -> None:
    page = visit("/?search=vm-01&group=running&ordering=-name")
    page.get_by_role("button", name="View").click()
    page.get_by_role("checkbox", name="Created").uncheck()
    page.get_by_label("Name of the present view").fill("Idle trainers")
    page.get_by_label("Name of the present view").press("Enter")
    page.goto("/")
    page.get_by_role("button", name="View").click()

    link = page.get_by_role("link", name="Idle trainers")
    href = link.get_attribute("href")
    link.click()

    expect(page.locator("#matches")).to_have_text("7 of 250 match")
    expect(page.locator("tr[data-id] th").first).to_have_text("vm-019")
    # Somebody else opens the link.
    other = visit(f"/{href}", is_alone=True)
    expect(other.locator("#matches")).to_have_text("7 of 250 match")
    expect(other.get_by_role("columnheader", name="Created")).to_be_hidden()
    page.get_by_role("button", name="View").click()
    page.get_by_role("button", name="Delete view Idle trainers").click()
    expect(link).to_have_count(0)


def test_page_says_when_the_browser_keeps_no_choice(many: Panel, visit: Visit, witness: Witness) -> None:
    # Django's script for the theme needs the storage.
    witness.allow("error: off")
    page = visit("about:blank")
    page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('off'); }})")
    page.goto("/?search=vm-010")
    page.get_by_role("button", name="View").click()

    page.get_by_role("checkbox", name="Billing").check()

    expect(page.get_by_role("columnheader", name="Billing")).to_be_visible()
    expect(page.get_by_text("This browser keeps no settings")).to_be_visible()


COUNT_VISIBLE = """all => all.filter(row => {
    const box = row.getBoundingClientRect();
    return box.top >= 0 && box.bottom <= innerHeight;
}).length"""


def test_first_screen_has_enough_rows_beside_an_operation(panel: Panel, visit: Visit) -> None:
    panel.hold(*({"name": f"vm-{number:02}", "status": "running"} for number in range(60)))
    page = visit("about:blank")
    show_operations(page, make_operation({"1": "failed", "2": "confirmed", "3": "requested", "4": "pending"}))
    page.goto("/")
    expect(page.locator("#operation-summary")).to_have_text("1 failed so far · 1 stopped · 1 stopping · 1 queued")
    expect(page.locator("tr[data-id]")).to_have_count(60)

    assert find_missing_rows(page) == {}


def test_counts_of_an_operation_have_the_room_of_its_times_beside_the_drawer(visit: Visit) -> None:
    page = visit("about:blank")
    operation = make_operation({"1": "failed", "2": "confirmed", "3": "requested", "4": "pending"})
    show_operations(page, {**operation, "deadlineAt": "2099-01-15T10:40:00Z"})
    page.goto("/")
    expect(page.locator("#operation-time")).to_contain_text("Result by")

    page.get_by_role("button", name="Details").click()

    expect(page.get_by_role("complementary")).to_contain_text("Result by")
    expect(page.locator("#operation-time")).to_be_hidden()


def test_first_screen_has_enough_rows_beside_a_banner(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold(*({"name": f"vm-{number:02}", "status": "running"} for number in range(60)))
    panel.novita.fault("list", "status", status=503)
    panel.service.post("/api/instances/sync")

    page = visit()

    expect(page.locator("#warnings p")).to_have_text(
        re.compile(r"^Sync has been failing since \d+:\d+\s[AP]M: Novita returned an error \(HTTP 503\).$")
    )
    expect(page.locator("tr[data-id]")).to_have_count(60)
    assert find_missing_rows(page) == {}


def test_error_and_name_are_whole_at_every_width(panel: Panel, visit: Visit) -> None:
    error = {"state": "ImagePullFailed", "message": "image pull failed"}
    failed = {"id": "a", "name": "finetune-qwen-04", "status": "creating", "statusError": error}
    panel.hold(failed, {"id": "b", "name": "finetune-qwen-05"})
    page = visit(viewport={"width": 360, "height": 740})

    cut = {}
    for width in (360, 640, 768, 900, 1024, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        expect(page.get_by_text("image pull failed")).to_be_visible()
        found = set(page.evaluate(FIND_CUT)) & {"finetune-qwen-04", "finetune-qwen-05", "image pull failed"}
        if found:
            cut[width] = found
    assert cut == {}


def test_each_status_tab_has_room_for_large_numbers_at_360_px(visit: Visit) -> None:
    page = visit(viewport=NARROW)
    tabs = page.get_by_role("navigation", name="Status")
    expect(tabs).to_contain_text("Errors 0")

    tabs.evaluate("all => all.querySelectorAll('span').forEach(number => { number.textContent = '10000'; })")

    expect(tabs.get_by_text("Errors")).to_be_in_viewport(ratio=1)
    assert tabs.evaluate("all => all.scrollWidth <= all.clientWidth")


def find_missing_rows(page: Page) -> dict[int, int]:
    """Return for each width with too few rows on the first screen how many are missing."""
    missing = {}
    for width, height, wanted in ((1280, 800, 15), (1920, 1080, 22), (360, 740, 8)):
        page.set_viewport_size({"width": width, "height": height})
        visible = page.locator("tr[data-id]").evaluate_all(COUNT_VISIBLE)
        if visible < wanted:
            missing[width] = wanted - visible
    return missing


def test_actions_on_the_account_need_no_menu_from_1280_px_on(visit: Visit) -> None:
    page = visit(viewport={"width": 1280, "height": 800})
    group = page.get_by_role("group", name="The whole account")
    words = ("Refresh data", "Sync with Novita.ai", "Clear cache")
    actions = [group.get_by_role("button", name=word) for word in words]
    for button in actions:
        expect(button).to_be_in_viewport(ratio=1)

    page.set_viewport_size({"width": 1279, "height": 800})

    expect(actions[0]).to_be_hidden()
    page.get_by_role("button", name="Actions").click()
    for button in actions:
        expect(button).to_be_in_viewport(ratio=1)
    page.keyboard.press("Escape")
    expect(actions[0]).to_be_hidden()
    expect(page.get_by_role("button", name="Actions")).to_be_focused()
    page.keyboard.press("Enter")
    actions[-1].click()
    expect(page.get_by_role("dialog", name="Clear the cache?")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Actions")).to_be_focused()


def test_keys_search_move_select_open_and_stop(many: Panel, visit: Visit) -> None:
    page = visit("/?ordering=name")
    expect(page.locator("tr[data-id]")).to_have_count(100)

    page.keyboard.press("/")
    page.keyboard.type("vm-0jx")
    expect(page.get_by_role("searchbox")).to_have_value("vm-0jx")
    page.get_by_role("searchbox").fill("vm-0")
    page.locator("h1").click(force=True)
    for key in "jjjkx":
        page.keyboard.press(key)

    row = page.get_by_role("row", name="vm-001")
    expect(row.get_by_role("checkbox")).to_be_checked()
    expect(row.get_by_role("button", name="vm-001", exact=True)).to_be_focused()
    page.keyboard.press("Control+x")
    expect(row.get_by_role("checkbox")).to_be_checked()
    page.keyboard.press("s")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Stop vm-001?")
    # Keys do nothing behind a dialog.
    page.keyboard.press("j")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    for _ in range(30):
        page.keyboard.press("j")
    expect(page.get_by_role("row", name="vm-031")).to_be_in_viewport(ratio=1)
    # The headings, which stay where they are, never cover the current row.
    headings = page.locator("thead").bounding_box()
    tops = []
    for _ in range(22):
        page.keyboard.press("k")
        tops.append(page.evaluate("document.activeElement.getBoundingClientRect().top"))
    assert headings and min(tops) >= headings["y"] + headings["height"]


def test_skip_link_leads_to_the_table_and_stop_all_is_near(many: Panel, visit: Visit) -> None:
    page = visit("/?ordering=name")
    expect(page.locator("tr[data-id]")).to_have_count(100)
    focused = []
    for _ in range(3):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.textContent"))

    assert any(words.startswith("Stop all") for words in focused)
    page.get_by_role("link", name="Skip to the instances").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("checkbox", name="Select all")).to_be_focused()


def test_hostile_names_stay_text_and_fit_the_layout(panel: Panel, visit: Visit) -> None:
    panel.hold(
        *(
            {"name": name, "clusterName": name, "productName": name, "imageUrl": name, "status": status}
            for name, status in zip(HOSTILE.values(), ["running", "exited", *HOSTILE.values()], strict=False)
        ),
        {"name": "odd", "statusError": {"state": HOSTILE["markup"], "message": HOSTILE["long"]}},
        {"name": "ports", "portMappings": [{"port": 1, "type": HOSTILE["markup"], "endpoint": HOSTILE["long"]}]},
    )
    page = visit()
    rows = page.locator("tr[data-id]")
    expect(rows).to_have_count(len(HOSTILE) + 2)

    for row in page.locator("#instances tbody tr").all():
        row.get_by_role("button").first.click()
        drawer = page.get_by_role("complementary")
        expect(drawer.get_by_role("heading").first).to_be_focused()
        for viewport in (NARROW, WIDE):
            page.set_viewport_size(viewport)
            assert drawer.evaluate("element => element.scrollWidth <= element.clientWidth"), viewport
        page.keyboard.press("Escape")

    assert sorted(list_names(page)) == sorted([*(" ".join(name.split()) for name in HOSTILE.values()), "odd", "ports"])
    assert page.locator("main :is(img, script), aside :is(img, script)").count() == 0
    assert "hacked" not in page.title()
    cells = page.locator("tr[data-id] > *")
    for viewport, height in ((WIDE, 36), (NARROW, 57)):
        page.set_viewport_size(viewport)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), viewport
        assert set(rows.evaluate_all("all => all.map(one => one.offsetHeight)")) == {height}
        beyond = cells.evaluate_all("all => all.filter(one => one.getBoundingClientRect().right > innerWidth).length")
        assert beyond == 0, viewport


def test_name_with_direction_marks_affects_only_itself(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": HOSTILE["right to left"], "clusterName": "\u202eevil"})
    row = visit().locator("tr[data-id=a]")
    expect(row).to_be_visible()

    isolation = row.locator("bdi").evaluate_all("all => all.map(one => getComputedStyle(one).unicodeBidi)")
    assert set(isolation) == {"isolate"}


def test_search_costs_little_with_many_instances(panel: Panel, visit: Visit) -> None:
    panel.hold(*({"id": f"id{number:04}", "name": f"vm-{number:04}"} for number in range(2_000)))
    page = visit()
    expect(page.locator("#pager")).to_contain_text("of 20")
    # Its numbers read as those of the server's page (test_dashboard.py).
    expect(page.get_by_role("button", name="Stop all")).to_contain_text("2,000")
    expect(page.get_by_label("Status").get_by_role("link", name="Running")).to_have_text("Running 2,000")
    expect(page.locator("#matches")).to_have_text("2,000 instances")

    first, *rest = page.evaluate(MEASURE_TYPING, ["v", "vm", "vm-", "vm-0", "vm-042", "vm-04", "4090", "no such", ""])

    log.warning("typing in 2,000: median %.0f ms", statistics.median(one["ms"] for one in rest))
    # The first input makes the texts that a search is compared with; later ones use them.
    assert first["folded"] >= 2_000
    assert max(one["folded"] for one in rest) < 200
    # A page of rows goes and another one comes.
    assert max(one["rows"] for one in [first, *rest]) <= 200
