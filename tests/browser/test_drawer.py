"""The drawer of an instance, and the menu of its row."""

import re
import time

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import NARROW, WIDE, Panel, Visit, Witness
from tests.system.processes import wait_until

pytestmark = pytest.mark.xdist_group("browser 2")

ALPHA = {
    "id": "a1",
    "name": "alpha",
    "imageUrl": "docker.io/team/image:1",
    "rootfsSize": 60,
    "billingMode": "spot",
    "spotStatus": "reclaiming",
    "gpuNum": "2",
    "instancePrice": "35000",
    "lastStartedAt": str(int(time.time()) - 400_000),
    "portMappings": [
        {"port": 8188, "type": "http", "endpoint": "https://alpha.example.invalid"},
        {"port": 22, "type": "tcp", "endpoint": "alpha.example.invalid:30022"},
        {"port": 80, "type": "http", "endpoint": "javascript:alert(1)"},
    ],
    "statusError": {"state": "ImagePullFailed", "message": "no such tag"},
}
BETA = {"id": "b2", "name": "beta"}


@pytest.fixture
def two(panel: Panel) -> Panel:
    panel.hold(ALPHA, BETA)
    return panel


def open_drawer(page: Page, name: str = "alpha") -> Locator:
    page.get_by_role("button", name=name, exact=True).click()
    return get_drawer(page, name)


def get_drawer(page: Page, name: str = "alpha") -> Locator:
    return page.get_by_role("complementary", name=name)


@pytest.mark.usefixtures("two")
def test_drawer_has_what_is_known_of_the_instance(visit: Visit) -> None:
    drawer = open_drawer(visit())

    overview = drawer.get_by_role("group", name="Overview")
    for words in ("ImagePullFailed: no such tag", "a1", "docker.io/team/image:1", "60 GB", "Running", "reclaiming"):
        expect(overview).to_contain_text(words)
    for words in ("Created", "Last started", "Last stopped", "Ends", "Last changed", "Billing"):
        expect(overview).to_contain_text(words)
    connect = drawer.get_by_role("group", name="Connect")
    link = connect.get_by_role("link", name="https://alpha.example.invalid")
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    expect(connect).to_contain_text("ssh root@alpha.example.invalid -p 30022")
    expect(connect.get_by_text("javascript:alert(1)")).to_be_visible()
    expect(connect.get_by_role("link")).to_have_count(1)
    cost = drawer.get_by_role("group", name="Cost")
    expect(cost).to_contain_text("$0.70/h, from this instance at Novita")
    expect(cost).to_contain_text(re.compile(r"Since the start≈ \$77\.\d\d \(4 days at \$0\.70/h\)"))
    expect(cost).to_contain_text(re.compile(r"Last 30 days(≈ )?\$0\.0\d, [\d.]+ GPU hours\. Recorded since "))


def test_part_that_cannot_be_loaded_says_so_and_keeps_no_stop_back(two: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("later.bundle.js")
    page = visit()
    page.route("**/later.bundle.js", lambda route: route.abort())

    page.get_by_role("button", name="alpha", exact=True).click()

    expect(page.locator("#status-error")).to_contain_text("This part of the page can't be loaded. Try again, or reload")
    expect(page).to_have_url(re.compile(r"/$"))
    page.get_by_role("button", name="Stop alpha").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("tr[data-id=a1] .status")).to_have_text(re.compile("Stop"))
    page.unroute("**/later.bundle.js")
    expect(open_drawer(page)).to_be_visible()


@pytest.mark.usefixtures("two")
def test_drawer_that_loads_slowly_leaves_the_focus_to_somebody_who_types_meanwhile(visit: Visit) -> None:
    page = visit()
    held: list[Route] = []
    page.route("**/later.bundle.js", lambda route: held.append(route))
    page.get_by_role("button", name="alpha", exact=True).click()
    wait_until(lambda: held or page.wait_for_timeout(10), "the drawer loads")
    page.get_by_role("searchbox").press_sequentially("al")

    held[0].continue_()

    expect(page.get_by_role("complementary", name="alpha")).to_be_visible()
    page.keyboard.type("pha")
    expect(page.get_by_role("searchbox")).to_have_value("alpha")


