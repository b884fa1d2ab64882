"""Scripts by the names of letters."""

from hourglass.data.scripts import letters_by_script, other_script, scripts_of


def test_letters_are_counted_by_script_and_nothing_else_is():
    found = letters_by_script(["Año 7, ж!", "東京 ﬁ Ａ", "", "😀"])
    assert found == {"LATIN": 5, "CYRILLIC": 1, "CJK": 2}
    assert not letters_by_script([])


def test_a_text_in_another_script_is_told():
    assert scripts_of(["a" * 150 + "ж", "7"]) == ["LATIN"]
    assert scripts_of(["abc ж"]) == ["CYRILLIC", "LATIN"]
    assert other_script("Жди", ["LATIN"]) == "CYRILLIC"
    assert other_script("OK 東京", ["LATIN"]) is None  # half of it
    assert other_script("7!", []) is None
