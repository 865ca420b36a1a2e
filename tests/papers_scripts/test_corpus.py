import struct

from benchmarks.papers.english import is_prose
from benchmarks.papers.markup import Block, blocks
from benchmarks.papers.parallel import Pair, aligned, catalogue, clean


def mo_file(messages: dict[str, str], order: str = "<") -> bytes:
    """The bytes of a GNU catalogue, as its manual describes the format."""
    sides = [list(messages), list(messages.values())]
    start = 28 + 16 * len(messages)
    tables, strings = b"", b""
    for side in sides:
        for text in side:
            tables += struct.pack(f"{order}2I", len(text.encode()), start + len(strings))
            strings += text.encode() + b"\0"
    second = 28 + 8 * len(messages)
    head = struct.pack(f"{order}7I", 0x950412DE, 0, len(messages), 28, second, 0, 0)
    return head + tables + strings


def test_a_catalogue_gives_its_messages_in_either_byte_order() -> None:
    messages = {
        "": "Content-Type: text/plain; charset=UTF-8\n",
        "menu\x04Open": "Öffnen",
        "%d file\0%d files": "%d Datei\0%d Dateien",
    }
    expected = [
        Pair("Open", "Öffnen"),
        Pair("%d file", "%d Datei"),
        Pair("%d files", "%d Dateien"),
    ]
    for order in "<>":
        assert list(catalogue(mo_file(messages, order))) == expected


def test_accelerators_and_markup_go_and_placeholders_stay() -> None:
    assert clean(Pair("&Open <b>%s</b>", "%s ö&ffnen")) == Pair("Open %s", "%s öffnen")
    assert clean(Pair("_Save %d files", "%d Dateien _speichern")) == Pair(
        "Save %d files", "%d Dateien speichern"
    )
    assert clean(Pair("_Address mode", "Adress_modus")) == Pair("Address mode", "Adressmodus")
    assert clean(Pair("max_size", "max_größe")) == Pair("max_size", "max_größe")
    assert clean(Pair("Fish & chips, R&D & more", "Fisch & Pommes, F&E & mehr")) is not None


def test_what_is_no_translation_is_dropped() -> None:
    assert clean(Pair("Kernel", "kernel")) is None
    assert clean(Pair("Untranslated", "")) is None
    assert clean(Pair("No", "Ein sehr langer Satz, der gewiss nicht dasselbe sagt.")) is None
    assert clean(Pair("1.2.3 --", "1.2.3 -")) is None


def test_blocks_pair_up_and_a_section_that_differs_is_left_out() -> None:
    english = [Block("h1", "One"), Block("p", "First."), Block("h1", "Two"), Block("p", "Second.")]
    german = [Block("h1", "Eins"), Block("p", "Erstens."), Block("h1", "Zwei"), Block("li", "x")]
    same = [block._replace(text=f"{block.text}!") for block in english]
    assert [pair.german for pair in aligned(english, same)] == [
        "One!",
        "First.!",
        "Two!",
        "Second.!",
    ]
    assert list(aligned(english, german)) == [Pair("One", "Eins"), Pair("First.", "Erstens.")]


def test_html_becomes_blocks_without_scripts_and_inline_tags() -> None:
    page = b"<head><title>x</title></head><p>One <b>bold</b> &amp; two</p><script>y</script><li>z"
    assert blocks("a.html", page) == [Block("p", "One bold & two"), Block("li", "z")]


def test_a_manual_page_becomes_paragraphs() -> None:
    page = b".TH X 1\n.SH NAME\nx \\- a tool\n.PP\nUse\n.BR x (1)\nor \\fIy\\fP.\n.nf\ncode\n.fi\n"
    found = blocks("usr/share/man/man1/x.1", page)
    assert [block.text for block in found] == ["NAME", "x - a tool", "Use x(1) or y."]


def test_prose_is_told_from_tables_and_other_languages() -> None:
    assert is_prose("This is the option that you can use if all of the others are not enough.")
    assert not is_prose("0x0000 0x0001 | 12.5 | 13.7 | 14.9 | -- | 99.0 | 0xffff | 17 | 18 | 19")
    assert not is_prose("Das ist die Option, die man nimmt, wenn alle anderen nicht genug sind.")
