"""How one text's drafts fare beside what was expected of them."""

from dataclasses import dataclass

__all__ = ["Drift", "odds"]

_WEIGHT = 6.0
"""Tests of its own after which a text counts as much as what was expected."""
_FADE = 0.96
"""A tested token: text changes its kind within a paragraph."""
_LEAST, _MOST = 0.002, 0.998


@dataclass
class Drift:
    """Kept drafts of one text against the sum of their expected chances; the latest count most."""

    kept: float = 0.0
    expected: float = 0.0
    tested: float = 0.0

    def observe(self, is_kept: bool, chance: float) -> None:
        """One tested token, and the chance that any text would have given it."""
        self.kept = _FADE * self.kept + is_kept
        self.expected = _FADE * self.expected + chance
        self.tested = _FADE * self.tested + 1

    @property
    def factor(self) -> float:
        """What to multiply expected odds by."""
        if not self.tested:
            return 1.0
        usual = self.expected / self.tested
        own = (self.kept + _WEIGHT * usual) / (self.tested + _WEIGHT)
        return odds(own) / odds(usual)


def odds(rate: float) -> float:
    """Of a chance, which is kept off 0 and 1."""
    bounded = min(max(rate, _LEAST), _MOST)
    return bounded / (1 - bounded)
