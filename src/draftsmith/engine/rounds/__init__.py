"""A round over a batch: drafts, one pass of the target, verdicts. Nothing is committed here."""
