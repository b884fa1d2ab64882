"""Scripts by the names of letters."""

from hourglass.data.scripts import letters_by_script


def test_letters_are_counted_by_script_and_nothing_else_is():
    found = letters_by_script(["Año 7, ж!", "東京 ﬁ Ａ", "", "😀"])
    assert found == {"LATIN": 5, "CYRILLIC": 1, "CJK": 2}
    assert not letters_by_script([])
