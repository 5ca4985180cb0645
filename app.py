"""The web demo: `python app.py`, then open http://127.0.0.1:7860."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported; nothing is sent to anyone
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported; see rmd/__init__.py

from rmd.disk import ensure_writable, own_temporary_folder

# read when gradio is imported; its own default is one folder for all accounts of a machine
os.environ.setdefault("GRADIO_TEMP_DIR", str(own_temporary_folder()))

if os.environ.get("SPACES_ZERO_GPU"):  # a ZeroGPU Space has this package, which must come before torch
    import spaces
else:
    spaces = None

import gradio as gr
import torch
from gradio.utils import get_upload_folder

from rmd.checks import RequestError
from rmd.engine import zero
from rmd.engine.base import Engine
from rmd.engine.pool import ModelPool
from rmd.engine.session import Session
from rmd.engine.spread import fleet_at
from rmd.engine.teacher_cache import TeacherCache
from rmd.serve.offer import Offer
from rmd.serve.runner import DEADLINE, Runner
from rmd.serve.server import RATE, Options, check_address, launch
from rmd.ui import style
from rmd.ui.page import build


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. What a hosted copy needs can also be set in the environment, where arguments cannot."""
    env = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--host", default=env("GRADIO_SERVER_NAME", "127.0.0.1"), help="address to listen on (default: %(default)s)")
    add(
        "--port",
        default=env("GRADIO_SERVER_PORT", "7860"),
        help="port to listen on, 0 for any free one (default: %(default)s)",
    )
    add("--share", action="store_true", help="make a public link through Gradio's tunnel")
    add(
        "--auth",
        metavar="NAME:PASSWORD",
        default=env("RMD_AUTH"),
        help="ask visitors for this name and password; RMD_AUTH in the environment keeps it out of process lists",
    )
    add(
        "--rate-limit",
        metavar="N",
        default=env("RMD_RATE_LIMIT"),
        help=f"pictures a minute for each client, 0 for no limit (default: {RATE:g}, or 0 when only this machine "
        "can connect; RMD_RATE_LIMIT)",
    )
    add(
        "--proxies",
        metavar="N",
        default=env("RMD_PROXIES", "0"),
        help="how many reverse proxies of yours are in front and append to X-Forwarded-For; a client is then the "
        "address the outermost one saw (default: %(default)s, trust no header; RMD_PROXIES)",
    )
    add(
        "--deadline",
        metavar="SECONDS",
        default=str(DEADLINE),
        help="the longest a request may take once it runs (default: %(default)s)",
    )
    add(
        "--teacher-cache",
        type=Path,
        metavar="FOLDER",
        default=env("RMD_TEACHER_CACHE"),
        help="keep teachers and show them again, labelled as cached, instead of running the same one twice "
        "(default: off, but on for ZeroGPU; RMD_TEACHER_CACHE)",
    )
    add("--backbone", type=Path, action="append", default=[], metavar="FOLDER",
        help="offer this diffusers folder too, before the bundled models; may be repeated")  # fmt: skip
    add("--student", type=Path, action="append", default=[], metavar="PATH",
        help="offer these student weights too, a folder or a .safetensors file; may be repeated")  # fmt: skip
    add(
        "--fleet",
        metavar="PLACE",
        default=env("RMD_FLEET"),
        help="run as many requests at once as there are accelerators, by Ray: local, local:2 or local:1-4 starts it "
        "here, a cluster's address joins that one; SIGHUP restarts its replicas in turn (RMD_FLEET)",
    )
    add("--replicas", metavar="N", help="how many the fleet has, such as 4 or 1-8 (default: one for each GPU)")
    args = parser.parse_args(arguments)
    if args.replicas and not args.fleet:
        parser.error("--replicas goes with --fleet")
    if args.auth and not all(args.auth.partition(":")):
        parser.error("--auth must look like NAME:PASSWORD")
    args.port = int(bounded(parser, "--port", args.port, 0, 65535))
    args.proxies = int(bounded(parser, "--proxies", args.proxies, 0, 9))
    args.deadline = bounded(parser, "--deadline", args.deadline, 1, 86400)
    if args.rate_limit is not None:
        args.rate_limit = bounded(parser, "--rate-limit", args.rate_limit, 0, 10_000)
    return args


def bounded(parser: argparse.ArgumentParser, name: str, value: str, low: int, high: int) -> float:
    """value as a number in [low, high], a whole one but for the deadline and the rate; ends the program otherwise."""
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not low <= number <= high or (name in ("--port", "--proxies") and number != int(number)):
        parser.error(f"{name} must be a number from {low} to {high}, not {value!r}")
    return number


@contextmanager
def engine_for(offer: Offer, fleet: str | None, replicas: str | None) -> Iterator[Engine]:
    """The engine until the app ends."""
    if not fleet:
        yield session_for(offer)
        return
    print("Starting the fleet …", flush=True)
    with fleet_at(fleet, replicas) as found:
        if hasattr(signal, "SIGHUP"):  # not on Windows
            signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=found.restart).start())
        yield found


def session_for(offer: Offer) -> Session:
    """One session; on ZeroGPU with the default backbone loaded, for its weights are handed over when the app starts."""
    if spaces is None:
        return Session()
    session = zero.LentSession(spaces.GPU, gr.Error, ModelPool(torch.device("cuda")))
    if offer.default is not None:
        session.pool.acquire(offer.default, None)
    return session


def main() -> None:
    args = parse()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    try:
        check_address(args.host, args.port)
        files = Path(get_upload_folder())
        ensure_writable(files)
        offer = Offer(args.backbone, args.student)
        folder = args.teacher_cache or (files / "teachers" if zero.present() else None)
        cache = TeacherCache(folder) if folder else None
        with engine_for(offer, args.fleet, args.replicas) as engine:
            runner = Runner(engine, offer, files / "rmd", args.deadline, cache)
            name, _, password = (args.auth or "").partition(":")
            auth = (name, password) if args.auth else None
            bare = ":" in args.host and not args.host.startswith("[")
            host = f"[{args.host}]" if bare else args.host  # as addresses have it
            options = Options(host, args.port or None, args.share, auth, args.rate_limit, args.proxies)
            page = build(runner, downloads=options.private and not options.proxies)
            launch(page, runner, options, **style.look())
    except RequestError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
