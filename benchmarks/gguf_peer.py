"""llama.cpp's logits of a GGUF file, by the C interface of the library inside the wheel.

Its cache is kept in float32 and its attention is the plain one, so that it rounds as little as it
can. A bad file may end the process that reads it: `PeerLogits` runs this module as a process of its
own, and starts another one when it has died.
"""

import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.llamacpp import Opaque, open_library

__all__ = ["PeerLogits", "PeerRefused"]

# Places in llama_context_params, in 32-bit words (llama.h of build b11549).
_N_CTX, _FLASH_ATTENTION, _TYPE_K, _TYPE_V = 0, 13, 26, 27
_F32, _DISABLED = 0, 0
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "llama_get_logits": (ctypes.POINTER(ctypes.c_float), [ctypes.c_void_p]),
    "llama_model_get_vocab": (ctypes.c_void_p, [ctypes.c_void_p]),
    "llama_vocab_n_tokens": (ctypes.c_int32, [ctypes.c_void_p]),
}


class PeerRefused(Exception):
    """llama.cpp did not load the file, or died of it; the message is what it said."""


class PeerLogits:
    """Asks a process for logits, file by file."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._process: subprocess.Popen[str] | None = None

    def logits(self, path: Path, tokens: Sequence[int], context_length: int) -> np.ndarray:
        """Logits `[tokens, vocab]` after every token.

        Raises:
            PeerRefused: The file was not read.
        """
        out = Path(self._folder.name) / "logits.npy"
        request = {"path": str(path), "tokens": list(tokens), "context": context_length}
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request | {"out": str(out)}) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline().strip()
        if answer == "ok":
            return np.load(out)
        if not answer:
            self._process = None
            answer = f"the process ended with {process.wait()}"
        raise PeerRefused(answer)

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None:
            command = [sys.executable, "-m", "benchmarks.gguf_peer"]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            # Without it a failed assertion would call a debugger, which writes to our pipe.
            variables = os.environ | {"GGML_NO_BACKTRACE": "1"}
            self._process = subprocess.Popen(
                command, text=True, stderr=subprocess.DEVNULL, env=variables, **pipes
            )
        return self._process

    def __enter__(self) -> "PeerLogits":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
        self._folder.cleanup()


def _logits(library: Any, path: str, tokens: list[int], context_length: int) -> np.ndarray | None:
    """All logits of one pass; None if the file is not loaded."""
    params = library.llama_model_default_params()
    model = library.llama_model_load_from_file(path.encode(), params)
    if not model:
        return None
    settings: Opaque = library.llama_context_default_params()
    settings.words[_N_CTX] = context_length
    settings.words[_FLASH_ATTENTION] = _DISABLED
    settings.words[_TYPE_K] = settings.words[_TYPE_V] = _F32
    context = library.llama_init_from_model(model, settings)
    if not context:
        return None
    batch = library.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for index, token in enumerate(tokens):
        batch.token[index], batch.pos[index] = token, index
        batch.n_seq_id[index], batch.seq_id[index][0], batch.logits[index] = 1, 0, 1
    status = library.llama_decode(context, batch)
    num_ids = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
    raw = library.llama_get_logits(context)
    logits = np.ctypeslib.as_array(raw, (len(tokens), num_ids)).copy() if not status else None
    library.llama_batch_free(batch)
    library.llama_free(context)
    library.llama_model_free(model)
    return logits


def _serve() -> None:
    library = open_library(None)
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    for line in sys.stdin:
        request = json.loads(line)
        logits = _logits(library, request["path"], request["tokens"], request["context"])
        if logits is not None:
            np.save(request["out"], logits)
        print("ok" if logits is not None else "not loaded", flush=True)


if __name__ == "__main__":
    _serve()
