"""Exit statuses; 0 is success."""

__all__ = ["INTERRUPTED", "NOT_THE_SAME", "READER_GONE", "REFUSED"]

READER_GONE = 1
"""Whoever read stdout went away before the end."""
NOT_THE_SAME = 1
"""`demo` or `bench` found two texts where one is promised, or a certificate failed."""
REFUSED = 2
"""What was asked cannot be done, or a sample failed; one line on stderr says why."""
INTERRUPTED = 130
"""Ctrl-C; what was generated until then was shown."""
