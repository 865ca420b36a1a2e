"""What drafts are worth, learnt from their checks alone: what all texts say, and how one strays."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from draftsmith.core.gamma import MAX_GAMMA

__all__ = ["HOPELESS", "PLACES", "ByConfidence", "ByPosition", "Chances", "Gain", "Prior", "Tally"]

_FADE = 0.998
"""Of what all texts showed, a round."""
_OWN_WEIGHT = 6.0
"""Tests of its own after which a text counts as much as what was expected."""
_TEXT_FADE = 0.96
"""A tested token: text changes its kind within a paragraph."""
_USUAL, _USUAL_WEIGHT = 0.7, 4.0
"""Before anything was tested a draft is taken to be good, so that it is tried."""
_PLACE_WEIGHT = 12.0
_LEAST, _MOST = 0.002, 0.998
_BOUND = math.log(_MOST / (1 - _MOST))
"""Chances stay between the two."""
_AT_ITS_WORD = (1.0, 4.0)
"""How firmly a confidence is taken at its word beforehand: log-odds = 0 + 1 x log-odds."""
_LOWEST, _HIGHEST = -2.0, 8.0
"""Log-odds that are told apart."""
_GAIN, _GAIN_WEIGHT = 0.5, 4.0
"""Before any round a draft is taken to win, so that it is tried."""
_GAIN_FADE = 0.95
"""Of what one text gained, a round of its own."""
_UNPROVEN = 16.0
"""Tokens that are taken to have gained nothing, where gains must be proven."""
HOPELESS = 1e-4
"""No token is drafted behind one whose chance is less."""
PLACES = tuple(map(float, range(MAX_GAMMA)))
"""What is known of the tokens of a draft whose drafter tells nothing: where they stand."""


@dataclass(slots=True)
class Tally:
    """What came, beside what was expected, the latest counting most."""

    came: float = 0.0
    expected: float = 0.0
    count: float = 0.0

    def add(self, came: float, expected: float = 0.0, fade: float = 1.0) -> None:
        """One more; what was before counts for `fade` of what it did."""
        self.came = fade * self.came + came
        self.expected = fade * self.expected + expected
        self.count = fade * self.count + 1

    def fade(self, share: float) -> None:
        """What was counts for less."""
        self.came *= share
        self.expected *= share
        self.count *= share

    def toward(self, usual: float, weight: float) -> float:
        """The mean of what came, drawn to what is usual where there is little of it."""
        return (self.came + weight * usual) / (self.count + weight)


@runtime_checkable
class Prior(Protocol):
    """The chance of a drafted token in any text, by something known of it."""

    def log_odds(self, known: float | None) -> float:
        """Of being kept, if all before it is; None where nothing is known of it yet."""
        ...

    def learn(self, known: float, is_kept: bool) -> None:
        """From one tested token."""
        ...

    def fade(self, share: float) -> None:
        """What was learnt counts for less."""
        ...

    def known_at(self, log_odds: float) -> float:
        """What is known of a token whose log-odds are these, as far as they tell; else 0."""
        ...


class Chances:
    """Chances of drafted tokens: a prior over all texts, and each text's own shift of the odds.

    Args:
        prior: What is known of a token, and what that says: `ByPosition` or `ByConfidence`.
    """

    def __init__(self, prior: Prior) -> None:
        self._prior = prior
        self._own: dict[int, Tally] = {}
        self.is_known = False
        """Whether any token was ever tested."""

    def retain(self, ids: Iterable[int]) -> None:
        """Forget texts that are gone."""
        for gone in self._own.keys() - set(ids):
            del self._own[gone]

    def observe(self, text: int, known: Sequence[float], num_accepted: int) -> None:
        """Learn from the tested tokens of one draft, of which the first so many were kept."""
        if not known:
            return
        self.is_known = True
        own = self._own.setdefault(text, Tally())
        expected = [chance_of(self._prior.log_odds(one)) for one in known]
        for number, (one, chance) in enumerate(zip(known, expected, strict=True)):
            is_kept = number < num_accepted
            own.add(float(is_kept), chance, _TEXT_FADE)
            self._prior.learn(one, is_kept)

    def fade(self, num_rounds: int) -> None:
        """What was seen is so many rounds older."""
        self._prior.fade(_FADE**num_rounds)

    def along(self, text: int, known: Sequence[float]) -> list[float]:
        """Entry j is the chance that tokens 0 to j are all kept; none follow a hopeless one."""
        found: list[float] = []
        self.extend(found, text, known)
        return found

    def extend(self, found: list[float], text: int, known: Sequence[float]) -> None:
        """Take `found`, along a draft so far, on along its next tokens."""
        shift, chance = self.shift(text), found[-1] if found else 1.0
        for one in known:
            if chance < HOPELESS:
                break
            chance *= chance_of(self._prior.log_odds(one) + shift)
            found.append(chance)

    def each(self, text: int, known: Sequence[float]) -> list[float]:
        """The chance of each token by itself, if the one that it follows is kept."""
        shift = self.shift(text)
        return [chance_of(self._prior.log_odds(one) + shift) for one in known]

    def confidence_of(self, text: int, chance: float) -> float:
        """What a drafter says of a token with such a chance; 0 where it never says anything."""
        return self._prior.known_at(log_odds_of(chance) - self.shift(text))

    def usual(self, text: int) -> float:
        """The chance of a token of which nothing is known yet."""
        return chance_of(self._prior.log_odds(None) + self.shift(text))

    def shift(self, text: int) -> float:
        """What one text adds to the log-odds that are expected of any."""
        own = self._own.get(text)
        if own is None:
            return 0.0
        usual = own.expected / own.count
        return log_odds_of(own.toward(usual, _OWN_WEIGHT)) - log_odds_of(usual)


class ByPosition:
    """By the place in the draft, from 0: shares of what was tested there, drawn to the average."""

    def __init__(self) -> None:
        self._places = [Tally() for _ in PLACES]
        self._all = Tally()
        self._log_odds: dict[float | None, float] = {}
        """By place, as they were asked for since something was learnt."""

    def log_odds(self, known: float | None) -> float:
        """Of the place; one that was hardly tested takes the average."""
        found = self._log_odds.get(known)
        if found is None:
            share = self._all.toward(_USUAL, _USUAL_WEIGHT)
            if known is not None:
                share = self._places[int(known)].toward(share, _PLACE_WEIGHT)
            found = self._log_odds[known] = log_odds_of(share)
        return found

    def known_at(self, log_odds: float) -> float:
        """A place says nothing of a token."""
        del log_odds
        return 0.0

    def learn(self, known: float, is_kept: bool) -> None:
        """Count it."""
        self._places[int(known)].add(float(is_kept))
        self._all.add(float(is_kept))
        self._log_odds.clear()

    def fade(self, share: float) -> None:
        """Older tests count less."""
        for one in (self._all, *self._places):
            one.fade(share)
        self._log_odds.clear()


class ByConfidence:
    """By how sure the drafter was: a line from the log-odds of that to those of being kept.

    Logistic regression, a Newton step a test: the curvature of what was tested, and the pull to
    taking a confidence at its word, are all that is remembered.
    """

    def __init__(self) -> None:
        self._offset, self._slope = 0.0, 1.0
        self._bend = [0.0, 0.0, 0.0]
        """Sums of weight, of weight x log-odds, and of weight x their square."""
        self._all = Tally()

    def log_odds(self, known: float | None) -> float:
        """Of a confidence, from 0 to 1; None takes what is usual."""
        if known is None:
            return log_odds_of(self._all.toward(_USUAL, _USUAL_WEIGHT))
        return self._offset + self._slope * _told_apart(known)

    def known_at(self, log_odds: float) -> float:
        """The confidence; 0 where the line does not rise, or the least sure are as likely."""
        if self._slope <= 0:
            return 0.0
        sure = (log_odds - self._offset) / self._slope
        return chance_of(sure) if sure > _LOWEST else 0.0

    def learn(self, known: float, is_kept: bool) -> None:
        """Move the line to it."""
        self._all.add(float(is_kept))
        sure = _told_apart(known)
        chance = chance_of(self._offset + self._slope * sure)
        weight = chance * (1 - chance)
        for power in range(3):
            self._bend[power] += weight * sure**power
        self._step(is_kept - chance, sure * (is_kept - chance))

    def fade(self, share: float) -> None:
        """Older tests count less, and so hold the line less against the pull."""
        self._all.fade(share)
        self._bend = [share * one for one in self._bend]
        pull, stiff = 1 - share, _AT_ITS_WORD
        self._step(-pull * stiff[0] * self._offset, -pull * stiff[1] * (self._slope - 1))

    def _step(self, up: float, turn: float) -> None:
        """Newton's, for a gradient in offset and slope."""
        a, b, c = self._bend[0] + _AT_ITS_WORD[0], self._bend[1], self._bend[2] + _AT_ITS_WORD[1]
        det = a * c - b * b
        self._offset += max(-1.0, min(1.0, (c * up - b * turn) / det))
        self._slope += max(-1.0, min(1.0, (a * turn - b * up) / det))


