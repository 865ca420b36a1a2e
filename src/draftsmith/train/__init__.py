"""A draft head for any target: from the target's own text to files that `--draft` takes."""

from draftsmith.train.limit import TimeLimit
from draftsmith.train.options import TrainOptions
from draftsmith.train.run import Outcome, train_head

__all__ = ["Outcome", "TimeLimit", "TrainOptions", "train_head"]
