"""The dashboard in a real Chromium, over a real planner that lives through the sample trace.

Screenshots of every page, light and dark, wide and narrow, are left in build/screenshots.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from northbound.api import create_app
from northbound.security.desk import Security
from northbound.server import listen
from planner.config_northbound import Limits
from planner.snapshot import Operations
from tests.northbound.doubles import TOKEN
from tests.northbound.replayed import Replayed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
UNKNOWN = "kira"
PAGES = {
    "overview": "", "users": "?level=user", "pool": "/pools/anna", "group-pool": "/pools/global/west", "groups": "/groups",
    "group": "/groups/auto-1",
    "switches": "/switches", "switch": "/switches/0000000000000011", "alarms": "/alarms", "forecasts": "/forecasts",
    "models": "/models", "events": "/events", "audit": "/audit",
}  # fmt: skip


class Site:
    """The planner, and the address of its pages."""

    def __init__(self, planner: Replayed, address: str) -> None:
        self.planner = planner
        self.address = address


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A planner with half an hour behind it, served as it is in earnest: with its guard and its policy."""
    planner = Replayed.of_demo()
    planner.unknown = {UNKNOWN}
    for _ in range(4):
        planner.go_on()
    # Pages of a test come faster than people turn them.
    limits = Limits(requests_per_s=1e6, failures_per_minute=1e6, logins_per_minute=1e6)
    security = Security.of_token(TOKEN, limits=limits)
    app = create_app(cast(Operations, planner), TOKEN, now=lambda: planner.now, security=security)
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    yield Site(planner, f"http://127.0.0.1:{listener.getsockname()[1]}")
    server.should_exit = True
    thread.join(timeout=10)


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    """The browser and the driver that the system has; neither is fetched."""
    binary, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver_path:
        missing = "chromium and chromedriver must be installed (scripts/setup.sh --tests)"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    options = webdriver.ChromeOptions()
    arguments = (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--lang=en-GB",
    )
    for argument in arguments:
        options.add_argument(argument)
    options.binary_location = str(binary)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
    browser.set_page_load_timeout(60)
    yield browser
    browser.quit()


