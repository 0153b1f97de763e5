"""Measure the dashboard in Chromium: `python -m benchmarks.dashboard`.

The bytes of a first and of a repeated visit, the work of a refresh, and how soon a page shows what somebody else did.
Bytes are those that Chromium received, headers included.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, expect, sync_playwright

from instances import simulator
from tests.browser.conftest import CHROMIUM_OPTIONS, find_chromium
from tests.system.processes import ROOT, Novita, Redis, Service, ended

CHANGED = 10
WARM_UPS = 3
REFRESHES = 9
ACTIONS = 12
# How often an open page asks.
PERIOD_MS = 3000
REST_MS = 2500


class Bench:
    """A service over a simulated account, and a browser."""

    def __init__(self, service: Service, novita: Novita, browser: Browser) -> None:
        self.service, self.novita, self.browser = service, novita, browser

    def new_context(self) -> BrowserContext:
        return self.browser.new_context(base_url=self.service.url, viewport={"width": 1280, "height": 800})


@contextmanager
def run(instances: int) -> Iterator[Bench]:
    """Start everything on loopback, with so many instances, all of them running."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        account = simulator.Account(instances=instances, step_seconds=1)
        account.change({"running": True})
        server = stack.enter_context(simulator.start(account, port=0))
        novita = stack.enter_context(ended(Novita(server.url)))
        redis = stack.enter_context(ended(Redis(folder)))
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "novita_site.settings",
            "SECRET_KEY": "FAKE-SECRET-django",
            "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
            "REDIS_URL": redis.url,
            "NOVITA_API_KEY": "bench",
            "NOVITA_BASE_URL": server.url,
            "NOVITA_SYNC_INTERVAL": "0",
        }
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
        service = stack.enter_context(ended(Service(environment, folder))).wait_until_ready()
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_OPTIONS)
        stack.callback(browser.close)
        yield Bench(service, novita, browser)


# --- Bytes


def measure_visit_bytes(bench: Bench) -> tuple[int, int]:
    """Return the bytes of a first visit and of a repeated one, until the page rests."""
    with bench.new_context() as context:
        first, repeated = (_count_bytes(context) for _ in range(2))
        return first, repeated


