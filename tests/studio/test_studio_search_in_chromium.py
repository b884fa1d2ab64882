"""The search page as a person meets it, over documents that would like to be pages."""

import pytest

import hourglass as hg
from chromium import trouble
from studio_workspace import HOSTILE

PATIENT = 60_000  # milliseconds: other work may have the machine


def visit(browser, address, width=1440):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(PATIENT)
    seen = trouble(page, address, "data:", "blob:")
    page.goto(address)
    page.get_by_role("tab").first.wait_for(state="attached")
    return page, seen


@pytest.fixture(scope="module")
def page(browser, both_address):
    """One visit for all tests; it fails on any error, dialog, element of a document's making or request that leaves the studio."""
    page, seen = visit(browser, both_address)
    page.get_by_role("tab", name="Search", exact=True).click()
    page.locator("#search-go").wait_for()
    yield page
    assert page.locator(".toast-body.error").count() == 0
    assert page.locator("img[src=x]").count() == 0
    assert seen == []
    page.close()


def ask(page, query, *pipelines, where=""):
    """Fill the page in and search; what was found is there when this returns."""
    page.get_by_role("tab", name="Search", exact=True).click()
    # Gradio puts what is in the fields into them once more when they appear; what is typed in less than a frame is lost.
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    for place, spec in enumerate([*pipelines, "", ""][:3] if pipelines else [], 1):
        page.locator(f"#search-pipeline-{place}").locator("input, textarea").fill(spec)
    page.locator("#search-where").locator("input, textarea").fill(where)
    page.evaluate("document.querySelector('#search-found .prose > *').dataset.before = 'yes'")
    page.locator("#search-query").locator("input, textarea").fill(query)
    page.locator("#search-go").click()
    page.wait_for_function("!document.querySelector('#search-found [data-before]')")
    return page.locator("#search-found")


def test_results_are_marked_and_say_why(page):
    here = ask(page, "document 7 refund", "bm25 | dense >> rrf")
    first = here.locator(".result", has_text="Title of id7 ")
    assert HOSTILE in first.locator(".title").inner_text()
    assert {"7", "refund"} <= set(first.locator("mark").all_inner_texts())
    first.locator("summary").click()
    why = first.locator(".why")
    assert why.locator(".stage").all_inner_texts()[0].startswith("bm25")
    assert "refund" in why.locator(".terms").inner_text()


def test_a_concept_leads_to_its_page(page):
    here = ask(page, "document 5 refund", "bm25")
    here.locator(".result").first.locator("button.chip", has_text="invoice").click()
    page.locator("#concept-sheet .sheet", has_text="Feature 2").wait_for()


def test_a_document_is_read_beside_the_results_and_closed_again(page):
    here = ask(page, "document 7 refund", "bm25 | dense >> rrf")
    title = here.locator(".title", has_text="Title of id7 ")
    title.click()
    drawer = page.locator(".drawer")
    drawer.wait_for()
    assert drawer.locator(".near li").count() > 0
    assert HOSTILE in drawer.locator(".text").inner_text()
    page.keyboard.press("Escape")
    drawer.wait_for(state="detached")
    title.click()
    drawer.get_by_text("Read it token by token").click()
    page.wait_for_selector("#document .reading")
    page.get_by_role("tab", name="Search", exact=True).click()
    drawer.locator(".close").click()
    drawer.wait_for(state="detached")


def test_pipelines_stand_side_by_side_and_share_documents(page):
    here = ask(page, "document 7 refund", "bm25", "dense", "bm25 >> rm3 >> bm25")
    assert here.locator(".pipe > header code").all_inner_texts() == ["bm25", "dense", "bm25 >> rm3 >> bm25"]
    assert here.locator(".pipe > header .ms").count() == 3
    row = here.locator(".pipe").first.locator(".result.shared").first.get_attribute("data-row")
    same = here.locator(f".result[data-row='{row}']")
    assert same.count() > 1
    assert len({card.evaluate("e => getComputedStyle(e).borderLeftColor") for card in same.all()}) == 1
    same.first.hover()
    assert here.locator(".result.same").count() == same.count()
    assert here.locator(".pipe").nth(1).locator(".rank small").count() == 10
    here.locator(".widened summary").click()
    assert "refund" in here.locator(".widened").inner_text()


def test_a_menu_offers_pipelines_and_enter_means_what_is_typed(page):
    here = ask(page, "refund", "bm25 % 7")
    assert here.locator(".pipe > header code").inner_text() == "bm25 % 7"
    box, menu = page.locator("#search-pipeline-2").locator("input, textarea"), page.locator("#search-menu .menu")
    box.click()
    menu.get_by_text("bm25 >> rm3 >> bm25", exact=True).click()
    assert box.input_value() == "bm25 >> rm3 >> bm25"
    box.press("Enter")
    here.locator(".pipe > header code", has_text="rm3").wait_for()
    box.fill("dense")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    assert menu.is_hidden()
    box.press("Enter")
    here.locator(".pipe > header code", has_text="dense").wait_for()


def test_mistakes_are_one_line_with_the_place(page):
    here = ask(page, "refund", "bm25", "bm25 >> dnse % 5")
    assert here.locator(".result").count() == 10
    told = here.locator(".trouble")
    assert told.count() == 1 and "Character 9: no stage 'dnse'" in told.inner_text()
    assert told.locator("mark").inner_text() == "dnse"
    assert "cannot be read" in ask(page, "refund", f"bm25 >> {HOSTILE}").locator(".trouble").inner_text()
    here = ask(page, "refund", "bm25", where="colour = 'red'")
    assert "No field named colour" in here.locator(".trouble").inner_text()
    assert "the query is empty" in ask(page, " ", "bm25").locator(".trouble").inner_text()
    assert "Traceback" not in page.content()


def test_an_index_alone_is_searched_and_described(browser, index_address):
    page, seen = visit(browser, index_address)
    assert page.get_by_role("tab").all_inner_texts() == ["Search", "Index"]
    assert ask(page, "document 7 refund").locator(".result").count() == 10
    page.get_by_role("tab", name="Index", exact=True).click()
    page.locator("#index-overview", has_text="documents").wait_for()
    assert HOSTILE in page.locator("#index-overview .docs").inner_text()
    assert seen == []
    page.close()


def test_an_index_that_is_written_to_goes_on_being_read_until_the_newest_is_asked_for(browser, index_address, changing):
    page, seen = visit(browser, index_address)
    hg.open_index(changing).append(
        [{"id": "late", "text": "quagga", "title": HOSTILE, "team": "b", "year": 1}],
        text="text",
        id="id",
        progress=False,
    )
    assert "No document" in ask(page, "quagga", "bm25").inner_text()
    page.locator("#search-changed").get_by_text("Read it as it is now").click()
    page.locator("#search-found", has_text="The index as it is now").wait_for()
    assert HOSTILE in ask(page, "quagga", "bm25").locator(".result").inner_text()
    assert seen == []
    page.close()


def test_nothing_sticks_out_on_a_phone(browser, index_address):
    page, _ = visit(browser, index_address, width=390)
    here = ask(page, "document 7 refund", "bm25", "dense", "bm25 | dense >> rrf")
    here.locator("summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    here.locator(".title").first.click()
    page.locator(".drawer").wait_for()
    assert page.locator(".drawer").bounding_box()["width"] <= 390
    page.close()


def test_a_dark_screen_is_dark(browser, index_address):
    page = browser.new_page(color_scheme="dark")
    page.goto(index_address)
    page.get_by_role("tab").first.wait_for(state="attached")
    paper = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--paper')")
    assert paper.strip() == "#15171a"
    page.close()
