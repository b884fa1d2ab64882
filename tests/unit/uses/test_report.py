"""The report's page: everything in it comes from its data, and nothing in the data can break out."""

import json
import re
from importlib.resources import files

import pytest

from hourglass.uses.explore.report import render
from reports import HOSTILE, sample


def script_data(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1))


def test_the_data_comes_through_whole():
    report = sample()
    data = script_data(render(report))
    assert data["groups"] == [g.name for g in report.corpus.groups]
    assert len(data["concepts"]) == len(report.concepts)
    assert data["concepts"][0]["examples"][0]["pieces"][0] == [HOSTILE, 0.9]
    assert data["map"]["concept_strengths"]["0"] == "".join(map(str, report.map.concept_strengths[0]))


def test_hostile_text_stays_text():
    page = render(sample(title=HOSTILE, source=HOSTILE, caveats=[HOSTILE]))
    assert "<script>alert" not in page
    assert "<img" not in page
    assert page.count("<script") == 2


def test_the_page_loads_nothing():
    template = files("hourglass.uses.explore").joinpath("report.html.jinja").read_text()
    without_namespace = template.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|@import|url\(|<link|src=", without_namespace)


@pytest.mark.parametrize(
    "without", [{"concepts": []}, {"map": None}, {"differences": []}, {"concepts": [], "map": None, "differences": []}]
)
def test_empty_states(without):
    page = render(sample(**without))
    assert ('id="map"' in page) == ("map" not in without)
    assert ("No concept could be named" in page) == ("concepts" in without)


def test_size_at_the_largest():
    page = render(sample(points=4000, number=60, mapped=40))
    assert len(page.encode()) < 3_000_000
