"""The table of all test images in a browser: headless Chromium."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("selenium", reason="no selenium here")

from browsers import NO_BROWSER, visit
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from pipeline.report.answers import Answer
from pipeline.report.image_pages import ImagePages
from pipeline.saliency.stored_outputs import StoredOutputs

pytestmark = [pytest.mark.browser, NO_BROWSER]
MANY, ROWS = 10_000, 50


@pytest.fixture(scope="module")
def page(parted: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parted.write(tmp_path_factory.mktemp("report") / "report").with_name("images.html")


def column(browser: Any, number: int) -> list[str]:
    cells = browser.find_elements(By.CSS_SELECTOR, f".answers tbody tr > :nth-child({number})")
    return [cell.text for cell in cells]


def sort(browser: Any, by: str) -> str:
    """Follows the header of a column; returns the way in which the column is sorted."""
    button = browser.find_element(By.CSS_SELECTOR, f"[data-by={by}]")
    button.send_keys(Keys.ENTER)
    return button.find_element(By.XPATH, "..").get_attribute("aria-sort")


def opened(browser: Any) -> str:
    """Returns what the page of the opened image says."""
    WebDriverWait(browser, 10).until(lambda b: b.find_elements(By.CSS_SELECTOR, "dialog iframe"))
    browser.switch_to.frame(browser.find_element(By.CSS_SELECTOR, "dialog iframe"))
    shown = [a for a in browser.find_elements(By.CSS_SELECTOR, ".answer") if a.is_displayed()]
    text = shown[0].text
    assert len(shown) == 1
    browser.switch_to.default_content()
    return text


def test_columns_sort_both_ways_by_keyboard(browser: Any, page: Path) -> None:
    visit(browser, page, 1280)
    before = column(browser, 2)
    for by, number, key in (
        ("confidence", 5, lambda text: float(text[:-2])),
        ("named", 4, lambda text: text[2:]),
    ):
        assert sort(browser, by) == "ascending"
        up = [key(text) for text in column(browser, number)]
        assert up == sorted(up)
        assert sort(browser, by) == "descending"
        assert [key(text) for text in column(browser, number)] == sorted(up, reverse=True)
    assert sort(browser, "named") == "none"
    assert column(browser, 2) == before


def test_filters_narrow_down_and_can_be_cleared(parted: Any, browser: Any, page: Path) -> None:
    visit(browser, page, 1280)
    outputs = parted.outputs
    right_N = outputs.labels_N == outputs.predicted_N
    Select(browser.find_element(By.NAME, "right")).select_by_visible_text("wrong")
    assert len(column(browser, 2)) == (~right_N).sum()
    assert all(text.startswith("✗") for text in column(browser, 4))
    Select(browser.find_element(By.NAME, "actual")).select_by_index(1)
    first = browser.find_element(By.CSS_SELECTOR, "[name=actual] option:nth-child(2)").text
    assert set(column(browser, 3)) == {first}
    browser.find_element(By.CSS_SELECTOR, "[type=reset]").click()
    assert len(column(browser, 2)) == len(right_N)
    region = parted.report().contrasts.plain(0).margin.regions[0].called
    Select(browser.find_element(By.NAME, "region")).select_by_visible_text(region)
    assert set(column(browser, 7)) == {region}
    browser.find_element(By.NAME, "id").send_keys("CLASS 1/")
    assert all(text.startswith("class 1/") for text in column(browser, 2))
    assert browser.find_element(By.CSS_SELECTOR, ".count").text.startswith(
        f"{len(column(browser, 2))} of {len(right_N)} images"
    )


def test_an_image_opens_and_steps_go_through_the_table_as_it_is_sorted(
    browser: Any, page: Path
) -> None:
    visit(browser, page, 1280)
    sort(browser, "confidence")
    ids = column(browser, 2)
    browser.find_element(By.CSS_SELECTOR, ".answers tbody a").send_keys(Keys.ENTER)
    assert opened(browser).startswith(ids[0])
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    text = opened(browser)
    assert text.startswith(ids[1])
    assert text.index(" rather than ") < text.index("By prototype")
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not browser.find_element(By.TAG_NAME, "dialog").is_displayed()
    assert "image=" not in browser.current_url and column(browser, 2) == ids


def test_an_address_can_be_sent(browser: Any, page: Path) -> None:
    visit(browser, page, 1280, "#sort=margin&down=1&right=0&image=4")
    assert opened(browser)
    margins = [float(text.replace("−", "-")) for text in column(browser, 6)]
    assert margins == sorted(margins, reverse=True) and len(margins) > 1
    address = browser.find_element(By.CSS_SELECTOR, "dialog a").get_attribute("href")
    assert address.endswith("images/0.html#image-4")
    browser.back()
    browser.get(address)
    shown = [a for a in browser.find_elements(By.CSS_SELECTOR, ".answer") if a.is_displayed()]
    assert [article.get_attribute("id") for article in shown] == ["image-4"]
    browser.find_element(By.CSS_SELECTOR, ".alone a").click()
    assert all(a.is_displayed() for a in browser.find_elements(By.CSS_SELECTOR, ".answer"))


def test_a_picture_is_enlarged_by_the_keyboard_and_made_small_again(
    browser: Any, page: Path
) -> None:
    visit(browser, page.parent / "images" / "0.html", 1280)
    box = browser.find_element(By.CSS_SELECTOR, ".enlarge input")
    picture = browser.find_element(By.CSS_SELECTOR, ".enlarge img")
    small = picture.size["width"]
    box.send_keys(Keys.SPACE)
    assert picture.size["width"] > 2 * small
    box.send_keys(Keys.SPACE)
    assert picture.size["width"] == small


def test_without_scripts_every_page_is_linked(browser: Any, page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        visit(browser, page, 1280)
        assert not browser.find_element(By.ID, "all").is_displayed()
        browser.find_element(By.CSS_SELECTOR, ".pages a").click()
        assert browser.current_url.endswith("images/0.html")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_ten_thousand_images_do_not_freeze_the_table(
    parted: Any, browser: Any, tmp_path: Path
) -> None:
    random, rows = np.random.default_rng(0), parted.outputs.rows_N
    outputs = StoredOutputs(
        np.resize(rows, MANY), np.zeros(MANY, int), np.zeros((MANY, 3)), np.zeros(0), np.zeros(0)
    )
    report = parted.report()
    pages = ImagePages(parted.index, report.renderer, parted.prototypes, outputs, report.contrasts)
    sure_N, named_N = random.random(MANY), random.integers(0, 3, MANY)
    pages.write_table(
        tmp_path / "images.html",
        [
            Answer(place, place % 3, int(named), float(sure), 0, None, f"part {place % 7}", None)
            for place, (sure, named) in enumerate(zip(sure_N, named_N, strict=True))
        ],
        0,
        (),
    )
    visit(browser, tmp_path / "images.html", 1280)
    assert len(column(browser, 2)) == ROWS
    took = browser.execute_script(
        """const took = [];
        for (const by of ['image', 'named', 'confidence', 'region']) {
            const began = performance.now();
            document.querySelector(`[data-by=${by}]`).click();
            document.body.offsetHeight;
            took.push(performance.now() - began);
        }
        return took"""
    )
    assert max(took) < 2000  # ms; about 100 on an idle machine
    assert browser.execute_script("return document.querySelectorAll('*').length") < 3000
    last = browser.find_element(By.CSS_SELECTOR, "[data-turn='1']")
    last.click()
    assert browser.find_element(By.CSS_SELECTOR, "#all .paging span").text == "51–100 of 10000"