class Gain:
    """Tokens beyond those of plain decoding in the same time, by text, the latest rounds most.

    A schedule takes every draft to run its length; a pace ends the doubtful ones, so that rounds
    pay which would not pay with any fixed length.
    """

    def __init__(self) -> None:
        self._all = Tally()
        """Gained; of so many tokens; in so many rounds."""
        self.num_rounds = 0
        """That were ever learnt from."""
        self._own: dict[int, Tally] = {}

    @property
    def is_known(self) -> bool:
        """Whether any round has shown what a draft is worth."""
        return self._all.count > 0

    def retain(self, ids: Iterable[int]) -> None:
        """Forget texts that are gone."""
        for gone in self._own.keys() - set(ids):
            del self._own[gone]

    def observe(self, text: int, tokens: int, plain_rounds: float) -> None:
        """Tokens of one text in one round with a draft, and the plain rounds that it took."""
        gained = tokens - plain_rounds
        self.num_rounds += 1
        self._own.setdefault(text, Tally()).add(gained, float(tokens), _GAIN_FADE)
        self._all.add(gained, float(tokens))

    def fade(self, num_rounds: int) -> None:
        """What was seen is so many rounds older."""
        self._all.fade(_FADE**num_rounds)

    @property
    def saving(self) -> float:
        """Plain rounds that each token has saved, as far as that is proven; never negative."""
        return max(0.0, self._all.came) / (self._all.expected + _UNPROVEN)

    def expected(self, texts: Iterable[int]) -> float:
        """Of one more round with drafts, all these texts together."""
        usual = self._all.toward(_GAIN, _GAIN_WEIGHT)
        own = (self._own.get(text, Tally()) for text in texts)
        return sum(one.toward(usual, _OWN_WEIGHT) for one in own)


def log_odds_of(chance: float) -> float:
    """Of a chance, which is kept off 0 and 1."""
    bounded = min(max(chance, _LEAST), _MOST)
    return math.log(bounded / (1 - bounded))


def chance_of(log_odds: float) -> float:
    """Between 0.002 and 0.998."""
    return 1 / (1 + math.exp(-min(max(log_odds, -_BOUND), _BOUND)))


def _told_apart(confidence: float) -> float:
    sure = min(max(confidence, 1e-4), 1 - 1e-4)
    return min(max(math.log(sure / (1 - sure)), _LOWEST), _HIGHEST)
