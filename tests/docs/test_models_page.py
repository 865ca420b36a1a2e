"""docs/models.md shows what was measured."""

from benchmarks.model_classes_page import PAGE, models_page


def test_the_page_of_models_is_what_was_measured() -> None:
    assert PAGE.read_text("utf-8") == models_page()