def list_transfers(context: BrowserContext) -> dict[str, int]:
    """Visit the dashboard. Return the bytes of each answer by its address."""
    page = context.new_page()
    session = context.new_cdp_session(page)
    names: dict[str, str] = {}
    sizes: dict[str, int] = {}
    session.on("Network.requestWillBeSent", lambda event: names.update({event["requestId"]: event["request"]["url"]}))
    session.on("Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}))
    session.send("Network.enable")
    page.goto("/")
    expect(page.locator("#next-refresh")).to_contain_text("Next refresh in")
    page.wait_for_timeout(REST_MS)
    page.close()
    return {f"{names[number]} {number}": round(size) for number, size in sizes.items()}


def _count_bytes(context: BrowserContext) -> int:
    return sum(list_transfers(context).values())


# --- The work of a refresh

# Presses *Refresh data*, and waits until the page has shown the result.
REFRESH = """async () => {
    const words = document.getElementById('status-words');
    words.textContent = '';
    const isShown = new Promise(done => {
        new MutationObserver((_, observer) => {
            if (words.textContent.startsWith('Refreshed')) {
                observer.disconnect();
                done();
            }
        }).observe(words, {childList: true, characterData: true, subtree: true});
    });
    document.querySelector('[data-do=refresh]').click();
    await isShown;
    await new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)));
}"""


def measure_refresh_ms(bench: Bench) -> float:
    """Return the processor time of the page's main thread for a refresh with ten changed instances: the median."""
    with bench.new_context() as context:
        page = context.new_page()
        page.goto("/?ordering=name")
        expect(page.locator("#next-refresh")).to_contain_text("Next refresh in")
        expect(page.locator("tr[data-id]").first).to_be_visible()
        ids = page.evaluate("[...document.querySelectorAll('tr[data-id]')].map(row => row.dataset.id)")
        changed = ids[:: max(1, len(ids) // CHANGED)][:CHANGED]
        session = context.new_cdp_session(page)
        # The time of the thread, and not of the clock: another program's load doesn't count.
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        # The first ones compile the scripts.
        times = [_time_refresh(bench, page, session, changed, number) for number in range(WARM_UPS + REFRESHES)]
        return statistics.median(times[WARM_UPS:])


def _time_refresh(bench: Bench, page: Page, session: CDPSession, changed: list[str], number: int) -> float:
    error = {"state": "", "message": f"round {number}"}
    status = "exited" if number % 2 else "running"
    bench.novita.change(set={id_: {"status": status, "statusError": error} for id_ in changed})
    assert bench.service.post("/api/instances/sync").ok
    before = _read_busy_ms(session)
    page.evaluate(REFRESH)
    busy = _read_busy_ms(session) - before
    assert f"round {number}" in page.locator(f'tr[data-id="{changed[-1]}"]').inner_text()
    return busy


def _read_busy_ms(session: CDPSession) -> float:
    metrics: list[dict[str, Any]] = session.send("Performance.getMetrics")["metrics"]
    return 1000 * next(float(metric["value"]) for metric in metrics if metric["name"] == "TaskDuration")


# --- What somebody else did

# Notes when an element with the words, in its text or its title, is drawn. Playwright itself looks twice a second.
WATCH = """([selector, words]) => {
    window.seenAt = 0;
    const has = element => `${element.textContent} ${element.title}`.includes(words);
    const observer = new MutationObserver(() => {
        if ([...document.querySelectorAll(selector)].some(has)) {
            observer.disconnect();
            requestAnimationFrame(() => setTimeout(() => { window.seenAt = Date.now(); }));
        }
    });
    observer.observe(document.body, {subtree: true, childList: true, attributes: true, characterData: true});
}"""


def measure_seen_seconds(bench: Bench) -> tuple[float, float]:
    """Return the seconds until an open page at rest shows what somebody else did: the median, and the most."""
    instance_id = min(bench.service.list_ids())
    with bench.new_context() as context:
        page = context.new_page()
        page.goto(f"/?search={instance_id}")
        expect(page.locator("#next-refresh")).to_contain_text("Next refresh in")
        times = [_time_protection(bench, page, instance_id, number) for number in range(ACTIONS)]
        times.append(_time_operation(bench, page, instance_id))
        return statistics.median(times), max(times)


def _time_protection(bench: Bench, page: Page, instance_id: str, number: int) -> float:
    # The action before was shown after a request of the page. So the first one comes at the worst moment: just after
    # such a request, with the whole period before the next.
    page.wait_for_timeout(PERIOD_MS * number / ACTIONS)
    reason = f"reason {number}."
    address = f"/api/instances/{instance_id}/protect"
    return _time(page, ".protection", reason, lambda: bench.service.post(address, json={"reason": reason}).ok)


def _time_operation(bench: Bench, page: Page, instance_id: str) -> float:
    assert bench.service.session.delete(f"{bench.service.url}/api/instances/{instance_id}/protect").ok
    page.wait_for_timeout(1000)
    order = {"kind": "stop", "ids": [instance_id]}
    words = "Stopping 1"
    return _time(page, "#operation-title", words, lambda: bench.service.post("/api/operations", json=order).ok)


def _time(page: Page, selector: str, words: str, act: Callable[[], bool]) -> float:
    """Return the seconds from the start of an action until the page shows it."""
    page.evaluate(WATCH, [selector, words])
    began = time.time()
    assert act()
    while time.time() < began + 60:
        page.wait_for_timeout(50)
        if seen_at := page.evaluate("seenAt"):
            return float(seen_at) / 1000 - began
    raise SystemExit(f"the page never shows {words!r}")


def measure_visits() -> dict[str, float]:
    """Return the bytes of a visit and the work of a refresh, by the names of the figures."""
    with run(1000) as bench:
        first, repeated = measure_visit_bytes(bench)
        return {
            "first visit, 1,000 instances": first,
            "repeated visit, 1,000 instances": repeated,
            "refresh of 1,000 rows, 10 changed": measure_refresh_ms(bench),
        }


def measure_actions() -> dict[str, float]:
    """Return the seconds until an open page shows another user's action, by the names of the figures."""
    with run(40) as bench:
        median, most = measure_seen_seconds(bench)
        return {
            "another user's action is shown after, median": median,
            "another user's action is shown after, at most": most,
        }


def main() -> None:
    for name, value in (measure_visits() | measure_actions()).items():
        print(f"{name:<52}{value:>12,.1f}")


if __name__ == "__main__":
    main()