@pytest.mark.usefixtures("two")
def test_drawer_takes_the_focus_and_gives_it_back(visit: Visit) -> None:
    page = visit()
    page.emulate_media(reduced_motion="reduce")
    drawer = open_drawer(page)
    expect(drawer.get_by_role("heading", name="alpha")).to_be_focused()
    assert page.evaluate("document.getAnimations().length") == 0
    expect(page).to_have_url(re.compile(r"\?instance=a1$"))

    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(page.get_by_role("button", name="alpha", exact=True)).to_be_focused()
    open_drawer(page).get_by_role("button", name="Close").click()

    expect(drawer).to_be_hidden()
    expect(page.get_by_role("button", name="alpha", exact=True)).to_be_focused()
    expect(page).to_have_url(re.compile(r"/$"))


@pytest.mark.usefixtures("two")
def test_address_of_the_drawer_can_be_shared_and_back_closes_it(visit: Visit) -> None:
    page = visit("/?search=a")
    expect(open_drawer(page)).to_be_visible()
    expect(open_drawer(page, "beta")).to_be_visible()
    other = visit(page.url)
    expect(get_drawer(other, "beta")).to_be_visible()
    expect(other.get_by_role("searchbox")).to_have_value("a")

    page.go_back()

    expect(page.get_by_role("complementary")).to_have_count(0)
    expect(page.get_by_role("searchbox")).to_have_value("a")
    page.go_forward()
    expect(get_drawer(page, "beta")).to_be_visible()


@pytest.mark.usefixtures("two")
def test_unknown_address_says_so_with_and_without_script(visit: Visit, witness: Witness) -> None:
    witness.allow("status of 404")
    drawer = get_drawer(visit("/?instance=nope"), "nope")
    plain = visit("/?instance=nope", java_script_enabled=False)

    expect(drawer).to_contain_text("No instance has this ID. It was removed, or the address is wrong.")
    expect(drawer.get_by_role("group")).to_have_count(0)
    expect(drawer.get_by_role("button")).to_have_count(1)
    expect(plain.get_by_role("region", name="nope")).to_contain_text("No instance has this ID.")


def test_removed_instance_keeps_what_was_known(two: Panel, visit: Visit) -> None:
    page = visit()
    drawer = open_drawer(page)
    expect(drawer).to_contain_text("docker.io/team/image:1")
    two.novita.change(remove=["a1"])
    two.sync()

    expect(drawer).to_contain_text("This instance no longer exists at Novita.")
    expect(drawer).to_contain_text("docker.io/team/image:1")
    for name in ("Stop alpha", "More actions for alpha", "Edit…", "Protect…"):
        expect(drawer.get_by_role("button", name=name)).to_have_count(0)
    # Its address still leads to its history.
    other = get_drawer(visit(page.url), "a1")
    expect(other).to_contain_text("No instance has this ID.")
    expect(other.get_by_role("group", name="History")).to_contain_text("Deleted outside this panel.")


def test_cleared_cache_is_no_removal(two: Panel, visit: Visit) -> None:
    page = visit()
    with page.expect_response("**/annotation"):
        drawer = open_drawer(page)
    expect(drawer).to_contain_text("docker.io/team/image:1")
    two.clear()
    expect(page.get_by_text("The cache is empty.").first).to_be_visible()

    expect(drawer).to_contain_text("docker.io/team/image:1")
    expect(drawer).not_to_contain_text("no longer exists")
    other = get_drawer(visit(page.url), "a1")
    expect(other).to_contain_text("The cache is empty, so the instance is not known yet.")


def test_refresh_keeps_focus_selection_and_typed_text(two: Panel, visit: Visit) -> None:
    page = visit()
    drawer = open_drawer(page)
    drawer.get_by_role("button", name="Edit…").click()
    expect(drawer.get_by_role("textbox", name="Owner")).to_be_focused()
    page.keyboard.type("ad")
    drawer.get_by_text("docker.io/team/image:1").select_text()
    drawer.get_by_role("textbox", name="Note").focus()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#instance .facts bdi'))")
    selected = page.evaluate("String(getSelection())")
    two.set("a1", name="aleph")
    two.sync()

    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    expect(get_drawer(page, "aleph")).to_be_visible()
    expect(page.get_by_role("textbox", name="Owner")).to_have_value("ad")
    expect(page.get_by_role("textbox", name="Note")).to_be_focused()
    assert page.evaluate("String(getSelection())") == selected != ""


# The browser tells of a new width at the next frame.
IS_INERT = "wanted => Boolean(document.querySelector('[type=search]').closest('[inert]')) === wanted"


