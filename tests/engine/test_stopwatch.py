"""A time that other work on the machine made long is told from one that is not."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rmd.engine import stopwatch
from rmd.engine.results import StageTiming, Timings, median_of
from rmd.engine.stopwatch import READY_SHARE, Stopwatch, ready_seconds

SHARED = """
import os, sys, time, torch
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from rmd.engine.stopwatch import Stopwatch
if sys.argv[1] == "busy":
    print("begun", flush=True)
    while True: pass
if sys.argv[2] == "uncounted":
    from pathlib import Path
    from rmd.engine import stopwatch
    stopwatch.TASKS = Path("/nowhere")
watch = Stopwatch(torch.device("cpu"))
watch.start()
begun = time.thread_time()
while time.thread_time() - begun < 0.5: pass
watch.stop()
print(watch.waited)
"""
"""Half a second of work on one processor."""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be put on one processor here")
@pytest.mark.parametrize("counted", ["counted", pytest.param("uncounted", marks=pytest.mark.slow)])
def test_a_neighbour_on_the_same_processor_is_noticed(counted: str) -> None:
    if counted == "counted" and ready_seconds() is None:
        pytest.skip("this kernel does not count it")
    command = [sys.executable, "-c", SHARED, "busy", counted]
    neighbour = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert neighbour.stdout is not None
        assert neighbour.stdout.readline() == "begun\n"
        shared = subprocess.run(
            [sys.executable, "-c", SHARED, "work", counted], capture_output=True, text=True, check=True
        )
    finally:
        neighbour.kill()
        neighbour.wait()
    assert float(shared.stdout) > READY_SHARE


def test_only_what_lies_between_start_and_stop_counts() -> None:
    watch, now = Stopwatch(torch.device("cpu")), [0.0]
    watch.now = lambda: now[0]  # type: ignore[method-assign]
    for step in (1, 2):
        watch.start()
        now[0] += step
        watch.stop()
        now[0] += 100
    assert watch.seconds == 3


def test_where_waiting_is_not_counted_the_threads_own_time_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "TASKS", Path("/nowhere"))
    assert ready_seconds() is None
    watch = Stopwatch(torch.device("cpu"))
    watch.start()
    stopwatch.time.sleep(0.05)  # a thread that sleeps computes nothing
    watch.stop()
    assert watch.waited > READY_SHARE


def run(denoiser: float, waited: float = 0.0) -> Timings:
    return Timings(0.1, (StageTiming((4, 4), 2, denoiser),), 0.0, 0.0, 2, waited=waited)


def test_the_median_run_counts_and_says_its_spread() -> None:
    one = median_of([run(9.0, waited=0.9), run(2.0), run(2.2)])
    assert (one.denoiser, one.runs, one.fastest, one.slowest) == (2.2, 3, 2.0, 9.0)
    assert not one.busy, "a burst that hit one run of three does no harm"
    assert median_of([run(4.0), run(9.0), run(2.0)]).busy, "the median is far from the fastest"
    assert median_of([run(2.0, waited=0.2)] * 3).busy
    assert not run(2.0).busy
    assert run(2.0, waited=0.2).busy


def test_timings_read_their_own_json_and_what_earlier_versions_wrote() -> None:
    one = median_of([run(1.0), run(2.0), replace(run(3.0), waited=0.3)])
    data = one.as_dict()
    assert Timings.from_dict(data) == one
    assert data["busy"] is one.busy is True
    old = {name: data[name] for name in ("encode", "stages", "switch", "decode")}
    assert Timings.from_dict(old).runs == 1
