"""A row's figures with their intervals, from what is known of all rows' samples; the report says what each means."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from rmd.study.evidence import measures
from rmd.study.evidence.bootstrap import Estimate, draws, of_means, of_sets
from rmd.study.evidence.rows import REAL, TEACHER


@dataclass(frozen=True)
class Known:
    """What the samples of all rows, prompt by prompt with `seeds` each, were found to be.

    features: (N, D) by row. octaves: sharpness and grain (prompts,) by row. made: the rows that a model made, whose
    seeds begin with the same noise.
    """

    features: dict[str, Tensor]
    octaves: dict[str, dict[str, Tensor]]
    seeds: int
    made: Collection[str]

    @cached_property
    def rounds(self) -> list[Tensor]:
        return draws(len(self.features[TEACHER]) // self.seeds)

    @cached_property
    def own(self) -> Estimate:
        """How far the teacher is from itself across its seeds."""
        return self.across_seeds(TEACHER)

    def figures(self, name: str) -> dict[str, Estimate]:
        """One row's figures."""
        found = dict[str, Estimate]()
        for target, short in ((TEACHER, "teacher"), (REAL, "real")):
            if target in self.features and name != target:
                a, b = self.features[name], self.features[target]
                found[f"fd_{short}"] = self.of_sets(lambda i, a=a, b=b: measures.frechet(a[i], b[i]))
                found[f"kid_{short}"] = self.of_sets(lambda i, a=a, b=b: measures.kernel_distance(a[i], b[i]))
                if short == "real" or REAL not in self.features:
                    found["precision"], found["recall"] = (  # of other prompts in the same neighbourhoods
                        self.of_means(by_prompt(inside, self.seeds)) for inside in measures.precision_recall(b, a)
                    )
        if self.seeds > 1:
            found |= self.of_seeds(name)
        for kind, values in self.octaves[name].items():
            found[kind] = self.of_means(values).over(self.of_means(self.octaves[TEACHER][kind]))
        return found

    def of_seeds(self, name: str) -> dict[str, Estimate]:
        """What takes several seeds of a prompt to tell."""
        found = dict[str, Estimate]()
        if name != TEACHER:
            found["fd_beyond_seeds"] = self.across_seeds(name).minus(self.own)
        spread = self.of_means(measures.spread(self.features[TEACHER], self.seeds))
        found["diversity"] = self.of_means(measures.spread(self.features[name], self.seeds)).over(spread)
        if name in self.made and name != TEACHER:
            far = self.of_means(by_prompt(measures.apart(self.features[name], self.features[TEACHER]), self.seeds))
            found["seed_agreement"] = Estimate(1.0, (1.0,) * len(self.rounds)).minus(far.over(spread))
        return found

    def across_seeds(self, name: str) -> Estimate:
        """`measures.across_seeds` of a row and the teacher."""
        a, b = (self.features[one].unflatten(0, (-1, self.seeds)) for one in (name, TEACHER))
        return of_sets(lambda i: measures.across_seeds(a[i], b[i]), 1, self.rounds)

    def of_sets(self, measure: Callable[[Tensor], float]) -> Estimate:
        return of_sets(measure, self.seeds, self.rounds)

    def of_means(self, values: Tensor) -> Estimate:
        return of_means(values, self.rounds)


def by_prompt(values: Tensor, seeds: int) -> Tensor:
    """The means over each prompt's seeds of one figure a sample."""
    return values.unflatten(0, (-1, seeds)).mean(dim=1)
