import pytest

from breakout_assets.learning import pages

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)> & 'quoted'"


@pytest.mark.parametrize(
    "html",
    [
        pages.document(HOSTILE, []),
        pages.heading(HOSTILE),
        pages.paragraph(HOSTILE),
        pages.paragraph(HOSTILE, soft=True),
        pages.bullets([HOSTILE]),
        pages.verdict_box(HOSTILE, [HOSTILE], HOSTILE),
        pages.tiles([(HOSTILE, HOSTILE, HOSTILE)]),
        pages.table([HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]], HOSTILE, [HOSTILE]),
        pages.table(["", ""], [["", f"0.5 ({HOSTILE})"]]),
        pages.folded(HOSTILE, ""),
        pages.picture(b"", HOSTILE),
    ],
)
def test_no_text_becomes_markup(html: str) -> None:
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "<img src=x" not in html
    assert '">&lt;' not in html.replace("&quot;", "") or 'alt=""' not in html


@pytest.mark.parametrize("text", [HOSTILE, "[click](javascript:alert(1))", "a|b", "![x](y)", "line\nbreak", "# title"])
def test_a_text_in_markdown_is_only_text(text: str) -> None:
    marked = pages.marked(text)
    assert "\n" not in marked
    for character in "<>[]|!#":
        assert marked.count(character) == marked.count(f"\\{character}")


def test_markdown_stops_before_the_line_that_would_hide_it_behind_a_click() -> None:
    said = pages.short([*["x" * 99] * 20])
    assert len(said) < pages.INLINE_CHARACTERS
    assert said.count("\n") == 8
    assert pages.short(["first", "", "second"]) == "first\n\nsecond"


def test_an_interval_stands_below_its_figure_and_a_sentence_stays_whole() -> None:
    html = pages.table(["", "a"], [["x", "0.664 (0.611 to 0.715)"], ["y", "no (not yet)"]])
    assert "0.664<small>0.611 to 0.715</small>" in html
    assert ">no (not yet)<" in html


def test_the_last_cell_of_a_short_row_takes_the_columns_that_are_left() -> None:
    assert '<td colspan="3">why</td>' in pages.table(["", "a", "b", "c"], [["x", "why"]])


def test_rows_set_aside_are_marked() -> None:
    html = pages.table(["", "a"], [["x", "1"], ["y", "2"]], aside=["y"])
    assert '<tr class=aside><th scope="row">y' in html
    assert '<tr><th scope="row">x' in html


def test_a_page_may_load_nothing() -> None:
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in pages.document("t", [])
