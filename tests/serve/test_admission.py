"""Who may ask how often: the limit itself, and how a client is told from another."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from rmd.engine.session import Session
from rmd.serve.admission import BURST, CLIENTS, COSTS, RateLimit, client_of
from rmd.serve.offer import Offer
from rmd.serve.runner import Runner
from rmd.ui.page import build


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def asked_by(peer: str | None, *forwarded: str, user: str = "app") -> Request:
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded] + [(b"x-gradio-user", user.encode())]
    return Request({"type": "http", "headers": headers, "client": (peer, 5000) if peer else None})


def test_a_client_has_a_burst_and_then_waits_for_the_refill() -> None:
    clock = Clock()
    limit = RateLimit(per_minute=30, burst=3, clock=clock)
    assert [limit.wait("a") for _ in range(4)] == [0, 0, 0, 2]
    assert limit.wait("b") == 0, "others are not concerned"
    clock.now += 1.5
    assert limit.wait("a") == pytest.approx(0.5)
    clock.now += 0.5
    assert limit.wait("a") == 0


@given(st.lists(st.tuples(st.floats(0, 20), st.sampled_from([0.1, 1.0, 4.0])), max_size=60))
def test_nobody_gets_more_than_burst_and_refill(steps: list[tuple[float, float]]) -> None:
    clock = Clock()
    limit = RateLimit(per_minute=12, burst=5, clock=clock)
    start, taken = clock.now, 0.0
    for pause, cost in steps:
        clock.now += pause
        wait = limit.wait("a", cost)
        taken += 0 if wait else cost
        assert taken <= 5 + (clock.now - start) * 12 / 60 + 1e-6
        if wait:  # and the time that is named is enough
            clock.now += wait + 1e-6
            assert limit.wait("a", cost) == 0
            taken += cost


def test_every_cost_can_be_paid_and_memory_is_bounded() -> None:
    assert max(COSTS.values()) <= BURST
    limit = RateLimit(1)
    for i in range(CLIENTS + 50):
        limit.wait(str(i))
    assert len(limit._buckets) == CLIENTS


def test_costs_name_handlers_that_there_are(tmp_path: Path) -> None:
    page = build(Runner(Session(), Offer([]), tmp_path))
    assert set(COSTS) <= {str(fn.name) for fn in page.fns.values() if fn.concurrency_id == "accelerator"}


@pytest.mark.parametrize(
    ("request_", "proxies", "client"),
    [
        (asked_by("203.0.113.9"), 0, "203.0.113.9"),
        (asked_by("203.0.113.9", "198.51.100.1"), 0, "203.0.113.9"),  # anyone can send the header
        (asked_by("10.0.0.1", "198.51.100.1"), 1, "198.51.100.1"),
        (asked_by("10.0.0.1", "6.6.6.6, 198.51.100.1"), 1, "198.51.100.1"),  # what is left of the proxy's is made up
        (asked_by("10.0.0.1", "6.6.6.6", "198.51.100.1, 10.0.0.2"), 2, "198.51.100.1"),
        (asked_by("10.0.0.1", "198.51.100.1"), 2, "10.0.0.1"),  # fewer hops than proxies: not by way of them
        (asked_by("2001:db8:1:2:3:4:5:6"), 0, "2001:db8:1:2::/64"),
        (asked_by("::ffff:203.0.113.9"), 0, "203.0.113.9"),
        (asked_by("10.0.0.1", "x" * 500), 1, "x" * 64),
        (asked_by(None), 0, "unknown"),
        (asked_by("127.0.0.1", "6.6.6.6", user="mcp"), 1, "mcp"),
    ],
)
def test_clients_are_told_apart(request_: Request, proxies: int, client: str) -> None:
    assert client_of(request_, proxies) == client
