"""A model that passes everything on: tests change it in one place."""

from draftsmith.models.passed_on import PassedOn as Wrapped

__all__ = ["Wrapped"]
