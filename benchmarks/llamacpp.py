"""llama.cpp as the peer, through the wheel `xllamacpp`: its server, and its passes over M rows.

The server's settings are its defaults, but for: one slot, a set context and number of threads, and
no reuse of earlier prompts (every request pays for its own). `Passes` calls `llama_decode`, which
the wheel exports. The wheel is built for AVX2; the passes of a build for the machine at hand can be
measured beside it (CMake, GGML_NATIVE=ON, its `libllama.so`).
"""

import ctypes
import importlib
import importlib.metadata
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

REQUIREMENT = "xllamacpp==2026.10.11549"


@dataclass(frozen=True)
class PeerConfig:
    """One way to run llama.cpp."""

    name: str
    speculation: str = "none"
    """llama.cpp's own type name: `none`, `draft-simple`, `ngram-simple`, `ngram-map-k`, ..."""
    draft_path: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields set on the type's parameters; all others stay at llama.cpp's defaults."""


@dataclass(frozen=True)
class PeerCompletion:
    """One request; its times are llama.cpp's own, but for `wall_s`."""

    text: str
    num_prompt_tokens: int
    num_tokens: int
    prompt_s: float
    decode_s: float
    """From the first new token to the last."""
    wall_s: float
    num_drafted: int
    num_accepted: int


class Peer:
    """A llama.cpp server in this process; a context manager, since it must be closed.

    Args:
        path: The GGUF file.
        config: Plain or speculative.
        threads: Threads of the model and of the draft, for single rows and for batches.
        context_length: Most tokens of all slots.
        num_slots: Sequences at once.
        port: Where it listens, on this machine; None is llama.cpp's own choice.
    """

    def __init__(
        self,
        path: Path,
        config: PeerConfig,
        *,
        threads: int,
        context_length: int = 4096,
        num_slots: int = 1,
        port: int | None = None,
    ) -> None:
        module = load_xllamacpp()
        params = module.CommonParams()
        params.verbosity = 0
        params.model.path = str(path)
        params.n_ctx, params.n_parallel = context_length, num_slots
        if port is not None:
            params.port = port
        params.fit_params = False  # it would look for memory to save
        params.cache_prompt, params.cache_ram_mib = False, 0
        _set_threads(params, threads)
        _set_speculation(module, params, config, threads)
        self.config = config
        self._server: Any = module.Server(params)

    @property
    def address(self) -> str:
        """Where it listens."""
        return self._server.listening_address

    def complete(
        self,
        prompt: Sequence[int] | str,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        ignore_eos: bool = False,
    ) -> PeerCompletion:
        """Generate; at a temperature the whole vocabulary is sampled, with no cut-off."""
        request = {
            "prompt": prompt if isinstance(prompt, str) else list(prompt),
            "max_tokens": max_tokens,
            "temperature": temperature,
            "samplers": ["temperature"] if temperature else ["top_k"],
            "top_k": 0 if temperature else 1,
            "seed": seed,
            "ignore_eos": ignore_eos,
            "cache_prompt": False,
        }
        start = time.perf_counter()
        response: dict[str, Any] = self._server.handle_completions(request)
        wall_s = time.perf_counter() - start
        if "timings" not in response:
            raise RuntimeError(f"llama.cpp refused a request: {response}")
        timings = response["timings"]
        return PeerCompletion(
            text=response["choices"][0]["text"],
            num_prompt_tokens=timings["prompt_n"],
            num_tokens=timings["predicted_n"],
            prompt_s=timings["prompt_ms"] / 1000,
            decode_s=timings["predicted_ms"] / 1000,
            wall_s=wall_s,
            num_drafted=timings.get("draft_n", 0),
            num_accepted=timings.get("draft_n_accepted", 0),
        )

    def close(self) -> None:
        """End the server's threads; a live server keeps the interpreter from exiting."""
        self._server = None

    def __enter__(self) -> "Peer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Passes:
    """llama.cpp's forward passes, timed one by one.

    Args:
        path: The GGUF file.
        threads: For single rows and for batches.
        library: Another build's `libllama.so`; None is the wheel's.
        context_length: Most tokens held.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        library: Path | None = None,
        context_length: int = 2048,
    ) -> None:
        self._library = open_library(library)
        self._model = checked(
            self._library.llama_model_load_from_file(
                str(path).encode(), self._library.llama_model_default_params()
            )
        )
        params = self._library.llama_context_default_params()
        params.words[0] = context_length  # n_ctx has always been the first field
        self._context = checked(self._library.llama_init_from_model(self._model, params))
        self._library.llama_set_n_threads(self._context, threads, threads)
        self._memory = ctypes.c_void_p(self._library.llama_get_memory(self._context))

    def forward(self, tokens: Sequence[int], position: int, *, all_logits: bool) -> float:
        """Seconds of one pass that appends the tokens, with the logits of each or of the last."""
        batch = self._library.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index], batch.pos[index] = token, position + index
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
            batch.logits[index] = all_logits or index == len(tokens) - 1
        start = time.perf_counter()
        status = self._library.llama_decode(self._context, batch)
        self._library.llama_synchronize(self._context)
        seconds = time.perf_counter() - start
        self._library.llama_batch_free(batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status} for {len(tokens)} tokens")
        return seconds

    def rollback(self, length: int) -> None:
        """Forget all but the first tokens."""
        self._library.llama_memory_seq_rm(self._memory, 0, length, -1)

    def close(self) -> None:
        """Free the context and the weights."""
        self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)


def load_xllamacpp() -> Any:
    """The module; it is installed into the running environment if it is missing."""
    try:
        return importlib.import_module("xllamacpp")
    except ModuleNotFoundError:
        print(f"installing {REQUIREMENT}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "pip", "install", REQUIREMENT], check=True)
        importlib.invalidate_caches()
        return importlib.import_module("xllamacpp")


def describe(library: Path | None) -> dict[str, Any]:
    """Version, instruction sets and settings of the peer, and of another build of it."""
    module = load_xllamacpp()
    return {
        "wheel": f"xllamacpp {importlib.metadata.version('xllamacpp')}",
        "build": module.BUILD_INFO,
        "system": module.get_system_info().strip(),
        "other_build": _system_info(library) if library else None,
        "settings": "n_parallel 1, cache_prompt off, fit_params off; all else at its defaults "
        "(mmap, flash attention auto, n_batch 2048, n_ubatch 512, weights repacked, warm-up on)",
    }


def peer_configs(draft_path: Path | None) -> list[PeerConfig]:
    """Plain, and every kind of speculation worth trying: llama.cpp's defaults and our tunings."""
    plain = [PeerConfig("plain")]
    drafts = [
        PeerConfig(
            f"draft n_max {n_max}{name}", "draft-simple", draft_path, {"n_max": n_max, **more}
        )
        for n_max, name, more in (
            (3, " (default)", {}),
            (2, "", {}),
            (5, "", {}),
            (8, " p_min 0.75", {"p_min": 0.75}),
        )
    ]
    short = {"size_n": 3, "size_m": 8}
    ngrams = [
        PeerConfig("ngram-simple (default)", "ngram-simple"),
        PeerConfig("ngram-simple 3/8", "ngram-simple", None, short),
        PeerConfig("ngram-simple 3/32", "ngram-simple", None, {"size_n": 3, "size_m": 32}),
        PeerConfig("ngram-map-k (default)", "ngram-map-k"),
        PeerConfig("ngram-map-k 3/8", "ngram-map-k", None, short),
        PeerConfig("ngram-mod (default)", "ngram-mod"),
        PeerConfig("ngram-mod 8/8/16", "ngram-mod", None, {"n_match": 8, "n_min": 8, "n_max": 16}),
        PeerConfig("ngram-cache (default)", "ngram-cache"),
    ]
    return plain + (drafts if draft_path else []) + ngrams


