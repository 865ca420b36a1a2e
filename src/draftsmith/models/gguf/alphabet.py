"""The alphabet in which byte-level vocabularies spell bytes: a letter for each.

Printable bytes stand for themselves; the others, in order, for the letters from U+0100 on
(GPT-2's `bytes_to_unicode`).
"""

__all__ = ["BYTES"]

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(0x100) if byte not in _PRINTABLE]

BYTES = {
    **{chr(byte): byte for byte in _PRINTABLE},
    **{chr(0x100 + index): byte for index, byte in enumerate(_OTHERS)},
}
"""The byte that each letter stands for."""
