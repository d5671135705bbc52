"""The report page in a real browser: it loads without a request, moves, pauses, sorts and finds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from pipeline.config import compose
from pipeline.report.write import write_results
from pipeline.storage import Store
from tests.pipeline.made_up_run import write_run

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: `make browser` installs it")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_run(tmp_path_factory.mktemp("run"), num_photos=4, num_faces=2)
    return Path(write_results(Store(folder), compose())).as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    yield page
    page.close()


def _is_moving(page: Page) -> bool:
    script = "() => [...document.querySelectorAll('source.motion')].every(s => matchMedia(s.media).matches)"
    return bool(page.evaluate(script))


def test_it_loads_alone_and_without_a_complaint(page: Page, address: str) -> None:
    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    assert [url for url in requests if not url.startswith("data:")] == [address]
    assert complaints == []
    assert page.title().endswith("Galatea")
    assert page.locator("article").count() == 6
    broken = "() => [...document.images].filter(i => i.complete && !i.naturalWidth).length"
    page.evaluate("() => document.getElementById('provenance').scrollIntoView()")
    assert page.evaluate(broken) == 0
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_motion_can_be_paused_and_respects_the_system(browser: Browser, page: Page, address: str) -> None:
    page.goto(address)
    assert _is_moving(page)
    page.get_by_role("button", name="Pause motion").click()
    assert not _is_moving(page)
    page.get_by_role("button", name="Play motion").click()
    assert _is_moving(page)
    calm = browser.new_page(reduced_motion="reduce")
    calm.goto(address)
    assert not _is_moving(calm)
    calm.close()


def test_cards_are_found_and_sorted(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_label("Find").fill("family 001")
    assert page.locator("article:visible").count() == 2
    page.get_by_label("Find").fill("")
    page.get_by_label("Sort").select_option("-psnr")
    values = page.evaluate("() => [...document.querySelectorAll('article')].map(a => Number(a.dataset.psnr))")
    assert values == sorted(values)


def test_it_fits_a_phone_and_both_themes(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(address)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Dark / light").click()
    assert page.evaluate(ground) != light
