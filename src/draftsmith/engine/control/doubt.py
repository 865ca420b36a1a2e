"""Whether a check that took long was a pause of the machine, where none like it was seen."""

__all__ = ["Doubt"]


class Doubt:
    """Time that one check took beyond its rows one by one, until another tells what it was.

    A pause must not be a draft's debt, which would keep it from being tried again for hundreds of
    rounds; the price of a check must be. The first long check of a size is taken for a pause. If
    the next of as many rows is as short as any other it was one; if that is long again, both are
    charged.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        """Numbers of rows that were given the benefit of it."""
        self._rows = 0
        self._paused_s = 0.0
        """Of the check that is in doubt now."""

    def paused_s(self, rows: int, over_s: float) -> float:
        """What of a round was the machine's pause; less than nothing if an earlier one was none.

        Args:
            rows: Of its check, of a size that is hardly known.
            over_s: What it took beyond its rows one by one; 0 for an ordinary one.
        """
        doubted_s = self._paused_s
        if over_s > 0 and doubted_s > 0:
            self._paused_s = 0.0
            return -doubted_s
        if over_s > 0 and rows not in self._seen:
            self._seen.add(rows)
            self._rows, self._paused_s = rows, over_s
            return over_s
        if rows >= self._rows:
            self._paused_s = 0.0
        return 0.0
