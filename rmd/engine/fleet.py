"""A fleet: several accelerators or machines behind one page, by Ray Serve.

Every replica holds one session and one accelerator (see `rmd.engine.replica`). Serve keeps as many as the bounds allow,
sends a request to one that had the same model last where such a one is free (its model multiplexing), replaces those
that died or whose accelerator failed, and restarts them one after another. One request at a time runs on each; more
wait in the page's own queue. Requests, events and pictures travel as bytes; weights have to lie at the same place on
every machine.

Ray is an extra (`pip install "rmd[fleet]"`) and is imported by nobody else.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray import serve
from ray.exceptions import RayError, RayTaskError
from torch import Tensor

from rmd.backbones import catalog
from rmd.backbones.placement import Tuning
from rmd.checks import RequestError
from rmd.engine.base import Frames
from rmd.engine.events import Event, Waiting
from rmd.engine.replica import Replica, Setup
from rmd.engine.session import check
from rmd.request import GenerateRequest

NAME = "rmd"
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 0.05
"""Seconds between two looks at whether a request was cancelled."""
DRAINING = 900.0
"""Seconds that a replica may take for what it has begun before it is stopped in a restart."""
SCALING = {
    "target_ongoing_requests": 1,
    "metrics_interval_s": 1,
    "look_back_period_s": 5,
    "upscale_delay_s": 5,
    "downscale_delay_s": 300,
}
"""When replicas are added and taken away: soon, for a visitor waits, and late, for a model is loaded again. Serve's own
half a minute each lets a few requests go by."""
GONE = "The accelerator that was drawing this went away; please try again."
TOO_MANY = "--fleet: {wanted} replicas need as many {what}, but there are {there}."
NO_CLUSTER = (
    "--fleet: no Ray cluster answers at {place!r}; `ray start --head` starts one. Where it has a token, this process "
    "needs RAY_AUTH_MODE=token and the same token."
)
END = object()


@dataclass(frozen=True)
class Bounds:
    """How many replicas there are: at least, and at most when all are busy."""

    least: int
    most: int


class Fleet:
    """`Engine` over a running deployment. bounds: of its replicas; as many requests as there can be run at once."""

    draws_ahead = True

    def __init__(self, deployment: serve.Application, bounds: Bounds, owned: bool):
        self.places, self._deployment, self._owned = bounds.most, deployment, owned
        self._running = 0
        self._count = threading.Lock()
        self._handle = serve.run(deployment, name=NAME, route_prefix=None)

    @property
    def busy(self) -> bool:
        return self._running >= self.places

    def generate(
        self, request: GenerateRequest, cancel: threading.Event | None = None, runs: int = 1
    ) -> Generator[Event]:
        """See `Engine.generate`. Says Waiting where every replica is busy or none is up yet."""
        cancel, events = cancel or threading.Event(), queue.SimpleQueue[Any]()
        handle = self._handle.options(stream=True, multiplexed_model_id=model_of(request))
        response = handle.generate.remote(request, runs)
        threading.Thread(target=pump, args=(response, events), daemon=True).start()
        with self._count:
            self._running += 1
        silent = 0
        try:
            while True:
                check(cancel)
                try:
                    event = events.get(timeout=PATIENCE)
                except queue.Empty:
                    silent += 1 if silent >= 0 else 0
                    if silent == 10:
                        yield Waiting()
                    continue
                if event is END:
                    return
                if isinstance(event, Exception):
                    raise explained(event)
                silent = -1
                yield event
        finally:
            response.cancel()
            with self._count:
                self._running -= 1

    def sample(self, requests: Sequence[GenerateRequest], role: str) -> tuple[list[Frames], Tensor]:
        """See `Engine.sample`."""
        handle = self._handle.options(multiplexed_model_id=model_of(requests[0]))
        try:
            return handle.sample.remote(requests, role).result()
        except RayError as error:
            raise explained(error) from error

    def state(self) -> dict[str, Any]:
        """How many replicas run, and how many there may be."""
        apps = serve.status().applications
        found = apps[NAME].deployments[Replica.__name__].replica_states if NAME in apps else {}
        return {"replicas": sum(n for kind, n in found.items() if kind == "RUNNING"), "places": self.places}

    def restart(self) -> None:
        """Replace all replicas, a few at a time, each when it has finished what it had begun; returns when done."""
        serve.run(self._deployment, name=NAME, route_prefix=None)

    def close(self) -> None:
        """End the replicas, and Ray itself where it was started here."""
        if not self._owned:
            serve.delete(NAME)
        ray.shutdown()


def model_of(request: GenerateRequest) -> str:
    """What has to be in memory for a request."""
    return f"{request.backbone} {request.student or ''}"


def pump(response: Any, events: queue.SimpleQueue[Any]) -> None:
    """Move a stream into a queue, which can be waited for with an eye on something else."""
    try:
        for event in response:
            events.put(event)
    except Exception as error:
        events.put(error)
    events.put(END)


def explained(error: Exception) -> Exception:
    """A replica's end as a sentence; what went wrong inside it as it is, a refusal without Ray's account of where."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    if isinstance(cause, RequestError):
        return cause
    gone = isinstance(error, RayError) and not isinstance(error, RayTaskError)
    return RequestError(GONE) if gone else error


