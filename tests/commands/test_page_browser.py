"""`protomask app` in a browser: a photograph is dropped, masks are looked at, a part is named."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from settings import patches

pytest.importorskip("gradio", reason="no Gradio here (the extra `app`)")
webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium here")

from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

from commands import page  # noqa: E402
from pipeline.masks.part_names import read_part_names  # noqa: E402
from pipeline.masks.store import MaskStore, write_store  # noqa: E402
from pipeline.saliency.prototypes import figure  # noqa: E402
from protomask import load  # noqa: E402
from protomask.export import export_model  # noqa: E402
from stages.workspace import Workspace  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here"),
]
SWITCHES = (
    "--headless=new --no-sandbox --disable-gpu --disable-background-networking "
    "--disable-component-update --disable-sync --no-first-run --window-size=1280,1600"
).split()
PATIENCE = 120


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(switch)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def opened(browser: Any, folder: Path) -> page.gr.Blocks:
    served = page.build(folder)
    _, address, _ = served.launch(prevent_thread_lock=True, quiet=True)
    browser.get(address)
    return served


def wait(browser: Any, selector: str, text: str = "") -> Any:
    def shown(driver: Any) -> Any:
        found = driver.find_elements(By.CSS_SELECTOR, selector)
        return next((element for element in found if text in element.text), None)

    return WebDriverWait(browser, PATIENCE).until(shown, f"{selector}: {text}")


def picture(browser: Any, selector: str) -> None:
    """Waits for a picture that has been loaded."""
    loaded = "const i = document.querySelector(arguments[0]); return i && i.naturalWidth > 0"
    WebDriverWait(browser, PATIENCE).until(lambda driver: driver.execute_script(loaded, selector))


def tab(browser: Any, name: str) -> None:
    wait(browser, "button[role=tab]", name).click()


def ask(browser: Any, photograph: Path) -> None:
    wait(browser, "#photo")
    browser.find_element(By.CSS_SELECTOR, "#photo input[type=file]").send_keys(str(photograph))
    wait(browser, "#why", " rather than ")
    picture(browser, "#figure img")
    assert len(wait(browser, "#margin table", "prototype").text.splitlines()) > 1


def test_photographs_masks_and_parts(browser: Any, run_folder: Path) -> None:
    workspace = Workspace(run_folder)
    store = MaskStore(workspace.masks)
    masks = [store.masks(row) for row in range(len(store))]
    parted = [replace(each, parts=np.arange(len(each), dtype=np.int32)) for each in masks]
    shutil.rmtree(workspace.masks)
    write_store(workspace.masks, workspace.read_image_files(), patches(), parted)
    served = opened(browser, run_folder)
    ask(browser, run_folder / "photographs" / "class 1" / "003.png")
    tab(browser, "Masks of the data set")
    wait(browser, "button, span", "part 2")
    tab(browser, "Names of parts")
    field = wait(browser, "#name textarea, #name input")
    field.send_keys("wing")
    wait(browser, "#save").click()
    wait(browser, "#saved", "Part 0 is called wing")
    served.close()
    names = read_part_names(workspace.part_names, patches().fingerprint(), {})
    assert names.given == {0: "wing"} and not names.remark


def test_a_model_that_travels_has_photographs_alone(
    browser: Any, finished_run: Path, tmp_path: Path
) -> None:
    export_model(Workspace(finished_run), tmp_path / "birds")
    see_through = tmp_path / "see-through.png"
    with Image.open(finished_run / "photographs" / "class 0" / "001.png") as image:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        image.save(see_through)
    served = opened(browser, tmp_path / "birds")
    ask(browser, see_through)
    said = wait(browser, "#scores table").text
    for name, score in load(tmp_path / "birds").predict(see_through).scores.items():
        assert f"{name} {figure(score)}" in said
    tabs = browser.find_elements(By.CSS_SELECTOR, "button[role=tab]")
    served.close()
    assert [element.text for element in tabs if element.text] == ["A photograph"]


def test_colours_do_not_lie_over_one_another() -> None:
    large, small = np.ones((4, 6), bool), np.zeros((4, 6), bool)
    small[1:3, 1:3] = True
    shown = page.apart([large, small])
    assert np.array_equal(shown[1], small) and np.array_equal(shown[0], ~small)
    assert large.all() and page.apart([]) == []
