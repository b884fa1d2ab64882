"""The studio as a person meets it: every page, clicked through, over documents that would like to be pages."""

import math

import pytest

from chromium import trouble
from studio_workspace import HOSTILE

PATIENT = 60_000  # milliseconds: other work may have the machine


@pytest.fixture(scope="module")
def page(browser, address):
    """One visit for all tests; it fails on any error, dialog, element of a document's making or request that leaves the studio."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(PATIENT)
    seen = trouble(page, address, "data:", "blob:")
    page.goto(address)
    page.wait_for_selector(".card")
    yield page
    assert page.locator(".toast-body.error").count() == 0
    assert page.locator("img[src=x]").count() == 0
    assert seen == []
    page.close()


@pytest.fixture
def tab(page):
    def tab(name):
        page.get_by_role("tab", name=name, exact=True).click()
        # Gradio puts what is in the fields into them once more when they appear; what is typed in less than a frame is lost.
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return page.locator(f"#page-{name.lower()}")

    return tab


def test_overview_and_from_a_card_to_its_concept_and_its_documents(page, tab):
    here = tab("Overview")
    assert "80 documents" in here.inner_text()
    assert HOSTILE in here.locator(".groups").inner_text()
    here.locator(".card", has_text="invoice").locator(".pick").click()
    sheet = page.locator("#concept-sheet .sheet", has_text="Feature 2")
    sheet.wait_for()
    assert HOSTILE in sheet.locator(".quote").inner_text()
    sheet.locator(".docs .row button").first.click()
    page.wait_for_selector("#document .reading")
    assert HOSTILE.split()[0] in page.locator("#document .text").inner_text()


def test_concepts_are_searched(page, tab):
    here = tab("Concepts")
    page.locator("#concept-list .row", has_text="invoice").wait_for()
    page.locator("#concept-sheet .sheet").wait_for()  # the page has come to rest
    here.locator("#concept-search input, #concept-search textarea").fill("late")
    page.wait_for_function("document.querySelectorAll('#concept-list .row').length === 1")
    here.locator("#concept-list .row button").click()
    page.locator("#concept-sheet .sheet", has_text="Feature 4").wait_for()
    here.locator("#concept-search input, #concept-search textarea").fill("nothing of the kind")
    page.locator("#concept-list", has_text="No concept is called that").wait_for()


def test_a_token_tells_what_fires_on_it(page, tab):
    here = tab("Documents")
    id = here.locator("#document-id input, #document-id textarea")

    def ask(name):
        id.fill(name)
        id.press("Enter")

    ask("id7")
    page.locator("#document .eyebrow", has_text="id7").wait_for()
    assert HOSTILE in page.locator("#document .text").inner_text()
    assert HOSTILE[:70] in page.locator("#document .fields").inner_text()
    page.locator("#document .t", has_text="please").hover()
    told = page.locator("#document .here li")
    assert told.count() == 1 and "refund" not in told.inner_text()
    page.locator("#document .says li", has_text="invoice").hover()
    marked = "[...document.querySelectorAll('#document .t')].filter(t => t.style.background).map(t => t.textContent)"
    assert set(page.evaluate(marked)) == {"document", "7", "&"}
    ask("nobody")
    page.locator("#document .trouble", has_text="no document with id 'nobody'").wait_for()


def test_differences_lead_to_documents_and_mistakes_are_one_line(page, tab):
    here = tab("Differences")
    row = page.locator("#differences tr.pick", has_text="refund")
    row.first.click()
    page.locator("#difference-documents .docs").first.wait_for()
    assert HOSTILE in page.locator("#difference-documents").inner_text()
    page.locator("#differences").get_by_role("button", name="most like either").click()
    page.locator("#difference-documents", has_text="Documents that are most like either").wait_for()
    for group in ("#group-a", "#group-b"):
        page.locator(f"{group} input").click()
        page.get_by_role("option", name="b", exact=True).first.click()
    here.locator("#compare").click()
    page.locator("#differences .trouble", has_text="choose two groups").wait_for()
    assert "Traceback" not in page.content()


def test_pairs_are_a_graph_and_a_list(page, tab):
    here = tab("Together")
    pair, read = page.locator("#pairs tr.pick", has_text="invoice").first, page.locator("#pair-documents .docs")
    pair.click()
    read.wait_for()
    here.get_by_label("pairs with similar names too").check()
    here.locator("#find-pairs").click()
    read.wait_for(state="detached")  # the pairs are those asked for, not those before
    pair.click()
    read.wait_for()
    here.locator(".figure .scatterlayer").first.wait_for(state="attached")


def test_what_is_inside_a_lasso_is_described(page, tab):
    here = tab("Map")
    plot = here.locator(".figure .nsewdrag").first
    plot.wait_for(state="attached")
    plot.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    box = plot.bounding_box()
    x, y, r = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, 0.4 * min(box["width"], box["height"])
    page.mouse.move(x + r, y)
    page.mouse.down()
    for step in range(1, 25):
        page.mouse.move(x + r * math.cos(step / 4), y + r * math.sin(step / 4))
    page.mouse.up()
    chosen = page.locator("#map-selection", has_text="selected")
    chosen.locator(".docs").wait_for()
    assert HOSTILE in chosen.inner_text()
    page.locator("#map-colour input").click()
    page.get_by_role("option", name="invoice", exact=True).click()
    page.wait_for_function("document.querySelector('#page-map .figure').data?.[0].marker.cmax === 1")
    names = "[...document.querySelectorAll('#page-map .modebar-btn')].map(b => b.dataset.title)"
    assert not [name for name in page.evaluate(names) if "hare" in name]  # nothing that uploads


def test_a_weight_changed_by_hand_changes_the_ranking(page, tab):
    here = tab("Find")
    here.locator("#find-query input, #find-query textarea").fill("late parcels")
    here.locator("#find-go").click()
    here.locator("#find-ranking .row").first.wait_for()
    before = here.locator("#find-ranking").inner_text()
    weight = here.locator("#find-weights input").last
    weight.fill("5")
    weight.press("Tab")
    here.locator("#find-weights .changed").wait_for()
    assert here.locator("#find-ranking").inner_text() != before
    here.locator("#find-add input, #find-add textarea").fill("printer")
    here.locator("#find-suggestions button", has_text="printer").click()
    here.locator("#find-weights li", has_text="printer").wait_for()
    here.get_by_text("Undo all edits").click()
    page.wait_for_function("!document.querySelector('#find-weights .changed')")
    here.locator("#find-query input, #find-query textarea").fill("  ")
    here.locator("#find-go").click()
    here.locator(".trouble", has_text="the query is empty").wait_for()


def test_a_pasted_text_stays_a_text(page, tab):
    here = tab("Live")
    here.locator("#live-text textarea").fill(HOSTILE)
    here.locator("#live-go").click()
    here.locator(".reading").wait_for()
    assert here.locator(".reading .text").inner_text() == HOSTILE
    here.locator("#live-text textarea").fill(" ")
    here.locator("#live-go").click()
    here.locator(".trouble", has_text="nothing in this text").wait_for()


def test_no_answer_is_lost_however_fast_one_clicks(page, tab):
    for name in ("Find", "Live"):
        tab(name)
        page.locator(f"#{name.lower()}-go").wait_for()
    # The second click falls before, into and after the end of the stream that brings the first one's answer.
    missing = page.evaluate(
        """async () => {
            const pause = ms => new Promise(done => setTimeout(done, ms)), field = (id, text) => {
                const place = document.querySelector(`${id} textarea, ${id} input`);
                place.value = text;
                place.dispatchEvent(new Event("input", {bubbles: true}));
            };
            const comes = async what => { for (let i = 0; i < 1000 && !what(); i++) await pause(10); return what(); };
            for (let i = 0; i < 30; i++) {
                const empty = i % 2 === 0, word = "refund" + i;
                field("#find-query", empty ? " " : "late parcels");
                field("#live-text", word);
                await pause(50);
                document.querySelector("#find-go").click();
                await pause(10 + 7 * (i % 8));
                document.querySelector("#live-go").click();
                if (!await comes(() => !!document.querySelector("#find-ranking .trouble") === empty)) return `Find, ${i}`;
                if (!await comes(() => document.querySelector("#live .reading .text")?.textContent === word)) return `Live, ${i}`;
            }
        }"""
    )
    assert missing is None


def test_clicks_on_one_thing_while_it_answers_all_count(page, tab):
    here = tab("Documents")
    id = here.locator("#document-id input, #document-id textarea")
    id.fill("id10")
    id.press("Enter")
    page.locator("#document .eyebrow", has_text="id10").wait_for()
    page.evaluate(
        "for (const b of document.querySelectorAll('#page-documents button')) if (b.textContent.includes('next')) for (let i = 0; i < 5; i++) b.click()"
    )
    page.locator("#document .eyebrow", has_text="id15").wait_for()


def test_two_texts_are_compared_and_read_side_by_side(browser, two_address):
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(PATIENT)
    seen = trouble(page, two_address, "data:", "blob:")
    page.goto(two_address)
    page.wait_for_selector(".card")
    page.get_by_role("tab", name="Two texts", exact=True).click()
    page.locator("#across tr.pick").click()
    first = page.locator("#across-documents .row").first
    first.wait_for()
    assert "reply" in first.inner_text() and HOSTILE.split()[0] in first.inner_text()
    page.locator("#page-across .figure .scatterlayer").first.wait_for(state="attached")
    page.locator("#across .chips button", has_text="Alike in both").click()
    page.locator("#across", has_text="No documents are alike in both texts").wait_for()
    page.locator("#across .chips button", has_text="Pairs").click()
    page.locator("#across tr.pick").click()
    first.click()
    page.wait_for_selector("#document .reading")
    assert page.locator("img[src=x]").count() == 0 and page.locator(".toast-body.error").count() == 0 and seen == []
    page.close()


def test_nothing_sticks_out_on_a_phone(browser, address):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.set_default_timeout(PATIENT)
    page.goto(address)
    page.wait_for_selector(".card")
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
