"""The report as a person meets it: in a browser, clicked through."""

import pytest

from chromium import trouble
from hourglass.uses.explore.report import render
from reports import sample


@pytest.fixture
def show(browser, tmp_path):
    """Open a report; the page fails the test on any error, dialog or request."""
    opened = []

    def show(report, width=1280):
        path = tmp_path / "report.html"
        path.write_text(render(report), encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900})
        seen = trouble(page, "file:")
        page.goto(path.as_uri())
        opened.append((page, seen))
        return page

    yield show
    for page, seen in opened:
        page.close()
        assert seen == []


def ink(page):
    return page.evaluate("document.getElementById('plot').toDataURL()")


def test_cards_filter_sort_and_show_more(show):
    page = show(sample())
    assert page.locator(".card").count() == 18
    page.click("#more")
    assert page.locator(".card").count() == 25
    page.fill("#search", "word7")
    assert page.locator(".card").count() == 1
    page.fill("#search", "nothing holds this")
    assert page.is_visible("#nothing")
    page.fill("#search", "")
    page.select_option("#sort", "rare")
    assert page.locator(".card").first.get_attribute("data-feature") == "0"
    page.select_option("#sort", "common")
    assert page.locator(".card").first.get_attribute("data-feature") == "24"


def test_a_card_colours_the_map_and_the_legend_hides_groups(show):
    page = show(sample())
    plain = ink(page)
    page.click(".card:nth-child(2) .pick")
    assert page.input_value("#colour") == "1"
    assert ink(page) != plain
    page.click(".card:nth-child(2) .pick")
    assert page.input_value("#colour") == "group"
    assert ink(page) == plain
    page.locator("#legend button").nth(1).click()
    assert ink(page) != plain


def test_the_map_zooms_and_tells(show):
    page = show(sample())
    page.locator("#plot").scroll_into_view_if_needed()
    box = page.locator("#plot").bounding_box()
    plain = ink(page)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(100)
    assert ink(page) != plain
    page.focus("#plot")
    page.keyboard.press("0")
    x, y = page.evaluate("place(0)")
    page.mouse.move(box["x"] + x, page.locator("#plot").bounding_box()["y"] + y)
    assert page.is_visible("#tip")
    assert "d0" in page.inner_text("#tip")


def test_differences_switch(show):
    page = show(sample())
    assert "t0" in page.inner_text("#diff")
    assert page.inner_text("#together") == ""
    page.select_option("#pair", "1")
    assert "taken together" in page.inner_text("#together")
    page.select_option("#pair", "2")
    assert "t2" in page.inner_text("#diff")
    assert "+40" in page.inner_text("#diff")
    assert "< 0.001" in page.inner_text("#diff")


@pytest.mark.parametrize("report", [sample(), sample(groups=50), sample(groups=0, differences=[], map=None)])
def test_nothing_sticks_out_on_a_phone(show, report):
    page = show(report, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
