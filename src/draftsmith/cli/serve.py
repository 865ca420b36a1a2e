"""`draftsmith serve`: an OpenAI-compatible server."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Dict

from draftsmith.cli.messages import DEFAULT_MESSAGES, MessageOptions, notes
from draftsmith.cli.options import (
    LIMITS,
    SERVING,
    FilePath,
    Flag,
    Real,
    Strings,
    Whole,
)
from draftsmith.cli.remember import DEFAULT_REMEMBERING, RememberOptions
from draftsmith.cli.runtime import DEFAULT_MEMORY, DEFAULT_MODELS, MemoryOptions, ModelOptions
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.serve.settings import Limits, ServeSettings

__all__ = ["app"]

_KEYS = "DRAFTSMITH_API_KEY"
_STARTED = time.monotonic()


def _from_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill what was not typed from the file of --config."""
    typed = next((one.tokens for one in arguments if "--config" in one.names), ())
    if typed:
        path = Path(typed[-1].value)
        values = _read(path)
        Dict(values, source=str(path), use_commands_as_keys=False)(app, commands, arguments)


def _read(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequestError(f"--config {path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InvalidRequestError(f"--config {path} is no TOML: {error}") from error
    if "config" in values:
        raise InvalidRequestError(f"--config {path} names another config: put all in one file")
    return values


app = App(name="serve", config=_from_file)


@Parameter(name="*", group=SERVING)
@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """Where to listen, whom to serve, and how to end.

    Parameters
    ----------
    host
        The address to listen on.
    port
        0 takes a free one, which is told.
    api_key
        A key that opens the API; may be repeated. The environment's DRAFTSMITH_API_KEY, several
        with commas between them, is the better place: command lines can be seen by others.
    served_model_name
        What requests call the model; by default what --target says.
    max_batch_size
        Texts that run at once.
    max_waiting
        Texts that may wait for a place; more are answered 429, with the time to come again.
    request_timeout
        Seconds that a request may take, its wait included.
    body_timeout
        Seconds that a request may take to arrive.
    on_sigterm
        Whether running requests are finished or cancelled at SIGTERM and Ctrl-C.
    grace
        Seconds that they may still take.
    metrics_names
        Whose names the metrics have: draftsmith_..., or vLLM's vllm:....
    log_file
        Where the log goes, a JSON object a line; by default to stderr.
    log_prompts
        Show prompts and texts in the log.
    replicas
        Engines at most, each in a process of its own, on Ray Serve (`pip install
        'draftsmith[serve,replicas]'`): requests that begin alike go to the same one. With more
        than one, the places and the cache are those of each.
    min_replicas
        Engines that run where nobody asks anything; by default all.
    """

    host: str = "127.0.0.1"
    port: Whole = 8000
    api_key: Strings = ()
    served_model_name: str | None = None
    max_batch_size: Whole = 16
    max_waiting: Whole = 256
    request_timeout: Real = 600.0
    body_timeout: Real = 20.0
    on_sigterm: Literal["finish", "cancel"] = "finish"
    grace: Real = 30.0
    metrics_names: Literal["draftsmith", "vllm"] = "draftsmith"
    log_file: FilePath | None = None
    log_prompts: Flag = False
    replicas: Whole = 1
    min_replicas: Whole | None = None

    @property
    def is_replicated(self) -> bool:
        """Whether there may be more than one engine."""
        return self.replicas > 1

    def settings(self, target: str, limits: "LimitOptions") -> "ServeSettings":
        """As the server takes them.

        Raises:
            InvalidRequestError: If a value is out of its range.
        """
        from draftsmith.core.values import require
        from draftsmith.serve.settings import ServeSettings

        require(self.replicas >= 1, "replicas", "1 or more", self.replicas)
        least = 1 if self.min_replicas is None else self.min_replicas
        rule = f"1 to --replicas {self.replicas}"
        require(1 <= least <= self.replicas, "min_replicas", rule, least)
        keys = [key.strip() for key in os.environ.get(_KEYS, "").split(",")]
        return ServeSettings(
            host=self.host,
            port=self.port,
            api_keys=(*self.api_key, *filter(None, keys)),
            served_model_name=self.served_model_name or target,
            max_waiting=self.max_waiting,
            request_timeout_s=self.request_timeout,
            body_timeout_s=self.body_timeout,
            on_sigterm=self.on_sigterm,
            grace_s=self.grace,
            metrics_names=self.metrics_names,
            log_prompts=self.log_prompts,
            limits=limits.limits(),
        )


@Parameter(name="*", group=LIMITS)
@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """What one request may ask.

    Parameters
    ----------
    max_body_bytes
        Of a request; more are answered 413.
    max_output_tokens
        The longest text of one choice, and its length where a request asks none.
    max_choices
        Texts of one request: its prompts times n.
    max_stop
        Stop strings.
    max_logprobs
        Likeliest tokens beside each.
    max_bias
        Entries of logit_bias.
    max_prediction_tokens
        Of a prediction.
    """

    max_body_bytes: Whole = 4 << 20
    max_output_tokens: Whole = 4096
    max_choices: Whole = 16
    max_stop: Whole = 16
    max_logprobs: Whole = 20
    max_bias: Whole = 1024
    max_prediction_tokens: Whole = 32_768

    def limits(self) -> "Limits":
        """As the server takes them."""
        from draftsmith.serve.settings import Limits

        return Limits(**vars(self))


_DEFAULT_SERVING = ServingOptions()
_DEFAULT_LIMITS = LimitOptions()


@app.default
def serve(
    *,
    models: ModelOptions = DEFAULT_MODELS,
    memory: MemoryOptions = DEFAULT_MEMORY,
    remembering: RememberOptions = DEFAULT_REMEMBERING,
    serving: ServingOptions = _DEFAULT_SERVING,
    limits: LimitOptions = _DEFAULT_LIMITS,
    config: Annotated[FilePath | None, Parameter(group=SERVING)] = None,
    messages: MessageOptions = DEFAULT_MESSAGES,
) -> None:
    """Serve a model over OpenAI's API.

    Parameters
    ----------
    config
        A TOML file with any of these options, such as port = 8001; what is typed goes first.
    """
    messages.apply()
    settings = serving.settings(models.target, limits)
    models = remembering.applied(_as_served(models))
    models.check()
    _check_installed(*(("ray",) if serving.is_replicated else ()))

    def tell(address: str) -> None:
        drafted = f"drafted by {models.drafted_by}, gamma {models.num_drafted}"
        notes().print(
            f"{settings.served_model_name}, {drafted}, is ready at {address}/v1 "
            f"after {_age_s():.1f} s"
        )

    if serving.is_replicated:
        if remembering.remember is not None:
            raise InvalidRequestError(
                f"--remember {remembering.remember} is of one process: leave it or --replicas out"
            )
        _serve_replicas(models, memory, serving, settings, tell)
        return
    engine = models.load(memory, serving.max_batch_size)
    from draftsmith.serve.app import create_app
    from draftsmith.serve.logs import log_to
    from draftsmith.serve.server import serve as run

    with log_to(serving.log_file), remembering.kept(engine):
        run(create_app(engine, settings), tell)


def _serve_replicas(
    models: ModelOptions,
    memory: MemoryOptions,
    serving: ServingOptions,
    settings: "ServeSettings",
    tell: Callable[[str], None],
) -> None:
    from draftsmith.models.settings import parallel_or_launched

    ranks = parallel_or_launched(models.runtime.tensor_parallel)
    if ranks > 1:
        raise InvalidRequestError(
            f"--tensor-parallel {ranks}: Ray starts every one of --replicas {serving.replicas} "
            "by itself, on one GPU: leave one of the two out"
        )
    if serving.log_file is not None:
        raise InvalidRequestError(
            f"--log-file {serving.log_file} is of one process: with --replicas, Ray keeps the logs"
        )
    from draftsmith.models.reference import local_path, resolve
    from draftsmith.serve.replicas.cluster import Replicas, serve_replicas

    # Fetched once, before several would fetch it.
    local_path(resolve(models.target))
    most = serving.replicas
    replicas = Replicas(
        most=most,
        least=most if serving.min_replicas is None else serving.min_replicas,
        max_batch_size=serving.max_batch_size,
        num_gpus=_num_gpus(models),
    )
    make = partial(_shared(models, most).load, memory, serving.max_batch_size)
    serve_replicas(make, settings, replicas, tell)


def _num_gpus(models: ModelOptions) -> float:
    import torch

    device = models.runtime.device
    is_gpu = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
    return float(len(models.runtime.layers_per_device or (device,)) if is_gpu else 0)


def _shared(models: ModelOptions, num_replicas: int) -> ModelOptions:
    """On a CPU, with the cores that each replica has for itself, unless threads are given."""
    from draftsmith.kernels.cpu.library import physical_cores

    runtime = models.runtime
    if not runtime.is_on_cpu:
        return models
    threads = runtime.threads or max(1, physical_cores() // num_replicas)
    return replace(models, runtime=replace(runtime, threads=threads))


def _as_served(models: ModelOptions) -> ModelOptions:
    """Served requests are of all kinds: drafts are those that pay, unless gamma is given."""
    is_open = models.gamma is None and models.draft != "none"
    return replace(models, gamma="auto") if is_open else models


def _check_installed(*more: str) -> None:
    from importlib.util import find_spec

    missing = [
        name
        for name in ("fastapi", "uvicorn", "httptools", "prometheus_client", *more)
        if find_spec(name) is None
    ]
    if missing:
        raise InvalidRequestError(
            f"serve needs {', '.join(missing)}: "
            f"pip install 'draftsmith[{'serve,replicas' if more else 'serve'}]'"
        )


def _age_s() -> float:
    """Seconds since this process began; since this module was read, where that is not known."""
    try:
        with open("/proc/self/stat", encoding="ascii") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return time.monotonic() - _STARTED
