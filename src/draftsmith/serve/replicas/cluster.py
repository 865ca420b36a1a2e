"""One engine a replica on Ray Serve: routed by what requests begin with, scaled by their number."""

# What Ray decorates has no types that hold:
# pyright: basic

import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.config import AutoscalingConfig, HTTPOptions, RequestRouterConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.types import Message, Scope

from draftsmith.core.values import require
from draftsmith.engine.engine import Engine
from draftsmith.serve.app import create_app
from draftsmith.serve.guards import BodyGuard
from draftsmith.serve.logs import log_to
from draftsmith.serve.replicas.forwarding import Forward, ReplicaLostError, ReplicasFullError
from draftsmith.serve.replicas.inside import Inside
from draftsmith.serve.service import Service
from draftsmith.serve.settings import ServeSettings

__all__ = ["Replicas", "serve_replicas"]

_APP = "draftsmith"
_ENGINES = "Replica"
_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
_HEALTH_S = 2.0
"""How often an engine's health is asked."""


@dataclass(frozen=True, kw_only=True)
class Replicas:
    """How many engines there are."""

    most: int
    least: int
    """As many run where nobody asks anything."""
    max_batch_size: int
    """Of each. Beyond it a request goes to the next engine, or makes another one start."""
    num_gpus: float = 0.0
    """Of each."""

    def __post_init__(self) -> None:
        require(1 <= self.least <= self.most, "min_replicas", f"1 to {self.most}", self.least)


def serve_replicas(
    make: Callable[[], Engine],
    settings: ServeSettings,
    replicas: Replicas,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        make: Loads an engine, in a replica's process.
        settings: Of each replica; the address is that of Ray's proxy.
        replicas: How many.
        on_ready: Told the address as soon as requests are taken.
    """
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    # Ray tells its makers of its use, unless it is asked not to.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    port = settings.port or _free_port(settings.host)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    # Of its own: what another cluster serves would end with this one.
    ray.init("local", include_dashboard=False, log_to_driver=False, configure_logging=False)
    # Behind Ray's own, which would abort.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        serve.start(http_options=HTTPOptions(host=settings.host, port=port))
        serve.run(_application(make, settings, replicas), name=_APP, route_prefix="/")
        on_ready(f"http://{settings.host}:{port}")
        ended.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


def _application(
    make: Callable[[], Engine], settings: ServeSettings, replicas: Replicas
) -> serve.Application:
    deployment: Any = serve.deployment
    engines = deployment(
        Replica,
        name=_ENGINES,
        # What one engine can run at once; the others wait at the door.
        max_ongoing_requests=replicas.max_batch_size,
        max_queued_requests=max(1, settings.max_waiting),
        autoscaling_config=AutoscalingConfig(
            min_replicas=replicas.least,
            initial_replicas=replicas.least,
            max_replicas=replicas.most,
            target_ongoing_requests=max(1.0, 0.75 * replicas.max_batch_size),
        ),
        request_router_config=RequestRouterConfig(
            request_router_class=_ROUTER,  # type: ignore[arg-type] # a class, or its name
            request_router_kwargs={"num_fallback_replicas": replicas.most - 1},
        ),
        # Threads are the engine's own matter: Ray counts nothing but GPUs.
        ray_actor_options={"num_cpus": 0, "num_gpus": replicas.num_gpus},
        health_check_period_s=_HEALTH_S,
        health_check_timeout_s=10 * _HEALTH_S,
        graceful_shutdown_timeout_s=settings.grace_s,
    ).bind(make, replace(settings, max_waiting=replicas.max_batch_size))
    app = BodyGuard(
        Forward(_ask, num_tries=replicas.most + 1),
        max_bytes=settings.limits.max_body_bytes,
        timeout_s=settings.body_timeout_s,
    )
    door = deployment(
        serve.ingress(app)(Door),
        name="Door",
        max_ongoing_requests=100_000,
        ray_actor_options={"num_cpus": 0},
    )
    return door.bind(engines)


class Replica:
    """One engine, with all of the app but its socket."""

    async def __init__(  # pyright: ignore[reportGeneralTypeIssues] - Ray awaits it
        self, make: Callable[[], Engine], settings: ServeSettings
    ) -> None:
        self._logging = log_to(None)
        self._logging.__enter__()
        app = create_app(make(), settings)
        self._service: Service = app.state.service
        self._inside = Inside(app)
        await self._inside.start()

    async def answer(self, scope: Scope, body: bytes) -> AsyncGenerator[Message]:
        """The messages that answer a request."""
        async for message in self._inside.messages(scope, body):
            yield message

    async def check_health(self) -> None:
        """Ray ends a replica that raises, and starts another."""
        if not self._service.worker.is_alive:
            raise RuntimeError("the engine's thread has ended")


class Door:
    """Where requests come in; it holds nothing but the way to the engines."""

    def __init__(self, engines: DeploymentHandle) -> None:
        del engines


async def _ask(key: str | None, scope: Scope, body: bytes) -> AsyncGenerator[Message]:
    """Ask the engine that has read this beginning, or the next one that has a place."""
    engines = serve.get_deployment_handle(_ENGINES, _APP).options(
        method_name="answer", stream=True, session_id=key or os.urandom(8).hex()
    )
    response: Any = engines.remote(scope, body)
    is_whole = False
    try:
        async for message in response:
            yield message
        is_whole = True
    except BackPressureError as error:
        raise ReplicasFullError from error
    except (RayActorError, DeploymentUnavailableError) as error:
        raise ReplicaLostError from error
    except RayTaskError as error:
        if isinstance(error.cause, RayActorError):
            raise ReplicaLostError from error
        raise
    finally:
        if not is_whole:
            response.cancel()


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
        return listener.getsockname()[1]
