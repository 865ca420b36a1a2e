"""The one way in which a contract suite complains."""

__all__ = ["require"]


def require(condition: bool, message: str) -> None:
    """Raise with one line that says what is off.

    Raises:
        AssertionError: If the condition does not hold.
    """
    if not condition:
        raise AssertionError(message)
