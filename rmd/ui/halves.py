"""Students that are finished while their teachers still run: what Stop keeps of a comparison."""

from __future__ import annotations

from rmd.engine.film import Film
from rmd.engine.results import Done
from rmd.serve.runner import Runner, Saved

Half = tuple[Done, Film, list[Saved]]
"""A finished student, its film, and what the same run finished before it."""


class Halves:
    """By visitor. Whoever takes a half first, Stop or the run's own end, has it alone; what was kept can be asked for
    once more."""

    def __init__(self, runner: Runner):
        self.runner = runner
        self._halves: dict[str, Half | list[Saved]] = {}

    def note(self, visitor: str, half: Half) -> None:
        """A student is done."""
        self._halves[visitor] = half

    def forget(self, visitor: str) -> None:
        """Another run begins, or this one is complete."""
        self._halves.pop(visitor, None)

    def known(self, visitor: str) -> bool:
        """Whether there is or was something to keep."""
        return visitor in self._halves

    def take(self, visitor: str) -> Half | None:
        """The half, once."""
        half = self._halves.get(visitor)
        if not isinstance(half, tuple):
            return None
        self._halves[visitor] = []
        return half

    def keep(self, visitor: str, half: Half) -> list[Saved]:
        """Save what was taken; all that its run finished, the student last."""
        done, film, finished = half
        kept = self._halves[visitor] = [*finished, self.runner.save(done, film)]
        return kept

    def kept(self, visitor: str) -> list[Saved]:
        """What was kept, once: of a later run that ends before it begins, in the queue, it would be an old result."""
        kept = self._halves.get(visitor)
        if not isinstance(kept, list) or not kept:
            return []
        self.forget(visitor)
        return kept
