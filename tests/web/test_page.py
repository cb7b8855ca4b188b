"""The page in a browser, each view on a desktop and a phone, in light and in dark. Screenshots go to build/console."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("playwright")

from playwright.sync_api import BrowserContext, Page, expect

from streamlib.web.server import WebServer
from tests.web.browser import CHROMIUM, Scheme, Size, as_seen, chromium, overflowing
from tests.web.shop import PASSWORD, STUCK, Worker, consoles

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"there is no browser at {CHROMIUM}: apt-get install chromium"
)

BUILD = Path(__file__).parents[2] / "build" / "console"
TOKEN = "a-token-that-nobody-guesses"

CONTENT = {
    "overview": ["Records in", "Workers", "worker-2", "1_11", "revenue-per-minute", "8 of 24 tasks move"],
    "topology": ["Sub-topology 1", "enriched-orders", "join", "read/s"],
    "tasks": ["Where tasks are", "0_11", "orders-11", "worker-2 (12 behind)"],
    "hotspots": ["KSTREAM-JOIN-0000000004", "customer-7", "23 %"],
    "letters": ["orders-dead-letters", "NegativeAmount", "an order cannot be below nothing"],
    "stores": ["revenue-per-minute", "customer-11", '{"name":"Ann","city":"Graz"}', "50 rows from worker-0"],
    "settings": ["processing_guarantee", "exactly_once_v2", "set, and not shown"],
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    with chromium(tmp_path_factory.mktemp("profile")) as context:
        yield context


@pytest.fixture(scope="module")
def workers() -> list[Worker]:
    return [Worker(number) for number in range(3)]


@pytest.fixture(scope="module")
def shown(workers: list[Worker]) -> Iterator[list[WebServer]]:
    with consoles(workers) as servers:
        yield servers


@contextmanager
def opened(browser: BrowserContext, *, quiet: bool = True) -> Iterator[Page]:
    """A page whose console has to stay empty."""
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    try:
        yield page
        assert not quiet or said == []
        assert [url for url in asked if not url.startswith("http://127.0.0.1:")] == []
    finally:
        page.close()


@pytest.fixture
def page(browser: BrowserContext) -> Iterator[Page]:
    with opened(browser) as ready:
        yield ready


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_every_view_shows_its_content_and_fits(page: Page, shown: list[WebServer], size: Size, scheme: Scheme) -> None:
    as_seen(page, size, scheme)
    BUILD.mkdir(parents=True, exist_ok=True)
    page.goto(f"http://{shown[0].address}/")
    expect(page.locator("h1")).to_have_text("shop")
    for view, content in CONTENT.items():
        page.goto(f"http://{shown[0].address}/#/{view}")
        expect(page.locator("nav a[aria-current=page]")).to_have_attribute("href", f"#/{view}")
        for text in content:
            expect(page.locator("main").get_by_text(text).filter(visible=True).first).to_be_visible()
        assert overflowing(page) == [], view
        page.screenshot(path=BUILD / f"{view}-{size}-{scheme}.png", full_page=True)
        assert PASSWORD not in page.content()


def test_it_lives(page: Page, shown: list[WebServer], workers: list[Worker]) -> None:
    """What changes is there without a click, and what was opened stays open."""
    page.goto(f"http://{shown[0].address}/#/topology")
    page.locator("summary").click()
    page.get_by_role("button", name=re.compile("KSTREAM-JOIN")).click()
    expect(page.get_by_text("ms", exact=False).first).to_be_visible()
    workers[1].said = STUCK
    try:
        expect(page.get_by_role("status")).to_have_text("stuck")
    finally:
        workers[1].said = Worker(1).said
    expect(page.get_by_role("status")).to_have_text("degraded")
    expect(page.locator("details")).to_have_attribute("open", "")
    expect(page.get_by_text("Topologies:")).to_be_visible()


def test_stores_are_searched_and_paged_through(page: Page, shown: list[WebServer]) -> None:
    page.goto(f"http://{shown[0].address}/#/stores")
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("page 2, 10 rows")).to_be_visible()
    page.get_by_role("button", name="Before").click()
    expect(page.get_by_text("50 rows")).to_be_visible()
    page.get_by_role("button", name="revenue-per-minute").click()
    expect(page.get_by_role("columnheader", name="Window")).to_be_visible()
    page.get_by_label("Key").fill("customer-7")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("119")
    expect(page.get_by_label("Key")).to_have_value("customer-7")
    page.get_by_label("How to search").select_option("prefix")
    page.get_by_label("Key").fill("customer-5")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(11)
    page.get_by_label("Key").fill("nobody")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("Nothing is there for nobody.")).to_be_visible()


def test_it_can_be_used_by_keyboard(page: Page, shown: list[WebServer]) -> None:
    page.goto(f"http://{shown[0].address}/#/topology")
    node = page.get_by_role("button", name=re.compile("KSTREAM-JOIN"))
    node.focus()
    page.keyboard.press("Enter")
    expect(node).to_have_attribute("aria-pressed", "true")
    expect(node).to_be_focused()
    expect(page.locator("dl")).to_contain_text("Time")


def test_light_and_dark_are_remembered(page: Page, shown: list[WebServer]) -> None:
    as_seen(page, "desktop", "light")
    page.goto(f"http://{shown[0].address}/")
    switch = page.get_by_role("button", name="Switch between light and dark")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    switch.click()
    after = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert before != after
    page.reload()
    expect(page.locator("h1")).to_have_text("shop")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == after
    switch.click()


def test_a_worker_that_does_not_answer_is_shown_as_such(browser: BrowserContext) -> None:
    workers = [Worker(number, restoring=False) for number in range(3)]
    with consoles(workers) as servers, opened(browser) as page:
        page.goto(f"http://{servers[0].address}/")
        expect(page.get_by_role("status")).to_have_text("healthy")
        workers[2].held_s = 2.0
        row = page.locator("tbody tr").filter(has_text="worker-2")
        expect(row).to_contain_text("no answer since")
        expect(page.locator("main")).to_contain_text("worker-2 does not answer since")
        as_seen(page, "desktop", "light")
        page.screenshot(path=BUILD / "silent-worker-desktop-light.png", full_page=True)
        workers[2].held_s = 0.0
        expect(row).to_contain_text("running")


def test_the_asked_worker_that_is_gone_is_said(browser: BrowserContext) -> None:
    with opened(browser, quiet=False) as page:
        with consoles([Worker(0, restoring=False)]) as servers:
            page.goto(f"http://{servers[0].address}/")
            expect(page.locator("h1")).to_have_text("shop")
        expect(page.get_by_role("alert")).to_contain_text("This worker does not answer since")
        expect(page.locator("main")).to_contain_text("worker-0")
        as_seen(page, "phone", "dark")
        assert overflowing(page) == []
        page.screenshot(path=BUILD / "silent-phone-dark.png")


def test_logging_in(browser: BrowserContext) -> None:
    with consoles([Worker(number, TOKEN) for number in range(3)]) as servers, opened(browser, quiet=False) as page:
        as_seen(page, "phone", "light")
        page.goto(f"http://{servers[0].address}/")
        page.get_by_label("Token").fill("not the token")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_have_text("This is not the token.")
        page.screenshot(path=BUILD / "login-phone-light.png")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("main")).to_contain_text("worker-2")
        assert TOKEN not in page.url
        assert page.evaluate("document.cookie") == ""
        browser.clear_cookies()
        page.goto(f"http://{servers[1].address}/?token={TOKEN}#/tasks")
        expect(page.locator("main")).to_contain_text("Where tasks are")
        assert "token" not in page.url
        browser.clear_cookies()