def bounds_of(text: str, field: str) -> Bounds:
    """ "4" or "1-8" as bounds; raises RequestError."""
    least, _, most = text.partition("-")
    try:
        found = Bounds(int(least), int(most or least))
    except ValueError:
        found = Bounds(0, 0)
    if not 1 <= found.least <= found.most <= 1024:
        raise RequestError(f"{field} must be a number of replicas from 1 to 1024, or two as in 1-8, not {text!r}.")
    return found


def check_room(wanted: int, gpus: int, cores: int) -> None:
    """Raise RequestError for more replicas than there are accelerators."""
    if wanted > (gpus or cores):
        what = "GPUs" if gpus else "processor cores"
        raise RequestError(TOO_MANY.format(wanted=wanted, what=what, there=gpus or cores))


def check_answers(place: str) -> None:
    """Raise RequestError where nothing listens at "host:port"; Ray itself tries for minutes."""
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        with socket.create_connection((host.rpartition("/")[2].strip("[]"), int(port)), timeout=5):
            pass
    except (OSError, OverflowError) as error:
        raise RequestError(NO_CLUSTER.format(place=place)) from error


def opened(fleet: str, replicas: str | None = None, previews: bool = True, tuning: Tuning | None = None) -> Fleet:
    """Start a fleet here or join a cluster, and wait for its replicas.

    fleet: "local", "local:2", "local:1-4", or a running cluster's address such as "10.0.0.1:6379" or "auto".
    replicas: bounds as in "2" or "1-8"; one for each GPU when left out, or for each machine where there is none.
    Raises RequestError for what does not fit or cannot be reached.
    """
    place, _, number = fleet.partition(":")
    local = place == "local"
    said = replicas or (number if local else None) or None
    bounds = bounds_of(said, "--replicas" if replicas or not local else "--fleet") if said else None
    if local:
        check_room(bounds.most if bounds else 1, torch.cuda.device_count(), os.cpu_count() or 1)
    else:
        check_answers(fleet)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anyone
    env = {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    more: dict[str, Any] = {"include_dashboard": False} if local else {"address": fleet}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": env}, **more)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        if local:
            raise
        raise RequestError(NO_CLUSTER.format(place=fleet)) from error
    try:
        return deployed(
            bounds, local, Setup(previews, tuning or Tuning(), catalog.REGISTERED, catalog.REGISTERED_STUDENTS)
        )
    except BaseException:
        ray.shutdown()
        raise


def deployed(bounds: Bounds | None, local: bool, setup: Setup) -> Fleet:
    """The fleet on the Ray that this process has joined."""
    there = ray.cluster_resources()
    gpus, cores = int(there.get("GPU", 0)), int(there.get("CPU", 1))
    usual = gpus or len(ray.nodes())
    bounds = bounds or Bounds(usual, usual)
    check_room(bounds.most if local else bounds.least, gpus, cores)  # a cluster may grow
    share = 1 if gpus else max(1, cores // bounds.most)  # Ray tells each process to compute with that many threads
    serve.start(
        http_options={"location": "NoServer"},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    scaled = {"min_replicas": bounds.least, "max_replicas": bounds.most, **SCALING}
    fixed = bounds.least == bounds.most
    count: dict[str, Any] = {"num_replicas": bounds.most} if fixed else {"autoscaling_config": scaled}
    deployment: Any = serve.deployment(
        Replica,
        max_ongoing_requests=1,
        ray_actor_options={"num_cpus": share, "num_gpus": 1 if gpus else 0},
        health_check_period_s=5,
        graceful_shutdown_timeout_s=DRAINING,
        graceful_shutdown_wait_loop_s=0.2,
        **count,
    )
    return Fleet(deployment.bind(setup), bounds, owned=local)
