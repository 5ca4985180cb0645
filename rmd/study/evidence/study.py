"""A study: every row's samples made or found, measured and compared, each on the same prompts and seeds."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from rmd.backbones import catalog
from rmd.backbones.outline import Outline, read_outline
from rmd.disk import write_text, write_whole
from rmd.engine.base import Engine
from rmd.engine.plans import plan_for
from rmd.engine.pool import Loaded
from rmd.engine.results import Done, Timings
from rmd.engine.session import RUNS, Session
from rmd.method.denoiser import Denoiser
from rmd.method.transition import edge_power, lost_detail
from rmd.request import GenerateRequest
from rmd.study.evidence import measures
from rmd.study.evidence.bootstrap import Estimate
from rmd.study.evidence.figures import Known, by_prompt
from rmd.study.evidence.hubkit import HubKit
from rmd.study.evidence.rows import AGAIN, REAL, ROUND_TRIP, TEACHER, Row
from rmd.study.evidence.samples import Store, about, made_with, weights_digest
from rmd.train.sheets import to_image

T = TypeVar("T")
SEED = 1234
CHUNK = 40
"""Pictures that are read and measured at once."""


class Judge(Protocol):
    """What knows how a prompt of the bundled models should look: figures for (B, 3, *S) in [−1, 1], one per prompt.

    files: what it is made of, its weights and its world's code.
    """

    files: Sequence[Path]

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> dict[str, float]: ...


Draw = Callable[[str, int, torch.Generator], Tensor]
"""Real pictures or clips (B, 3, F, H, W) in [−1, 1] of a prompt."""


@dataclass
class Study:
    """What all rows share. prompts: each with `seeds` seeds, SEED and the next ones, every sample its own.

    engine: makes the samples and is timed; the session, or a fleet. session: here, for what looks into the networks.
    batch: results in one call. draw: where the world's real pictures come from; None where there are none.
    """

    session: Session
    engine: Engine
    outline: Outline
    prompts: Sequence[str]
    seeds: int
    folder: Path
    batch: int
    draw: Draw | None = None

    @property
    def count(self) -> int:
        """Samples of a row."""
        return len(self.prompts) * self.seeds

    @property
    def frames(self) -> int:
        return self.outline.spec.frames

    @cached_property
    def items(self) -> list[tuple[str, int]]:
        """Prompt and seed of every sample, prompt by prompt."""
        return [(self.prompts[i // self.seeds], SEED + i) for i in range(self.count)]

    @property
    def chunks(self) -> list[range]:
        """All samples' numbers, some at a time."""
        return [range(i, min(i + CHUNK, self.count)) for i in range(0, self.count, CHUNK)]

    @cached_property
    def stores(self) -> dict[str, Store]:
        """By the rows' names, those that were made."""
        return {}

    def requests(self, row: Row) -> list[GenerateRequest]:
        """A row's requests, filled with the defaults of its own student."""
        outline = read_outline(catalog.find(self.outline.entry.id), row.changes.get("student"))
        values = {"backbone": self.outline.entry.id, "teacher": row.role == "teacher", **row.changes}
        first = outline.request({**values, "prompt": self.items[0][0], "seed": SEED})
        return [replace(first, prompt=prompt, seed=seed) for prompt, seed in self.items]

    def loaded(self, request: GenerateRequest) -> Loaded:
        return self.session.pool.acquire(request.backbone, request.student, request.decoder)

    def make(self, rows: Sequence[Row]) -> None:
        """Sample what is missing of the rows, those of the same weights together."""
        with tqdm(total=self.count * len(rows), unit="picture", file=sys.stderr) as bar:
            for row in sorted(rows, key=lambda row: str(row.changes.get("student"))):
                requests = self.requests(row)
                bar.set_description(row.name)
                made_of = about(requests[0], row.role, self.weights(row))
                store, left = Store(self.folder / "samples" / row.slug, made_of, self.items), self.count
                make, latents = functools.partial(self.sampled, row), row.role == "teacher"
                for made in store.fill(requests, make, self.batch, latents, self.engine.places):
                    bar.update(made)
                    left -= made
                bar.update(left)
                self.stores[row.name] = store

    def sampled(self, row: Row, requests: Sequence[GenerateRequest]) -> Any:
        return self.engine.sample(requests, row.role)

    def weights(self, row: Row) -> str:
        """The digest of the weights that make a row's pictures."""
        outline = read_outline(catalog.find(self.outline.entry.id), row.changes.get("student"))
        folder = catalog.student_folder(outline.entry, row.changes.get("student")) if row.role == "student" else None
        return made_with(outline.entry.folder, folder)

    def make_real(self) -> None:
        """The world's own pictures of the prompts, twice, and once through the autoencoder."""
        assert self.draw is not None
        for number, name in enumerate((REAL, AGAIN)):
            store = Store(self.folder / "samples" / Row(name, "data").slug, {"draw": number}, self.items)
            for index, prompt in enumerate(self.prompts):
                g = torch.Generator().manual_seed(SEED + 2 * index + number)
                if not store.path((index + 1) * self.seeds - 1).is_file():
                    for seed, clip in enumerate(self.draw(prompt, self.seeds, g)):
                        store.put(index * self.seeds + seed, images(clip))
            self.stores[name] = store
        backbone: Any = self.loaded(self.requests(Row("", "teacher", {"student": "none"}))[0]).teacher
        if hasattr(backbone.pipe.vae, "encoder"):
            self.round_trip(backbone)

    @torch.inference_mode()
    def round_trip(self, backbone: Any) -> None:
        """What the autoencoder alone makes of real pictures: the best that any network on its latents can reach."""
        store = Store(self.folder / "samples" / Row(ROUND_TRIP, "data").slug, {}, self.items)
        for start in range(0, self.count, CHUNK):
            stop = min(start + CHUNK, self.count)
            if not store.path(stop - 1).is_file():
                pixels = self.stores[REAL].read(start, stop, self.frames)
                again = backbone.pixels(backbone.latents(pixels if self.frames > 1 else pixels[:, :, 0])).cpu()
                for index, made in enumerate(again, start=start):
                    store.put(index, images(made if made.ndim == 4 else made[:, None]))
        self.stores[ROUND_TRIP] = store

    def pixels(self, name: str, indices: Sequence[int]) -> Tensor:
        """(B, 3, F, H, W) in [−1, 1]."""
        return torch.cat([self.stores[name].read(i, i + 1, self.frames) for i in indices])

    def features(self, name: str, network: Callable[[Tensor], Tensor], kind: str = "features") -> Tensor:
        """(N, D) of a row, kept beside its samples by kind."""
        return self.kept(name, kind, lambda part: network(self.pixels(name, part)))

    def kept(self, name: str, kind: str, measure: Callable[[range], Tensor]) -> Tensor:
        """What a measure says of a row's samples, (N, …): asked once, then read from beside them."""
        file = self.stores[name].folder / f"{kind}.safetensors"
        found = load_file(file)[kind] if file.is_file() else None
        if found is None or len(found) < self.count:  # the study grew
            found = torch.cat([measure(part) for part in self.chunks]).contiguous()
            write_whole(file, lambda path: save_file({kind: found}, path))
        return found[: self.count]

    def fits(self, name: str, kit: HubKit) -> dict[str, Tensor]:
        """How well a row's samples fit their prompts, (N,) by measure."""
        words = [prompt for prompt, _ in self.items]
        return {
            kind: self.kept(
                name, kind, lambda part, fit=fit: fit(self.pixels(name, part), words[part.start : part.stop])
            )
            for kind, fit in kit.fits.items()
        }

    def octaves(self, name: str) -> dict[str, Tensor]:
        """Sharpness and grain of a row, averaged over each prompt's seeds."""
        parts = [measures.octave(self.pixels(name, part)) for part in self.chunks]
        both = (by_prompt(torch.cat(one), self.seeds) for one in zip(*parts, strict=True))
        return dict(zip(("sharpness", "grain"), both, strict=True))

    def scores(self, name: str, judge: Judge) -> dict[str, float]:
        """The judge's figures of every prompt's first seed, asked once and kept beside the samples."""
        asked = [weights_digest(*judge.files), len(self.prompts), self.seeds]
        file = self.stores[name].folder / "judge.json"
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if kept.get("asked") != asked:
            pixels = self.pixels(name, range(0, self.count, self.seeds))
            figures = judge.score(pixels if self.frames > 1 else pixels[:, :, 0], self.prompts)
            kept = {"asked": asked, "figures": figures}
            write_text(file, json.dumps(kept, indent=1) + "\n")
        return kept["figures"]

    def detail(self) -> float:
        """Mean square of what the low size cannot hold of the teacher's latents (`transition.lost_detail`)."""
        return lost_detail(self.stores[TEACHER].latents(self.count), self.outline.latent_size(self.outline.spec.low))

    def edge_power(self) -> float:
        """Power of the teacher's latents at the highest frequency of the low size (`transition.edge_power`)."""
        return edge_power(self.stores[TEACHER].latents(self.count), self.outline.latent_size(self.outline.spec.low))

    def measured(self, network: Callable[[Tensor], Tensor], kit: HubKit) -> dict[str, dict[str, Estimate]]:
        """Every row's figures with their intervals; see `FIGURES` in the report for what they are.

        Rows are measured beside one another, each on one thread: all threads on each small operation are slower.
        """
        with ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)) as pool:

            def all_rows(work: Callable[[str], T], words: str) -> dict[str, T]:
                names = list(self.stores)
                return dict(zip(names, tqdm(pool.map(work, names), words, len(names), file=sys.stderr), strict=True))

            features = all_rows(lambda name: self.features(name, network), "features")
            dino = {name: self.features(name, kit.dino, "dino") for name in self.stores} if kit.dino else {}
            fits = {name: self.fits(name, kit) for name in self.stores}
            octaves = all_rows(self.octaves, "sharpness")
            made = [name for name in self.stores if name not in (REAL, AGAIN, ROUND_TRIP)]
            known = Known(features, octaves, self.seeds, made)
            found = all_rows(known.figures, "distances")
        for name, figures in found.items():
            figures |= {kind: known.of_means(by_prompt(each, self.seeds)) for kind, each in fits[name].items()}
            for target, short in ((TEACHER, "teacher"), (REAL, "real")):
                if target in dino and name != target:
                    a, b = dino[name], dino[target]
                    figures[f"fd_dino_{short}"] = known.of_sets(lambda i, a=a, b=b: measures.frechet(a[i], b[i]))
        return found

    @torch.inference_mode()
    def cost(self, row: Row) -> dict[str, Any]:
        """What one result of a row takes: network evaluations, 10⁹ operations of the network, seconds of one alone."""
        request = self.requests(row)[0]
        loaded = self.loaded(request)
        fast = loaded.student or loaded.teacher
        plan = plan_for(request, fast, loaded.card)
        guidance = request.guidance if row.role == "teacher" or not loaded.card else loaded.card.guidance
        stages = (
            [(plan.size, request.teacher_steps)]
            if row.role == "teacher"
            else [(s.size, len(s.times)) for s in plan.stages]
        )
        prompt, operations = loaded.teacher.encode([request.prompt]), 0.0
        backbone = loaded.teacher if row.role == "teacher" else fast
        for size, steps in stages:
            if steps:
                with FlopCounterMode(display=False) as counter:
                    x = torch.zeros(1, backbone.channels, *size, device=backbone.device)
                    Denoiser(backbone, prompt, prompt, guidance)(x, 0.5)
                operations += steps * counter.get_total_flops()
        done = next(e for e in self.engine.generate(request, runs=RUNS) if isinstance(e, Done))
        output = done.teacher if row.role == "teacher" else done.student
        assert output is not None
        return {"nfe": output.timings.nfe, "gflops": round(operations / 1e9, 2), **seconds(output.timings)}

    def described(self, row: Row) -> dict[str, Any]:
        """What made a row, so that a reader can make it again."""
        settings = asdict(self.requests(row)[0])
        kept = ("steps", "switch", "plan", "size", "low", "reinjection", "eta", "mapping", "upsampler", "guidance")
        own = ("teacher_steps", "guidance", "size") if row.role == "teacher" else kept
        return {"role": row.role, "weights": self.weights(row), **{name: settings[name] for name in own}}


def images(clip: Tensor) -> tuple[Image.Image, ...]:
    """The frames of (3, F, H, W) in [−1, 1]."""
    return tuple(to_image(frame) for frame in clip.unbind(dim=1))


def seconds(timings: Timings) -> dict[str, Any]:
    return {
        "denoiser_s": round(timings.denoiser, 4),
        "end_to_end_s": round(timings.end_to_end, 4),
        "busy": timings.busy,
    }
