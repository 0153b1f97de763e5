"""Accessibility: axe's rules in both themes and two widths, the keyboard alone, no script, no motion."""

import re
import signal

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.conftest import NARROW, WIDE, Panel, Visit, Witness, confirm

pytestmark = pytest.mark.xdist_group("browser 3")

# Rules that the packages' own pages break; no style sheet can mend that.
FOREIGN = {
    "/api/docs": ("nested-interactive", "region"),
    "/api/instances/stop-all": ("html-has-lang", "landmark-", "region"),
}
ROWS = [
    {"id": "a", "name": "alpha"},
    {"id": "b", "name": "beta", "status": "exited"},
    {"id": "c", "name": "gamma", "status": "pulling"},
    {"id": "d", "name": "delta", "status": "toStop"},
    {"id": "e", "name": "epsilon", "status": "removed"},
    {"id": "f", "name": "zeta", "status": "something new", "statusError": {"state": "Bad", "message": "broken"}},
]
# Describes the focused element, and whether its focus is visible.
DESCRIBE_FOCUS = """() => {
    const element = document.activeElement;
    const {outlineStyle, outlineWidth, boxShadow} = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    return {
        name: element.getAttribute('aria-label') || element.name || element.textContent.trim(),
        isBody: element === document.body,
        isVisible: box.width > 0 && box.height > 0
            && (outlineStyle !== 'none' && parseFloat(outlineWidth) > 0 || boxShadow !== 'none'),
    };
}"""

# The rules that depend on colours take most of axe's time. The other theme needs no others, and another width needs
# them only for elements that it shows first.
COLOUR_RULES = ["color-contrast", "link-in-text-block"]
# Colours that change with the theme take some time to do so.
RUN_AXE = """async ([rules, isNewOnly]) => {
    const changes = document.getAnimations().filter(one => one instanceof CSSTransition);
    await Promise.allSettled(changes.map(one => one.finished));
    const shown = [...document.body.querySelectorAll('*')].filter(one => one.checkVisibility());
    const fresh = isNewOnly ? shown.filter(one => !window.judged.has(one)) : [document];
    window.shown = shown;
    if (!fresh.length) {
        return [];
    }
    // Axe's preloading writes styles into the page, which the policy forbids.
    return (await axe.run(fresh, {preload: false, resultTypes: ['violations'], ...rules})).violations;
}"""