def test_drawer_stands_beside_the_table_and_covers_a_small_screen(two: Panel, visit: Visit) -> None:
    page = visit()
    drawer = open_drawer(page)
    expect(drawer).to_be_visible()
    page.get_by_role("searchbox").fill("beta")
    expect(drawer).to_be_visible()
    page.get_by_role("searchbox").fill("")

    page.set_viewport_size(NARROW)

    expect(drawer).to_be_in_viewport(ratio=1)
    # The rest is out of reach for keyboard, pointer and screen reader.
    page.wait_for_function(IS_INERT, arg=True)
    drawer.get_by_role("heading", name="alpha").focus()
    for _ in range(25):
        page.keyboard.press("Tab")
        # After its last element the browser's own controls follow.
        assert page.evaluate("document.activeElement.matches('body, #instance *')")
    page.set_viewport_size(WIDE)
    page.wait_for_function(IS_INERT, arg=False)


TIMES = {"Created", "Last started", "Last stopped", "Ends", "Last changed"}
LIST_FACTS = """sections => sections.flatMap(one => [...one.querySelectorAll('dt')].map(term => (
    [term.textContent, term.nextElementSibling.querySelector('bdi').textContent]
)))"""


@pytest.mark.usefixtures("two")
def test_page_without_script_has_the_same_facts(visit: Visit) -> None:
    drawer = open_drawer(visit())
    expect(drawer.get_by_role("group", name="History").get_by_role("listitem").first).to_be_visible()
    expect(drawer).to_contain_text("Port 8188")
    facts = drawer.locator("section").evaluate_all(LIST_FACTS)
    page = visit("/?search=a", java_script_enabled=False)
    page.get_by_role("link", name="alpha").click()

    plain = page.get_by_role("region", name="alpha").evaluate_all(LIST_FACTS)

    # Ages need the script, and what is recorded stands in /admin/.
    left_out = {"Since the start", "Last 30 days", "Note", "SSH"}
    assert [title for title, _ in plain] == [title for title, _ in facts if title not in left_out]
    assert [one for one in plain if one[0] not in TIMES] == [one for one in facts if one[0] not in left_out | TIMES]
    page.get_by_role("link", name="Close").click()
    expect(page).to_have_url(re.compile("search=a"))
    expect(page.get_by_role("region", name="alpha")).to_have_count(0)


def test_endpoint_is_copied_by_one_press(two: Panel, visit: Visit) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])

    button = open_drawer(page).get_by_role("button", name="Copy Port 8188 (http)")
    button.click()

    expect(page.get_by_role("status").filter(has_text="Copied")).to_have_text("Copied: https://alpha.example.invalid")
    expect(button).to_have_text("Copied")
    expect(button).to_have_text("Copy")
    assert page.evaluate("navigator.clipboard.readText()") == "https://alpha.example.invalid"


def test_history_tells_who_did_what(two: Panel, visit: Visit) -> None:
    assert two.service.post("/api/instances/a1/protect", json={"reason": "the demo"}).ok
    page = visit()
    history = open_drawer(page).get_by_role("group", name="History")
    expect(history.get_by_role("link", name="All activity")).to_have_attribute("href", "/activity/?instance=a1")
    expect(history.get_by_role("listitem").first).to_contain_text("Protected.by local-owner. Reason: the demo")
    expect(history).to_contain_text("GPUs charged; price: $0.70/h.")

    two.service.session.delete(f"{two.service.url}/api/instances/a1/protect")

    expect(history.get_by_role("listitem").first).to_contain_text("Protection removed.")