class Reader:
    """Somebody at the browser."""

    def __init__(self, browser: webdriver.Chrome, site: Site) -> None:
        self.browser = browser
        self.site = site
        self.clicks = 0

    def log_in(self, token: str = TOKEN) -> None:
        self.browser.get(f"{self.site.address}/dashboard/login")
        self.one("input[name=token]").send_keys(token, Keys.ENTER)

    def open(self, page: str = "") -> None:
        self.browser.get(f"{self.site.address}/dashboard{page}")

    def look(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """The size of the window and what the system prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        colours = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": colours})

    def one(self, selector: str) -> WebElement:
        found: WebElement = self.wait(lambda: next(iter(self.all(selector)), None), f"{selector} appears")
        return found

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        return WebDriverWait(self.browser, 30, 0.1).until(lambda _: condition(), f"waited for: {what}")

    def click(self, element: WebElement) -> None:
        self.clicks += 1
        element.click()

    def text(self) -> str:
        return self.one("main").text

    def link(self, words: str) -> WebElement:
        found = [one for one in self.all("main a") if one.text == words]
        assert found, f"no link {words!r} on {self.browser.current_url}"
        return found[0]

    def is_live(self) -> None:
        self.wait(
            lambda: self.one("#live-switch").get_attribute("data-stream") == "open", "the stream is open"
        )

    def complaints(self) -> list[str]:
        """What the browser's console has had since it was last asked."""
        return [
            entry["message"]
            for entry in self.browser.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")
        ]

    def shot(self, name: str) -> Path:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        file = SCREENSHOTS / f"{name}.png"
        self.browser.save_screenshot(str(file))
        return file


@pytest.fixture
def reader(chromium: webdriver.Chrome, site: Site) -> Reader:
    """Logged in, at a desk, with nothing remembered."""
    made = Reader(chromium, site)
    made.look()
    chromium.delete_all_cookies()
    made.open("/login")
    made.run("localStorage.clear(); sessionStorage.clear()")
    made.log_in()
    made.wait(lambda: made.all("#live"), "the overview after logging in")
    made.complaints()
    return made


def test_wrong_token_is_refused_in_words_and_the_right_one_lets_in(reader: Reader):
    """The login says what was wrong, leads to where one wanted to go, and logging out ends it."""
    reader.click(reader.one("#log-out"))
    reader.wait(lambda: reader.browser.current_url.endswith("/dashboard/login"), "the login page")
    reader.open("/alarms")
    assert reader.browser.current_url.endswith("/dashboard/login")
    reader.one("input[name=token]").send_keys("wrong", Keys.ENTER)
    reader.wait(lambda: "token" in reader.one(".result").text, "why it was refused")
    reader.one("input[name=token]").clear()
    reader.one("input[name=token]").send_keys(TOKEN, Keys.ENTER)
    reader.wait(lambda: reader.all("#live"), "the overview")
    assert TOKEN not in reader.browser.current_url
    assert TOKEN not in reader.run("return document.cookie + JSON.stringify(localStorage)")


@pytest.mark.parametrize("page", PAGES)
def test_page_loads_without_a_complaint(reader: Reader, page: str):
    """No error, and nothing that the content security policy had to stop."""
    reader.open(PAGES[page])
    reader.is_live()
    assert reader.all("h1")
    assert reader.complaints() == []


def test_newcomer_finds_why_a_user_has_its_rate_in_two_clicks_down_the_tree(reader: Reader):
    """From the overview: open the group, choose the user. There the answer stands, in words."""
    path = next(path for path in reader.site.planner.snapshot.pools.path if path.endswith("/anna"))
    group = path.split("/")[-2]
    reader.open()
    reader.click(reader.one(f'a.turn[aria-label="Open {group}"]'))
    reader.wait(lambda: any(one.text == "anna" for one in reader.all("main a")), "the group's members")
    reader.click(reader.link("anna"))
    reader.one(".answer")
    assert reader.clicks <= 3
    text = reader.text()
    assert "because" in text
    steps = [one.text for one in reader.all("#why .card:first-child .step")]
    assert steps == ["Measured", "Forecast", "Trust", "Asked for", "Share", "Granted", "Meters"]
    grant = reader.site.planner.snapshot.pools.grant_bps[1, reader.site.planner.snapshot.pools.index(path)]
    assert f"{grant / 1e6:.2f}" in reader.one("#why .card:first-child .answer").text
    assert "0000000000000011" in text


def test_newcomer_finds_it_by_name_in_one_click(reader: Reader):
    """Typing a name filters the list while one types, and the address keeps it."""
    reader.open()
    reader.one("#filter-text").send_keys("carla")
    reader.wait(lambda: len(reader.all("tbody tr")) == 1, "only carla's row")
    assert "q=carla" in reader.browser.current_url
    reader.click(reader.link("carla"))
    assert "because" in reader.text()
    assert reader.clicks == 1


def test_keyboard_alone_leads_from_the_overview_to_the_answer(reader: Reader):
    """Skip link, filter, result: each has the focus where one sees it."""
    reader.open()

    def press(*keys: str) -> None:
        ActionChains(reader.browser).send_keys(*keys).perform()

    def focused() -> WebElement:
        return reader.browser.switch_to.active_element

    press(Keys.TAB)
    assert focused().text == "Skip to the content"
    assert focused().location["y"] >= 0
    press(Keys.ENTER)
    seen = []
    for _ in range(20):
        press(Keys.TAB)
        outline = reader.run(
            "const s = getComputedStyle(document.activeElement); return s.outlineStyle + ' ' + s.outlineWidth"
        )
        assert outline == "solid 3px", focused().tag_name + focused().text
        seen.append(focused().get_attribute("id") or "")
        if seen[-1] == "filter-text":
            break
    assert seen[-1] == "filter-text", seen
    press("emma")
    reader.wait(lambda: len(reader.all("tbody tr")) == 1, "only emma's row")
    # The part of the page around the field is new; the focus is not lost.
    assert focused().get_attribute("id") == "filter-text"
    for _ in range(20):
        press(Keys.TAB)
        if focused().text == "emma":
            break
    press(Keys.ENTER)
    reader.wait(lambda: "because" in reader.text(), "the answer")


def test_chart_is_read_with_the_arrow_keys(reader: Reader):
    """Each step's figures are words beside the picture."""
    reader.open("/pools/anna")
    reader.run("document.querySelector('.chart').focus()")
    words = [reader.one(".chart .readout").text]
    for key in (Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.END, Keys.ESCAPE):
        ActionChains(reader.browser).send_keys(key).perform()
        words.append(reader.one(".chart .readout").text)
    assert "offered" in words[1]
    assert words[1] != words[2]
    assert "offered" not in words[3]
    assert "forecast" in words[3]
    assert words[4] == words[0]


def background(reader: Reader) -> list[int]:
    # Through a canvas: a computed colour may be in any notation.
    colour: list[int] = reader.run("""
        const context = document.createElement("canvas").getContext("2d");
        context.fillStyle = getComputedStyle(document.body).backgroundColor;
        context.fillRect(0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3)
    """)
    return colour


def test_dark_and_light_as_the_system_or_the_reader_wants(reader: Reader):
    """The system's wish holds until the reader's own, which outlives the page."""
    reader.open()
    assert min(background(reader)) > 200
    reader.look(dark=True)
    reader.wait(lambda: max(background(reader)) < 60, "dark colours")
    reader.click(reader.one("#theme-switch"))
    reader.wait(lambda: min(background(reader)) > 200, "light colours again")
    reader.open("/groups")
    assert min(background(reader)) > 200


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("page", ["overview", "pool", "alarms", "forecasts"])
def test_text_has_contrast(reader: Reader, page: str, dark: bool):
    """Every text against what is behind it: 4.5 to 1, as WCAG AA asks."""
    reader.look(dark=dark)
    reader.open(PAGES[page])
    poor = reader.run("""
        const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
        const over = (colours) => {
            canvas.clearRect(0, 0, 1, 1);
            for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
        };
        const luminance = (rgb) => rgb.map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const poor = [];
        for (const one of document.querySelectorAll("main *")) {
            if (![...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) || one.closest("svg")) continue;
            if (!one.getClientRects().length || one.closest(".visually-hidden")) continue;
            const behind = [];
            for (let at = one; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
            const [a, b] = [luminance(over(behind)), luminance(over([...behind, getComputedStyle(one).color]))];
            const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (contrast < 4.5) poor.push(`${contrast.toFixed(2)} ${one.className} ${one.textContent.slice(0, 40)}`);
        }
        return [...new Set(poor)]
    """)
    assert poor == []


@pytest.mark.parametrize("page", PAGES)
def test_phone_scrolls_in_one_direction_only(reader: Reader, page: str):
    """At 320 pixels nothing is cut off and nothing is wider than the screen."""
    reader.look(width=320, height=640)
    reader.open(PAGES[page])
    reader.is_live()
    assert reader.run("return document.documentElement.scrollWidth") <= 320
    # Nor hidden behind a box that scrolls by itself, but for lists that are tables in any case.
    wide = "return [...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth + 1).length"
    assert page == "switch" or reader.run(wide) == 0


def tick_of(reader: Reader) -> str | None:
    """Which tick the page shows; looked up and read at once, since the next news replaces the element."""
    tick: str | None = reader.run("return document.querySelector('.status')?.dataset.tick ?? null")
    return tick


def test_new_plan_shows_without_loading_the_page_again(reader: Reader):
    """A tick of the planner reaches the page, which keeps what the reader has done in it."""
    reader.open()
    reader.is_live()
    reader.run("window.mine = 1")
    reader.one("#filter-level").send_keys("")
    first = tick_of(reader)
    reader.run("document.querySelector('main a.pool').focus()")
    focused = reader.run("return document.activeElement.id")
    reader.site.planner.go_on()
    reader.wait(lambda: tick_of(reader) not in (None, first), "the new tick")
    assert reader.run("return window.mine") == 1
    assert reader.run("return document.activeElement.id") == focused
    assert reader.complaints() == []


def test_paused_page_stands_still(reader: Reader):
    """Who compares figures can stop them; going on catches up at once."""
    reader.open()
    reader.is_live()
    first = tick_of(reader)
    reader.click(reader.one("#live-switch"))
    heard = "window.heard = 0; document.addEventListener('htmx:confirm', () => { window.heard += 1 })"
    reader.run(heard)
    reader.site.planner.go_on()
    reader.wait(lambda: reader.run("return window.heard") > 0, "the news of a tick")
    assert tick_of(reader) == first
    reader.click(reader.one("#live-switch"))
    reader.wait(lambda: tick_of(reader) not in (None, first), "what was missed")


def test_no_data_does_not_look_like_zero(reader: Reader):
    """One user's meters cannot be read, another sends nothing: hatching and words for the one, 0.00 for the other."""
    planner = reader.site.planner
    planner.silent = {"names"}
    planner.go_on()
    # The page shall not be renewed between two looks at it.
    reader.run("sessionStorage.setItem('tidegate-live', 'off')")
    try:
        reader.open("?level=user")
        rows = {one.find_element(By.CSS_SELECTOR, "a.pool").text: one for one in reader.all("tbody tr")}
        assert "no data" in rows[UNKNOWN].text
        assert rows[UNKNOWN].find_elements(By.CSS_SELECTOR, ".bar .gap")
        assert "0.00" in rows["names"].text
        assert "no data" not in rows["names"].text
        assert not rows["names"].find_elements(By.CSS_SELECTOR, ".bar .gap")
        fills = [reader.run("return getComputedStyle(arguments[0]).fill", one) for one in
                 (rows[UNKNOWN].find_element(By.CSS_SELECTOR, ".bar rect"), rows["names"].find_element(By.CSS_SELECTOR, ".bar rect"))]  # fmt: skip
        assert "hatch" in fills[0]
        assert "hatch" not in fills[1]
        reader.open(f"/pools/{UNKNOWN}")
        assert "not the same as nothing sent" in reader.text()
    finally:
        planner.silent = set()


def test_boost_is_made_on_a_users_page_and_ended_on_another(reader: Reader):
    """What an operator does most: more for somebody, for a time, with the reason."""
    reader.open("/pools/ben")
    form = reader.one("#boost")
    form.find_element(By.NAME, "down").send_keys("3")
    form.find_element(By.NAME, "up").send_keys("2")
    form.find_element(By.NAME, "reason").send_keys("a lecture")
    reader.run("arguments[0].scrollIntoView({block: 'center'})", form)
    # The planner's clock is the trace's; the browser's is not: the end is far ahead for both.
    form.find_element(By.CSS_SELECTOR, "button.primary").click()
    reader.wait(lambda: "Done" in form.find_element(By.CSS_SELECTOR, ".result").text, "the boost")
    (boost,) = reader.site.planner.policy.boosts()
    assert boost.pools == ("user:ben",)
    assert boost.lift.guarantee_bps == (2e6, 3e6)
    reader.open("/events")
    assert "a lecture" in reader.text()
    reader.one("tbody button").click()
    reader.browser.switch_to.alert.accept()
    reader.wait(lambda: "a lecture" not in reader.text(), "its end")
    assert reader.site.planner.policy.boosts() == ()


def test_boost_is_tried_before_it_is_made(reader: Reader):
    """The form says which meters would change, from what to what, and makes no boost."""
    reader.open("/pools/ben")
    form = reader.one("#boost")
    form.find_element(By.NAME, "down").send_keys("15")
    form.find_element(By.NAME, "up").send_keys("15")
    reader.run("arguments[0].scrollIntoView({block: 'center'})", form)
    form.find_element(By.NAME, "try").click()
    reader.wait(lambda: form.find_elements(By.CSS_SELECTOR, ".result li"), "the meters")
    reader.shot("dry-run")
    result = form.find_element(By.CSS_SELECTOR, ".result").text
    assert "Nothing is changed yet" in result
    assert "/ben download" in result
    assert "kbit/s" in result
    assert reader.site.planner.policy.boosts() == ()


def test_boost_that_is_refused_says_why_and_keeps_what_was_typed(reader: Reader):
    """A boost that lifts nothing: the planner's own words stand beside the form."""
    reader.open("/pools/ben")
    form = reader.one("#boost")
    form.find_element(By.NAME, "reason").send_keys("nothing in particular")
    reader.run("arguments[0].scrollIntoView({block: 'center'})", form)
    form.find_element(By.CSS_SELECTOR, "button.primary").click()
    reader.wait(lambda: form.find_elements(By.CSS_SELECTOR, ".result.refused"), "why it was refused")
    assert "must" in form.find_element(By.CSS_SELECTOR, ".result").text
    assert form.find_element(By.NAME, "reason").get_attribute("value") == "nothing in particular"
    assert reader.site.planner.policy.boosts() == ()


def test_group_shows_its_traffic_and_its_past(reader: Reader):
    """Who is in it is said, drawn, and dated."""
    reader.open("/groups/auto-1")
    members = next(group for group in reader.site.planner.snapshot.groups if group.id == "auto-1").members
    assert {one.text for one in reader.all(".graph text")} == set(members)
    assert reader.all(".graph .edge")
    assert "What happened to it" in reader.text()


def test_acknowledged_alarm_is_marked_as_seen(reader: Reader):
    """One click, and every screen shows it."""
    alarms = reader.site.planner.alarms
    waiting = alarms.view(only_open=True).unacknowledged
    assert waiting, "the trace's surges raise alarms"
    reader.open("/alarms")
    button = reader.one("button[data-api]")
    ident = button.get_attribute("id")
    button.click()
    reader.wait(lambda: not reader.all(f"#{ident}"), "the mark")
    assert "Seen" in reader.text()
    assert alarms.view(only_open=True).unacknowledged == waiting - 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_screenshots(reader: Reader, dark: bool):
    """Each page as it looks, for people to judge."""
    word = "dark" if dark else "light"
    for name, page in PAGES.items():
        for width in (1280, 320):
            reader.look(width=width, height=800, dark=dark)
            reader.open(page)
            height = min(reader.run("return document.documentElement.scrollHeight"), 2600)
            reader.look(width=width, height=max(height, 640), dark=dark)
            assert reader.shot(f"{name}-{word}-{width}").stat().st_size > 5000
