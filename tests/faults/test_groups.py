"""Groups that do not exist or hold next to nothing: one line that says which, from every verb that compares groups."""

import pytest

import hourglass as hg
from corpus import documents
from hourglass.errors import InputError


@pytest.fixture(scope="module")
def ws(tmp_path_factory):
    rows = documents(90)
    rows[7]["topic"] = "lonely"
    folder = tmp_path_factory.mktemp("groups") / "ws"
    return hg.explore(rows, out=folder, text="body", by="topic", width=32, k=4, progress=False)


@pytest.mark.parametrize("verb", ["diff", "verify"])
@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (("topic", "cookng"), r"column 'topic' has no group 'cookng' \(did you mean 'cooking'\?\)"),
        (("topic", "cooking", "tea"), r"column 'topic' has no group 'tea' \(there are: cooking, football, lonely\)"),
        (("topik", "cooking"), r"no column 'topik' \(did you mean 'topic'\?\)"),
        (("topic", "lonely"), r"group 'lonely' of column 'topic' has 1 document\(s\); at least 5 are needed"),
        (("topic", "cooking", "lonely"), r"group 'lonely' of column 'topic' has 1 document\(s\)"),
        (("topic", "cooking", "cooking"), r"group 'cooking' of column 'topic' against itself; name two groups"),
    ],
)
def test_two_groups(ws, verb, groups, said):
    with pytest.raises(InputError, match=said) as error:
        getattr(ws, verb)(*groups, progress=False) if verb == "verify" else ws.diff(*groups)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("documents_given", "said"),
    [
        ([{"body": "onions", "topic": "tea"}], "no fresh document of 'cooking' is left to judge"),
        ([{"body": "onions", "topic": "cooking"}], "no fresh document of 'football' is left to judge"),
        ([{"body": "onions"}], "no column 'topic'"),
    ],
)
def test_fresh_documents_without_a_group(ws, documents_given, said):
    with pytest.raises(InputError, match=said):
        ws.verify("topic", "cooking", "football", documents=documents_given, progress=False)


def test_values_to_order_by(ws):
    with pytest.raises(InputError, match="column 'topic' has no value 'tea'"):
        ws.trend("topic", order=["cooking", "tea"])
    with pytest.raises(InputError, match="no column 'month'"):
        ws.trend("month")
