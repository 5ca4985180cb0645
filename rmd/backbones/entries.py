"""A row of catalog.json as what the rest of the program knows of a backbone, its published students and its decoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rmd.backbones import hub
from rmd.backbones.cards import BackboneSpec, StudentSpec
from rmd.backbones.folders import spec_from
from rmd.backbones.naming import publish
from rmd.method.schedule import FlowSchedule

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
DECODER_FILES = ("config.json", "diffusion_pytorch_model.safetensors")


def downloaded(repo: str, name: str, revision: str = "main") -> Path | None:
    """The folder of a repository's files on this machine, called by `name` in messages from now on, or None."""
    folder = hub.cached(repo, revision)
    if folder:
        publish(folder, name)
    return folder


@dataclass(frozen=True)
class Published:
    """Few-step weights on the Hub, made by others: run in the cascade as they are."""

    id: str
    repo: str
    card: StudentSpec
    patterns: tuple[str, ...]
    file: str | None
    """The one file, or None for a folder."""

    @property
    def path(self) -> Path | None:
        """Where they are on this machine, or None."""
        folder = downloaded(self.repo, self.card.name)
        found = folder / self.file if folder and self.file else folder
        return found if found and found.exists() else None


@dataclass(frozen=True)
class TinyDecoder:
    """A small decoder for a backbone's latents (diffusers' `AutoencoderTiny`): fast, a little less exact."""

    id: str
    name: str
    licence: str
    repo: str

    @property
    def path(self) -> Path | None:
        """Its folder, when all of it is on this machine."""
        folder = downloaded(self.repo, self.name)
        return folder if folder and all((folder / name).exists() for name in DECODER_FILES) else None


@dataclass(frozen=True)
class Hub:
    """Where a backbone comes from. Sizes are approximate, in GB (10⁹ bytes)."""

    repo: str
    revision: str
    pipeline: str
    """The pipeline's class in diffusers."""
    gated: bool
    download_gb: float
    memory_gb: float
    """Accelerator memory (or RAM on a CPU) to run it with everything resident."""
    offloaded_gb: float
    """The same with what is not in use kept in the machine's own memory."""
    allow: tuple[str, ...]
    ignore: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A backbone offered by id, with its teacher's and its student's folder.

    spec: what is known without the folder's own card; bundled and local folders have none here.
    """

    id: str
    name: str
    folder: Path
    student: Path
    licence: str = ""
    spec: BackboneSpec | None = None
    hub: Hub | None = None
    students: tuple[Published, ...] = ()
    decoder: TinyDecoder | None = None


def entry_from(row: dict[str, Any]) -> Entry:
    """An entry from a row of catalog.json."""
    key, name = row["id"], row["name"]
    student = CHECKPOINTS / f"{key}-student"
    if row.get("bundled"):
        return Entry(key, name, CHECKPOINTS / key, student, row["licence"])
    spec = spec_from({**row["spec"], "name": name, "licence": row["licence"]}, key)
    small = [
        f"{part}/{kind}"
        for part in row["components"]
        for kind in ("*.json", "*.txt", "*.jinja", "*.model", row["weights"])
    ]
    source = Hub(
        row["repo"], row["revision"], row["class"], row["gated"],
        row["download_gb"], row["memory_gb"], row["offloaded_gb"],
        ("model_index.json", *small), tuple(row.get("leave", ())),
    )  # fmt: skip
    published = tuple(published_from(one, name, spec.shift) for one in row["students"])
    decoder = TinyDecoder(**row["decoder"]) if "decoder" in row else None
    return Entry(key, name, hub.cache_folder(source.repo), student, row["licence"], spec, source, published, decoder)


def own_times(row: dict[str, Any], shift: float | None) -> tuple[float, ...]:
    """A student's times from what its makers give: `timesteps` of SDXL's table of 1,000, or a flow's `sigmas`."""
    if "timesteps" in row:
        return tuple(min((step + 1) / 1000, 1.0) for step in row["timesteps"])
    sigma = torch.tensor(row.get("sigmas", ()), dtype=torch.float64)
    times = FlowSchedule(row.get("shift") or shift or 1.0).time_at(torch.log(sigma) - torch.log1p(-sigma))
    return tuple(times.tolist())


def published_from(row: dict[str, Any], base: str, shift: float | None) -> Published:
    """A student option from its row in catalog.json. base, shift: its backbone's name and timestep shift."""
    if row.get("network"):
        patterns, file = ("transformer/*.json", "transformer/*.safetensors"), None
    elif row.get("peft"):
        patterns, file = ("adapter_config.json", "adapter_model.safetensors", "*.safetensors"), None
    else:
        patterns, file = (row["file"],), row["file"]
    card = StudentSpec(
        name=row["name"], base_model=base, licence=row["licence"], default_steps=row["steps"],
        default_switch=row["switch"], eta=row.get("eta", 0.0), reinjection=row.get("reinjection", "band"),
        training=f"By the authors of {row['repo']}; not trained further for the cascade.", quality={},
        origin="published", guidance=row.get("guidance", 1.0), shift=row.get("shift"),
        times=own_times(row, shift), scales=tuple(row.get("scales", ())), mapping="none",
        upsampler=row.get("upsampler", "bilinear"), lora_scale=row.get("lora_scale", 1.0),
        told_full=row.get("told_full", False),
    )  # fmt: skip
    return Published(row["id"], row["repo"], card, patterns, file)