def find_violations(page: Page, *viewports: ViewportSize) -> list[str]:
    """Run axe in these widths, or in the page's own, and in both themes."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    colours = {"runOnly": {"type": "rule", "values": COLOUR_RULES}}
    others = {"rules": {rule: {"enabled": False} for rule in COLOUR_RULES}}
    page.evaluate("window.judged = new Set()")
    found = []
    for number, viewport in enumerate(viewports or (page.viewport_size,)):
        assert viewport
        page.set_viewport_size(viewport)
        if number:
            found += page.evaluate(RUN_AXE, [others, False])
            found += page.evaluate(RUN_AXE, [colours, True])
        else:
            found += page.evaluate(RUN_AXE, [{}, False])
        page.emulate_media(color_scheme="dark")
        found += page.evaluate(RUN_AXE, [colours, number > 0])
        page.emulate_media(color_scheme="light")
        page.evaluate("judged = judged.union(new Set(shown))")
    return [
        f"{violation['id']}: {node['html']} {node.get('failureSummary', '')}"
        for violation in found
        for node in violation["nodes"]
    ]


def test_dashboard_passes_axe(panel: Panel, visit: Visit) -> None:
    panel.hold(*ROWS)
    panel.age(hours=1)
    page = visit()
    expect(page.locator("tr[data-id]")).to_have_count(len(ROWS))
    page.get_by_role("button", name="Refresh data").click()
    expect(page.locator("#status")).to_contain_text("Refreshed")
    page.get_by_role("checkbox", name="Select alpha").check()
    page.get_by_role("button", name="View").click()

    assert find_violations(page, WIDE, NARROW) == []


def test_failures_pass_axe(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold(*ROWS)
    page = visit()
    panel.novita.fault("start", "status", status=400, body={"code": 400, "reason": "INSUFFICIENT_RESOURCE"})
    page.get_by_role("button", name="Start beta").click()
    confirm(page)
    expect(page.locator("tr[data-id=b] .message.is-error")).to_be_visible()
    panel.redis.signal(signal.SIGSTOP)
    page.get_by_role("button", name="Refresh data").click()
    expect(page.locator("#instances")).to_have_class(re.compile("is-old"))

    assert find_violations(page) == []


def test_drawer_and_menu_pass_axe(panel: Panel, visit: Visit) -> None:
    error = {"state": "Bad", "message": "broken"}
    ports = [{"port": 8188, "type": "http", "endpoint": "https://alpha.example.invalid"}]
    panel.hold({"id": "a", "name": "alpha", "statusError": error, "portMappings": ports})
    assert panel.service.post("/api/instances/a/protect", json={"reason": "y" * 300}).ok
    page = visit("/?instance=a")
    drawer = page.get_by_role("complementary", name="alpha")
    drawer.get_by_role("button", name="Edit…").click()
    expect(drawer.get_by_role("textbox", name="Owner")).to_be_focused()
    drawer.get_by_role("button", name="More actions for alpha").click()

    assert find_violations(page, WIDE, NARROW) == []


def open_stop_all(page: Page, count: int) -> None:
    page.get_by_role("button", name="Stop all").click()
    expect(page.get_by_label(f"Enter {count} to stop")).to_be_focused()


def test_dialog_passes_axe(panel: Panel, visit: Visit) -> None:
    panel.hold(*ROWS, {"name": "x" * 300}, {"name": "no-space-" * 30})
    assert panel.service.post("/api/instances/a/protect", json={"reason": "y" * 300}).ok
    page = visit()
    page.get_by_role("checkbox", name="Select all").check()
    page.get_by_role("button", name="alpha", exact=True).click()
    expect(page.get_by_role("group", name="History").get_by_role("listitem").first).to_be_visible()
    assert find_violations(page, WIDE, NARROW) == []
    page.keyboard.press("Escape")

    open_stop_all(page, 3)
    page.keyboard.type("4")
    page.keyboard.press("Enter")

    for viewport in (WIDE, NARROW):
        assert find_violations(page, viewport) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(
            "document.querySelector('#plan .scrolling').scrollWidth <= document.querySelector('#plan').clientWidth"
        )


def test_dialog_buttons_are_visible_at_every_width(panel: Panel, visit: Visit) -> None:
    panel.hold(*({"name": f"vm-{number:02}"} for number in range(40)))
    page = visit()
    open_stop_all(page, 40)

    for width in (360, 767, 768, 1024):
        page.set_viewport_size({"width": width, "height": 640})

        for name in ("Stop 40 instances", "Cancel"):
            expect(page.get_by_role("button", name=name, exact=True)).to_be_in_viewport(ratio=1)
        expect(page.get_by_label("Enter 40")).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize("search", ["nope", ""], ids=["no match", "emptied"])
def test_empty_list_passes_axe(panel: Panel, visit: Visit, search: str) -> None:
    # Instances that are moving would be read again, and fill the cache.
    panel.hold(*ROWS[:2])
    if not search:
        panel.clear()
    page = visit(f"/?search={search}")
    expect(page.locator("#nothing button")).to_be_visible()

    assert find_violations(page) == []


# Of costs and activity: test_reports.
PAGES = [
    "/admin/",
    "/admin/instances/syncrun/",
    "/admin/instances/syncrun/{run}/change/",
    "/admin/instances/token/add/",
    "/api/instances/stop-all",
    "/api/docs",
    "/nope",
]


@pytest.mark.parametrize("path", PAGES)
def test_page_passes_axe_and_fits_a_phone(panel: Panel, visit: Visit, witness: Witness, path: str) -> None:
    witness.allow("status of 40[45]")
    # Those of the tests before would fill the list.
    panel.change_records("DELETE FROM instances_syncrun")
    panel.hold(*ROWS)
    page = visit("/admin/instances/syncrun/" if "{run}" in path else path)
    if "{run}" in path:
        page.locator("#result_list tbody th a").first.click()
        expect(page.get_by_text("gamma").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    # In the list of all operations, the first of each method stands for the others.
    page.evaluate(
        "document.querySelectorAll('.opblock').forEach(one => document.querySelector(`.${one.classList[1]}`) === one"
        " || one.remove())"
    )

    found = find_violations(page)
    page.set_viewport_size(NARROW)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    assert [violation for violation in found if not violation.startswith(FOREIGN.get(path, ()))] == []


def test_keyboard_reaches_every_control_with_a_visible_focus(panel: Panel, visit: Visit) -> None:
    panel.hold(*ROWS)
    page = visit("/?ordering=name")
    expect(page.locator("tr[data-id]")).to_have_count(len(ROWS))
    focused = []
    for _ in range(60):
        page.keyboard.press("Tab")
        focus = page.evaluate(DESCRIBE_FOCUS)
        if focus["isBody"]:
            break
        focused.append(focus)

    names = [focus["name"] for focus in focused]
    assert [focus["name"] for focus in focused if not focus["isVisible"]] == []
    assert names[2].startswith("Stop all"), "the third press of Tab doesn't reach it"
    for name in (
        "Refresh data",
        "Sync with Novita.ai",
        "Clear cache",
        "Search",
        "Running 1",
        "Filters",
        "View",
        "CSV",
        "Name",
        "Created",
    ):
        assert name in names
    in_rows = ["alpha", "Stop alpha", "beta", "Start beta", "delta", "epsilon", "gamma", "zeta"]
    assert [name for name in names if name in in_rows] == in_rows


def test_stop_works_by_keyboard(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": "alpha"})
    page = visit()
    page.get_by_role("button", name="Stop alpha").focus()

    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")

    expect(page.locator("tr[data-id=a] .status")).to_have_attribute("data-group", "stopping")
    assert page.evaluate("document.activeElement !== document.body"), "the focus is lost"


def test_phone_shows_rows_of_two_lines_without_horizontal_scrolling(panel: Panel, visit: Visit) -> None:
    panel.hold(*ROWS)
    page = visit(viewport=NARROW)
    expect(page.locator("tr[data-id]")).to_have_count(len(ROWS))

    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    # Rows of another layout are still a table.
    expect(page.get_by_role("table", name="GPU instances")).to_be_visible()
    expect(page.get_by_role("rowheader")).to_have_count(len(ROWS))
    row = page.get_by_role("row", name="alpha").bounding_box()
    button = page.get_by_role("button", name="Stop alpha").bounding_box()
    assert row and row["height"] == 57
    assert button and button["height"] >= 44 and button["width"] >= 44


def test_page_never_scrolls_horizontally(panel: Panel, visit: Visit) -> None:
    panel.hold(*ROWS)
    page = visit()

    for width in (360, 767, 768, 1024, 2560):
        page.set_viewport_size({"width": width, "height": 800})

        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_rows_are_readable_without_script(panel: Panel, visit: Visit) -> None:
    panel.hold(*({"name": f"vm-{number:03}"} for number in range(150)))
    page = visit(java_script_enabled=False)
    expect(page.locator("#pager")).to_contain_text("of 2")
    expect(page.get_by_role("button", name="Sync with Novita.ai")).to_be_hidden()

    page.get_by_role("columnheader", name="Name").get_by_role("link").click()
    expect(page.locator("#instances tbody th").first).to_have_text("vm-000")
    page.get_by_role("link", name="Next").click()
    expect(page.locator("#instances tbody tr")).to_have_count(50)
    page.get_by_role("searchbox").fill("vm-14")
    page.get_by_role("button", name="Show").click()

    expect(page.locator("#instances tbody th")).to_have_text([f"vm-{number}" for number in range(140, 150)])


def test_reduced_motion_stops_animations(panel: Panel, visit: Visit) -> None:
    panel.hold({"status": "pulling"}, {"status": "toStop"})
    page = visit()
    expect(page.locator("tr[data-id]")).to_have_count(2)
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate("document.getAnimations().length") == 2

    page.emulate_media(reduced_motion="reduce")

    assert page.evaluate("document.getAnimations().length") == 0
