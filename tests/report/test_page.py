"""The page stands alone, escapes what it is given, and keeps its drawings apart."""

import re
from collections import Counter
from html.parser import HTMLParser
from typing import get_args

import pytest

from draftsmith.errors import InvalidRequestError
from draftsmith.report.figure import Figure, Series
from draftsmith.report.page import Section, Table, page
from draftsmith.report.status import MARKS, WORDS, Outcome, Status

_EVIL = '<script>alert("&")</script>'
_FIGURE = Figure(_EVIL, _EVIL, _EVIL, [Series(_EVIL, [0], [1]), Series("b", [0], [2])], _EVIL)
_SECTION = Section(
    _EVIL, [_EVIL], [Table(_EVIL, [_EVIL, "n"], [[_EVIL, "1"]])], [_FIGURE, _FIGURE], "fail"
)


class _Reader(HTMLParser):
    """Collects what a browser would make of the page, and that tags are closed in order."""

    _VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def test_every_text_is_escaped_and_every_tag_closed() -> None:
    reader = _read(page(_EVIL, _EVIL, [_SECTION], {_EVIL: _EVIL}))
    assert reader.tags["script"] == 0
    # Title (twice), verdict, heading, paragraph, caption, column, cell, two captions, two facts.
    assert reader.text.count(_EVIL) == 12


def test_the_page_fetches_nothing() -> None:
    html = page("t", "v", [_SECTION], {})
    reader = _read(html)
    fetched = [value for name, value in reader.attributes if name in ("src", "href", "xlink:href")]
    assert all(value is not None and value.startswith("#") for value in fetched)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_ids_are_unique_and_references_meet_them() -> None:
    html = page("t", "v", [_SECTION, _SECTION], {})
    ids = Counter(value for name, value in _read(html).attributes if name == "id")
    assert ids
    assert max(ids.values()) == 1
    wanted = set(re.findall(r'href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html))
    assert wanted <= set(ids)


def test_each_figure_is_drawn_for_light_and_for_dark() -> None:
    html = page("t", "v", [Section("s", figures=[_FIGURE])], {})
    assert html.count('<svg class="light" role="img"') == 1
    assert html.count('<svg class="dark" role="img"') == 1


def test_the_status_is_a_word() -> None:
    for status, word in WORDS.items():
        html = page("t", "v", [Section("s", status=status)], {})
        assert f'<span class="status {status}">{MARKS[status]} {word}</span>' in html
    assert '<span class="status' not in page("t", "v", [Section("s")], {})


def test_statuses_differ_without_colour() -> None:
    assert len(set(MARKS.values())) == len(set(WORDS.values())) == len(get_args(Status))


def test_what_a_page_came_to_begins_its_title_and_stands_first() -> None:
    html = page("t", "v", [], {}, Outcome("fail", "FAILED"))
    assert "<title>✗ FAILED: t</title>" in html
    assert html.index('<div class="outcome fail"') < html.index("<strong>✗ FAILED</strong>")
    plain = page("t", "v", [], {})
    assert "<title>t</title>" in plain
    assert 'class="outcome' not in plain


def test_a_row_that_failed_is_marked_beside_its_words() -> None:
    table = Table("c", ["a"], [["one"], ["two"], ["three"]], [None, "fail", "untested"])
    html = page("t", "v", [Section("s", tables=[table])], {})
    for row in ("<tr><td>one", '<tr class="fail"><td>two', '<tr class="untested"><td>three'):
        assert row in html
    assert 'tr.fail td:first-child::before { content: "✗ "; }' in html
    with pytest.raises(InvalidRequestError, match="'c' has 1 rows, but 2 statuses"):
        Table("c", ["a"], [["one"]], [None, None])


def test_ink_stays_readable_on_its_paper() -> None:
    """Every colour of text against its background: 4.5 to 1 or more, as WCAG 2.2 asks (1.4.3)."""
    html = page("t", "v", [], {})
    for theme in re.findall(r":root \{(?! color-scheme: light dark)[^}]*--pass[^}]*\}", html):
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", theme))
        dark = "#7fd695" in colours.values()
        for name in ("pass", "fail", "info", "untested"):
            assert _contrast(colours[name], "#16181a" if dark else "#ffffff") >= 4.5, name


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="'c' has 2 columns, but a row of 1"):
        Table("c", ["a", "b"], [["1"]])
