"""Work on several places at once, and the fleet that has them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from rmd.backbones.placement import Tuning
from rmd.checks import RequestError

if TYPE_CHECKING:
    from rmd.engine.fleet import Fleet

A = TypeVar("A")
B = TypeVar("B")


def spread(work: Callable[[A], B], items: Iterable[A], places: int) -> Iterator[tuple[A, B]]:
    """(item, its result) as they get ready, `places` at a time; nothing more is begun when nobody asks any more.

    The first exception of any is raised; what runs then ends first.
    """
    if places == 1:
        yield from ((item, work(item)) for item in items)
        return
    left, running = iter(items), dict[Future[B], A]()
    with ThreadPoolExecutor(places, thread_name_prefix="place") as pool:
        while True:
            running |= {pool.submit(work, item): item for item in islice(left, places - len(running))}
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()


@contextmanager
def fleet_at(
    place: str, replicas: str | None = None, previews: bool = True, tuning: Tuning | None = None
) -> Generator[Fleet]:
    """A fleet (see `rmd.engine.fleet.opened`) until the block ends; RequestError where Ray is not installed."""
    try:
        from rmd.engine.fleet import opened
    except ImportError as error:
        raise RequestError('--fleet needs Ray; `pip install "ray[serve]"` installs it.') from error
    fleet = opened(place, replicas, previews, tuning)
    try:
        yield fleet
    finally:
        fleet.close()
