"""Every error that draftsmith raises on purpose.

```
DraftsmithError
├── InvalidRequestError     a parameter or prompt that cannot be honoured exactly
├── ModelNotFoundError      a reference that names nothing, or nothing reachable
├── PullError               a download that failed, or whose checksum is wrong
├── ModelFormatError        a file that is not the model it claims to be
├── VocabularyMismatchError a draft whose tokenizer is not the target's
├── NotRollbackableError    speculation asked of a model whose cache cannot be undone
├── DraftError              a drafter that broke its contract
├── NumericsError           logits that are not a distribution (NaN, infinities)
├── CacheFullError          keys and values that there is no memory for at present
├── ParallelError           processes that run one model, of which one fails or cannot start
└── RemoteError             another system's server that does not answer as it should
```

Each message is one line: the name, the value, and the remedy.
"""

__all__ = [
    "CacheFullError",
    "DraftError",
    "DraftsmithError",
    "InvalidRequestError",
    "ModelFormatError",
    "ModelNotFoundError",
    "NotRollbackableError",
    "NumericsError",
    "ParallelError",
    "PullError",
    "RemoteError",
    "VocabularyMismatchError",
]


class DraftsmithError(Exception):
    """Base of all errors raised on purpose; its message is fit to show to a user."""


class InvalidRequestError(DraftsmithError, ValueError):
    """A parameter or prompt is out of range, unknown, or cannot be honoured exactly."""


class ModelNotFoundError(DraftsmithError):
    """A model reference resolves to no catalogue name, folder, file or Hub repository."""


class PullError(DraftsmithError):
    """A model could not be fetched whole: network, disk, interruption or checksum."""


class ModelFormatError(DraftsmithError):
    """A file is truncated, corrupt, or of an architecture that is not supported."""


class VocabularyMismatchError(DraftsmithError):
    """The draft's tokenizer differs from the target's, so its token ids mean other text."""


class NotRollbackableError(DraftsmithError):
    """The model keeps a state that cannot be undone, so drafts cannot be checked with it."""


class DraftError(DraftsmithError):
    """A drafter broke its contract: wrong shapes, illegal ids, or too many tokens."""


class NumericsError(DraftsmithError):
    """The model produced logits that are no distribution."""


class CacheFullError(DraftsmithError):
    """There is no memory for more keys and values, at present or at all."""


class ParallelError(DraftsmithError):
    """The processes that run one model together cannot start, or one of them has failed."""


class RemoteError(DraftsmithError):
    """A server of another system cannot be reached, or does not answer as it should."""
