"""llama.cpp's tokenizer of a GGUF file, through the wheel `xllamacpp`."""

import ctypes
from pathlib import Path
from types import TracebackType

from benchmarks.llamacpp import checked, open_library

_MOST_BYTES = 4096


class PeerVocabulary:
    """The vocabulary of a GGUF file as llama.cpp reads it; a context manager.

    Args:
        path: The file: a whole model, whose weights are mapped, not read.

    Raises:
        RuntimeError: If llama.cpp refuses it.
    """

    def __init__(self, path: Path) -> None:
        self._library = open_library()
        parameters = self._library.llama_model_default_params()
        self._model = checked(
            self._library.llama_model_load_from_file(str(path).encode(), parameters)
        )
        self._vocabulary = checked(self._library.llama_model_get_vocab(self._model))
        self.num_tokens: int = self._library.llama_vocab_n_tokens(self._vocabulary)

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt, as llama.cpp's server takes them: special tokens are special."""
        data = text.encode()
        most = len(data) + 8
        ids = (ctypes.c_int32 * most)()
        count = self._library.llama_tokenize(
            self._vocabulary, data, len(data), ids, most, True, True
        )
        if count < 0:
            raise RuntimeError(f"llama.cpp has {-count} tokens for {len(data)} bytes")
        return list(ids[:count])

    def piece(self, token: int) -> bytes:
        """The text of a token in an answer, where special tokens have none."""
        buffer = ctypes.create_string_buffer(_MOST_BYTES)
        length = self._library.llama_token_to_piece(
            self._vocabulary, token, buffer, _MOST_BYTES, 0, False
        )
        return buffer.raw[:length]

    def end_token_ids(self) -> set[int]:
        """The ids that end a generation."""
        is_end = self._library.llama_vocab_is_eog
        return {token for token in range(self.num_tokens) if is_end(self._vocabulary, token)}

    def __enter__(self) -> "PeerVocabulary":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._library.llama_model_free(self._model)