def _set_threads(params: Any, threads: int) -> None:
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads


def _set_speculation(module: Any, params: Any, config: PeerConfig, threads: int) -> None:
    if config.speculation == "none":
        return
    name = config.speculation.upper().replace("-", "_")
    kind = getattr(module.common_speculative_type, f"COMMON_SPECULATIVE_TYPE_{name}")
    params.speculative.types = [kind]
    section = params.speculative.draft
    if config.draft_path is not None:
        section.mparams.path = str(config.draft_path)
        _set_threads(section, threads)
    else:
        section = getattr(params.speculative, config.speculation.replace("-", "_"))
    for key, value in config.settings.items():
        setattr(section, key, value)


class Opaque(ctypes.Structure):
    """Room for any of llama.cpp's parameter structs, which it passes by value."""

    _fields_ = (("words", ctypes.c_uint32 * 256),)


class _Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


_LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


def _ignore(level: int, text: bytes, data: int | None) -> None:
    """Log nothing."""


# Kept alive for as long as the library may call it.
_SILENT = _LogCallback(_ignore)


def open_library(path: Path | None = None) -> Any:
    """The wheel's library, or another build's, with the signatures of what we call."""
    load_xllamacpp()
    library = ctypes.CDLL(str(path or sys.modules["xllamacpp.xllamacpp"].__file__))
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "llama_log_set": (None, [_LogCallback, pointer]),
        "llama_backend_init": (None, []),
        "llama_model_default_params": (Opaque, []),
        "llama_context_default_params": (Opaque, []),
        "llama_model_load_from_file": (pointer, [ctypes.c_char_p, Opaque]),
        "llama_init_from_model": (pointer, [pointer, Opaque]),
        "llama_set_n_threads": (None, [pointer, integer, integer]),
        "llama_get_memory": (pointer, [pointer]),
        "llama_memory_seq_rm": (ctypes.c_bool, [pointer, integer, integer, integer]),
        "llama_batch_init": (_Batch, [integer, integer, integer]),
        "llama_batch_free": (None, [_Batch]),
        "llama_decode": (integer, [pointer, _Batch]),
        "llama_synchronize": (None, [pointer]),
        "llama_free": (None, [pointer]),
        "llama_model_free": (None, [pointer]),
        "llama_model_get_vocab": (pointer, [pointer]),
        "llama_vocab_n_tokens": (integer, [pointer]),
        "llama_vocab_is_eog": (ctypes.c_bool, [pointer, integer]),
        "llama_tokenize": (
            integer,
            [pointer, ctypes.c_char_p, integer, ctypes.POINTER(integer), integer]
            + [ctypes.c_bool] * 2,
        ),
        "llama_token_to_piece": (
            integer,
            [pointer, integer, ctypes.c_char_p, integer, integer, ctypes.c_bool],
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.llama_log_set(_SILENT, None)
    library.llama_backend_init()
    return library


def _system_info(path: Path) -> str:
    library = open_library(path)
    library.llama_print_system_info.restype = ctypes.c_char_p
    return library.llama_print_system_info().decode().strip()


def checked(pointer: int | None) -> ctypes.c_void_p:
    """A pointer that llama.cpp gave, which is none where it failed."""
    if not pointer:
        raise RuntimeError("llama.cpp could not load the model")
    return ctypes.c_void_p(pointer)