@pytest.mark.usefixtures("two")
def test_unreadable_history_is_told_beside_the_rest(visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    page = visit()
    page.route(re.compile("/history|/api/costs/"), lambda route: route.abort())

    drawer = open_drawer(page)

    expect(drawer.get_by_role("group", name="History")).to_contain_text("The service can't be reached.")
    expect(drawer.get_by_role("group", name="Cost")).to_contain_text("The service can't be reached.")
    expect(drawer.get_by_role("group", name="Overview")).to_contain_text("docker.io/team/image:1")


@pytest.mark.usefixtures("two")
def test_stop_is_offered_and_answered_in_the_drawer(visit: Visit) -> None:
    # On a small screen the rest of the page is inert; the question and what a screen reader hears are not.
    page = visit(viewport=NARROW)
    drawer = open_drawer(page)

    drawer.get_by_role("button", name="Stop alpha").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop", exact=True).click()

    expect(drawer).to_contain_text("Stop requested.")
    heard = page.get_by_role("status").filter(has_text="alpha: ")
    expect(heard).to_have_text("alpha: Stop requested.")
    assert heard.evaluate("element => element.closest('[inert]') === null")
    expect(drawer.get_by_role("button", name="Start alpha")).to_be_visible()


@pytest.mark.usefixtures("two")
def test_help_lists_the_keys(visit: Visit) -> None:
    page = visit()
    expect(page.get_by_role("row", name="alpha")).to_be_visible()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_contain_text("Stop the instance of the row")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()

    page.get_by_text("Local owner", exact=True).click()
    page.get_by_role("button", name="Keyboard shortcuts").click()

    expect(dialog.get_by_role("button", name="Close")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.locator("summary", has_text="Local owner")).to_be_focused()


# --- The menu


def open_menu(page: Page, name: str = "alpha") -> Locator:
    page.get_by_role("button", name=f"More actions for {name}").click()
    return page.get_by_role("menu", name=f"Actions for {name}")


@pytest.mark.usefixtures("two")
def test_menu_works_by_keyboard(visit: Visit) -> None:
    page = visit()
    button = page.get_by_role("button", name="More actions for alpha")
    button.focus()
    page.keyboard.press("Enter")
    menu = page.get_by_role("menu", name="Actions for alpha")
    expect(menu.get_by_role("menuitem")).to_have_text(
        ["Restart…", "Protect…", "Copy ID", "Copy endpoint", "Open Novita's console"]
    )
    expect(menu.get_by_role("menuitem", name="Restart…")).to_be_focused()

    page.keyboard.press("ArrowUp")
    expect(menu.get_by_role("menuitem", name="Open Novita's console")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(menu.get_by_role("menuitem", name="Protect…")).to_be_focused()
    page.keyboard.press("c")
    expect(menu.get_by_role("menuitem", name="Copy ID")).to_be_focused()
    page.keyboard.press("Escape")

    expect(menu).to_be_hidden()
    expect(button).to_be_focused()
    expect(button).to_have_attribute("aria-expanded", "false")


def test_menu_offers_what_is_possible(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "b2", "name": "beta", "status": "exited", "portMappings": []}, ALPHA)
    assert panel.service.post("/api/instances/a1/protect", json={"reason": "the demo"}).ok
    page = visit()

    items = open_menu(page, "beta").get_by_role("menuitem")
    expect(items).to_have_text(["Protect…", "Copy ID", "Copy endpoint", "Open Novita's console"])
    expect(items.nth(2)).to_have_attribute("title", "This instance has no endpoint.")
    expect(items.nth(2)).to_be_disabled()
    page.get_by_role("searchbox").click()
    expect(page.get_by_role("menu")).to_have_count(0)
    items = open_menu(page).get_by_role("menuitem")
    expect(items).to_have_text(["Remove protection…", "Copy ID", "Copy endpoint", "Open Novita's console"])
    expect(items.last).to_have_attribute("href", "https://novita.ai/gpu-instance/console/instances")
    expect(items.last).to_have_attribute("rel", "noopener noreferrer")


def test_restart_from_the_menu_asks_first(two: Panel, visit: Visit) -> None:
    page = visit()
    restarts = two.novita.count_calls("restart")
    open_menu(page).get_by_role("menuitem", name="Restart…").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="More actions for alpha")).to_be_focused()
    assert two.novita.count_calls("restart") == restarts
    open_menu(page).get_by_role("menuitem", name="Restart…").click()

    page.get_by_role("dialog").get_by_role("button", name="Restart", exact=True).click()

    expect(page.get_by_role("row", name="alpha")).to_contain_text("Restart")
    wait_until(lambda: two.novita.count_calls("restart") == restarts + 1, "the restart is requested")


def test_menu_is_on_the_screen_wherever_its_row_is(panel: Panel, visit: Visit) -> None:
    panel.hold(*({"id": f"id{number:02}", "name": f"vm-{number:02}"} for number in range(40)))
    page = visit("/?ordering=name")
    button = page.get_by_role("button", name="More actions for vm-20")
    for place in ("start", "end"):
        button.evaluate("(element, block) => element.scrollIntoView({block})", place)
        expect(open_menu(page, "vm-20")).to_be_in_viewport(ratio=1)
        page.keyboard.press("Escape")

    # On a small screen the drawer has it.
    page.set_viewport_size(NARROW)
    drawer = open_drawer(page, "vm-20")

    expect(open_menu(page, "vm-20")).to_be_in_viewport(ratio=1)
    page.keyboard.press("Escape")
    expect(page.get_by_role("menu")).to_have_count(0)
    expect(drawer).to_be_visible()
