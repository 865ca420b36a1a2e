"""docs/papers.md shows what the code computes."""

from pathlib import Path

import pytest

from draftsmith.papers import chen, leviathan
from draftsmith.papers.comparison import Item
from draftsmith.papers.pages import as_markdown

PAGE = Path(__file__).parents[2] / "docs" / "papers.md"


@pytest.mark.parametrize(
    ("paper", "items"), [("leviathan", leviathan.computed()), ("chen", chen.computed())]
)
def test_the_page_holds_what_is_computed(paper: str, items: list[Item]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = text.partition(f"<!-- computed: {paper} -->\n")[2].partition("<!-- end -->")[0]
    assert shown == as_markdown(items)


def test_every_file_that_the_page_links_is_there() -> None:
    links = [part.partition(")")[0] for part in PAGE.read_text("utf-8").split("](")[1:]]
    assert len(links) > 8
    for link in links:
        assert (PAGE.parent / link).exists(), link
