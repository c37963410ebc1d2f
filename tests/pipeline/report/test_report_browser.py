"""The report's pages in a browser, on a phone and on a desk: headless Chromium."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="no selenium here")

from browsers import NO_BROWSER, visit
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = [pytest.mark.browser, NO_BROWSER]
SECTIONS = "decisions mistakes metrics answers segmentation map prototypes run".split()
WIDTHS = pytest.mark.parametrize("width", [320, 390, 1280])


@pytest.fixture(scope="module")
def page(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("report") / "report")


@pytest.fixture(scope="module")
def pages(tiny: Any, parted: Any, page: Path) -> dict[str, Path]:
    """One of each kind of page."""
    return {
        "index": page,
        "class": page.parent / "classes" / "0.html",
        "parts": parted.write(page.parent / "parted").parent / "parts.html",
        "photograph": tiny.write_photograph(page.parent / "photograph.html"),
        "table": page.parent / "images.html",
        "images": page.parent / "images" / "0.html",
    }


KINDS = pytest.mark.parametrize(
    "kind", ["index", "class", "parts", "photograph", "table", "images"]
)


@KINDS
@WIDTHS
def test_nothing_is_wider_than_the_window(
    browser: Any, pages: dict[str, Path], width: int, kind: str
) -> None:
    visit(browser, pages[kind], width)
    wide = browser.execute_script(
        """const all = [...document.querySelectorAll('main *, header *')];
        return all.filter(e => !e.parentElement.closest('.scroll'))
            .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
            .map(e => e.tagName + '.' + e.className)"""
    )
    assert wide == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@WIDTHS
def test_all_sections_are_there(browser: Any, page: Path, width: int) -> None:
    visit(browser, page, width)
    links = browser.find_elements(By.CSS_SELECTOR, "nav a[href^='#']")
    assert [link.get_attribute("href").split("#")[1] for link in links] == SECTIONS
    for section in SECTIONS:
        element = browser.find_element(By.ID, section)
        assert element.find_element(By.TAG_NAME, "h2").is_displayed()
        assert element.size["height"] > 60


@pytest.mark.parametrize(
    ("kind", "least"), [("index", 30), ("class", 10), ("parts", 26), ("photograph", 20)]
)
def test_all_pictures_are_there(
    browser: Any, pages: dict[str, Path], kind: str, least: int
) -> None:
    visit(browser, pages[kind], 1280)
    broken = browser.execute_async_script(
        """const done = arguments[0], images = [...document.images];
        images.forEach(i => i.loading = 'eager');
        Promise.all(images.map(i => i.decode().then(() => null, () => i.alt)))
            .then(found => done([images.length, found.filter(Boolean)]))"""
    )
    assert broken[0] > least and broken[1] == []


@KINDS
def test_every_picture_says_what_it_shows(browser: Any, pages: dict[str, Path], kind: str) -> None:
    visit(browser, pages[kind], 1280)
    alts = browser.execute_script("return [...document.images].map(i => i.alt)")
    assert all(len(alt) > 8 for alt in alts)
    drawings = browser.execute_script(
        "return [...document.querySelectorAll('svg')].map(s => s.getAttribute('aria-label'))"
    )
    assert len(drawings) == (6 if kind == "index" else 0) and all(drawings)
    if kind == "class":
        assert any(alt.startswith("Training photograph class 0/") for alt in alts)


def test_points_add_up_as_shown(browser: Any, page: Path) -> None:
    visit(browser, page, 1280)
    tables = browser.execute_script(
        """const text = e => e.textContent.replace('−', '-');
        return [...document.querySelectorAll('table.sum')].map(t =>
            [[...t.querySelectorAll('.points')].map(text), text(t.querySelector('.score'))])"""
    )
    assert len(tables) >= 3
    for points, score in tables:
        assert sum(round(100 * float(value)) for value in points) == round(100 * float(score))


def test_a_prototype_leads_to_its_page_and_back(browser: Any, page: Path) -> None:
    visit(browser, page, 1280)
    link = browser.find_element(By.CSS_SELECTOR, "#class-2 .strip a")
    target = link.get_attribute("href")
    link.send_keys(Keys.ENTER)
    assert browser.current_url == target and "/classes/2.html#prototype-" in target
    card = browser.find_element(By.ID, target.partition("#")[2])
    assert card.is_displayed() and card.value_of_css_property("outline-style") == "solid"
    browser.find_element(By.CSS_SELECTOR, "nav a").send_keys(Keys.ENTER)
    assert browser.current_url == page.as_uri() + "#class-2"


def test_pointing_at_a_class_on_the_map_shows_it_alone(browser: Any, page: Path) -> None:
    visit(browser, page, 1280)
    groups = browser.find_elements(By.CSS_SELECTOR, ".map svg a")
    assert len(groups) == 3
    dots = groups[0].find_element(By.TAG_NAME, "path")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", dots)
    x, y = browser.execute_script(
        """const p = arguments[0].getPointAtLength(0), m = arguments[0].getScreenCTM();
        return [m.a * p.x + m.e, m.d * p.y + m.f]""",
        dots,
    )
    move = {"type": "mouseMoved", "x": x, "y": y}
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", move)
    opacity = [float(group.value_of_css_property("opacity")) for group in groups]
    assert opacity[0] == 1 and max(opacity[1:]) < 0.5
    assert groups[0].find_element(By.TAG_NAME, "text").value_of_css_property("display") != "none"


def test_the_first_key_leads_to_the_skip_link(browser: Any, page: Path) -> None:
    visit(browser, page, 1280)
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    focused = browser.switch_to.active_element
    assert focused.get_attribute("class") == "skip"
    assert focused.rect["x"] >= 0
    focused.send_keys(Keys.ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "main"


@KINDS
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(
    browser: Any, pages: dict[str, Path], scheme: str, kind: str
) -> None:
    """Contrast of every text with the page of at least 4.5 (WCAG 2.2, AA)."""
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    visit(browser, pages[kind], 1280)
    faint = browser.execute_script(
        """const light = c => {
            const [r, g, b] = c.match(/[\\d.]+/g).map(v => v / 255)
                .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b };
        const ground = e => { for (; e; e = e.parentElement) {
            const c = getComputedStyle(e).backgroundColor;
            if (!c.startsWith('rgba')) return c } };
        return [...document.querySelectorAll('body *')]
            .filter(e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()))
            .map(e => { const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
                return [e.tagName + '.' + e.className,
                    (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)] })
            .filter(([_, contrast]) => contrast < 4.5)"""
    )
    assert faint == []


@WIDTHS
def test_the_map_names_every_class_on_every_screen(browser: Any, page: Path, width: int) -> None:
    visit(browser, page, width)
    for group in browser.find_elements(By.CSS_SELECTOR, ".map svg a"):
        shown = [t.text for t in group.find_elements(By.TAG_NAME, "text") if t.is_displayed()]
        name = group.find_element(By.TAG_NAME, "title").get_attribute("textContent")
        label = group.find_element(By.CSS_SELECTOR, ".label").get_attribute("textContent")
        assert shown == ([name] if width == 1280 else [label])
        if width < 500:
            item = browser.find_element(By.CSS_SELECTOR, f".map li[value='{label}']")
            assert item.text == name and item.is_displayed()


def test_there_is_always_a_way_back_up(browser: Any, page: Path) -> None:
    visit(browser, page, 390)
    browser.execute_script("window.scrollTo(0, 4000)")
    link = browser.find_element(By.CSS_SELECTOR, ".up a")
    box = browser.execute_script("return arguments[0].getBoundingClientRect()", link)
    assert box["top"] > 0 and box["bottom"] <= 800
    link.send_keys(Keys.ENTER)
    assert browser.execute_script("return scrollY") < 100


@pytest.mark.parametrize("table", ["sum", "regions"])
def test_on_a_phone_headers_stand_over_their_columns_and_stay(
    browser: Any, page: Path, table: str
) -> None:
    visit(browser, page, 390)
    lefts = browser.execute_script(
        """const left = e => Math.round(e.getBoundingClientRect().left);
        const t = document.querySelector(`table.${arguments[0]}`);
        return [t.tHead.rows[0], t.tBodies[0].rows[0]].map(r => [...r.cells].map(left))""",
        table,
    )
    shown = 3 if table == "regions" else 4
    assert lefts[0][:shown] == lefts[1][:shown]
    top = browser.execute_script(
        """const t = document.querySelector(`table.${arguments[0]}`);
        scrollTo(0, t.getBoundingClientRect().top + scrollY + 150);
        return t.tHead.getBoundingClientRect().top""",
        table,
    )
    assert abs(top) < 2
