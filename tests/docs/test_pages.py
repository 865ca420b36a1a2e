"""The pages of docs/ hang together: links lead somewhere, and the index knows every page."""

import re
from pathlib import Path

import pytest

from draftsmith.bench.tables import detail_table
from draftsmith.cli.pieces import KINDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_COMING = {"models"}
"""Pages that may be linked before they are written."""
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "examples" / "README.md"]


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    heads = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists() or target.stem in _COMING, link
        if anchor and target.exists() and target.suffix == ".md":
            assert anchor in _anchors(target), link


def test_the_index_links_every_page() -> None:
    links = set(re.findall(r"\]\((\w+)\.md\)", (DOCS / "index.md").read_text("utf-8")))
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"}
    assert pages <= links <= pages | _COMING


def test_the_glossary_has_the_words_of_our_tables_and_legends() -> None:
    words = set(re.findall(r"\*\*([^*]+)\*\*", (DOCS / "glossary.md").read_text("utf-8").lower()))
    columns = {column.partition(" (")[0].lower() for column in detail_table({"arms": []}).columns}
    assert {"arm", "alpha", "draft yield", "chen's efficiency"} <= columns & words
    assert {"gamma", "beta", "overlap", "round", "pass", "cost ratio", "slot"} <= words
    assert {"tokens per pass", "not tested", "certificate", "ledger", "residual"} <= words
    assert KINDS.keys() - {"plain"} <= words | {"kept"}
