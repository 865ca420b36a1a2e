"""What a T5 remembers: of each sequence the decoder's keys and values, and those of its source."""

from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import Cache, free_number
from draftsmith.models.native.t5_config import T5Config

__all__ = ["T5Cache", "T5Row"]

# A multiple of 16, so that every head begins on a cache line whatever the row's capacity.
_SLOTS = 32


class T5Row:
    """One sequence: token i of the output sits in slot i, beside the projected source."""

    def __init__(
        self, config: T5Config, source: Float[Tensor, "layers 2 heads source head"]
    ) -> None:
        self.length = 0
        self._source = source
        shape = (config.num_decoder_layers, 2, config.num_heads, _SLOTS, config.head_size)
        self._slots = source.new_empty(shape)

    def reserve(self, num_tokens: int) -> None:
        """Make room for more tokens; room doubles, so that copies stay rare."""
        needed, held = self.length + num_tokens, self._slots.shape[3]
        if needed > held:
            capacity = -(-max(needed, 2 * held) // _SLOTS) * _SLOTS
            *outer, _, head_size = self._slots.shape
            grown = self._slots.new_empty(*outer, capacity, head_size)
            grown[:, :, :, : self.length] = self._slots[:, :, :, : self.length]
            self._slots = grown

    def write(
        self,
        layer: int,
        position: int,
        key: Float[Tensor, "heads head"],
        value: Float[Tensor, "heads head"],
    ) -> None:
        """Put a new token's key and value of a layer into its slot, without counting it yet."""
        self._slots[layer, 0, :, position] = key
        self._slots[layer, 1, :, position] = value

    def read(
        self, layer: int, num_tokens: int
    ) -> tuple[Float[Tensor, "heads tokens head"], Float[Tensor, "heads tokens head"]]:
        """A layer's keys and values of the first tokens."""
        return self._slots[layer, 0, :, :num_tokens], self._slots[layer, 1, :, :num_tokens]

    def read_source(
        self, layer: int
    ) -> tuple[Float[Tensor, "heads source head"], Float[Tensor, "heads source head"]]:
        """A layer's keys and values of the source."""
        return self._source[layer, 0], self._source[layer, 1]


class T5Cache(Cache):
    """Rows, each with a buffer of its own; a row without a source is only a number."""

    def __init__(self) -> None:
        self._rows: dict[int, T5Row | None] = {}

    def add(self) -> int:
        """Open an empty row and return its number."""
        row = free_number(self._rows)
        self._rows[row] = None
        return row

    def remove(self, row: int) -> None:
        """Close a row, its source included."""
        del self._rows[row]

    def length(self, row: int) -> int:
        """Tokens that the row holds."""
        held = self._rows[row]
        return 0 if held is None else held.length

    def rollback(self, row: int, length: int) -> None:
        """Forget all but the first `length` tokens; their slots are written over."""
        if not 0 <= length <= self.length(row):
            raise InvalidRequestError(
                f"row {row} holds {self.length(row)} tokens and cannot be rolled back to {length}"
            )
        held = self._rows[row]
        if held is not None:
            held.length = length

    def begin(self, row: int, content: T5Row) -> None:
        """Give a row its source."""
        if row not in self._rows:
            raise InvalidRequestError(f"row {row} is not open; call add first")
        self._rows[row] = content

    def at(self, row: int) -> T5Row:
        """What a row with a source holds."""
        held = self._rows.get(row)
        if held is None:
            raise InvalidRequestError(f"row {row} has no source; call encode first")
        return held
