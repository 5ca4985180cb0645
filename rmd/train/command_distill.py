"""`python -m rmd train distill`: from arguments to a backbone, a source of prompts and a run."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from rmd.backbones import catalog
from rmd.backbones.base import Backbone
from rmd.backbones.loading import open_backbone, whole
from rmd.backbones.machine import describe, free_gb
from rmd.backbones.outline import read_outline
from rmd.backbones.random_weights import RandomWeights
from rmd.checks import RequestError, size_of
from rmd.checks import whole as whole_number
from rmd.disk import ensure_writable, write_text
from rmd.train.bundled import OUT, WORLD
from rmd.train.distill import train
from rmd.train.export import SETTINGS_FILE
from rmd.train.latents import Latents
from rmd.train.loop import STATE
from rmd.train.memory import check_room, needed, parameters
from rmd.train.overhead import measure
from rmd.train.settings import Common, Kinds, Settings, assignments, changed, read_recipe
from rmd.train.source import PromptFile, Source
from rmd.train.together import Together
from rmd.train.world import World, check_fit

FREE = {"steps", "minutes", "sheet_every", "save_minutes", "tracker", "compile"}
"""What may change when a run goes on."""
ARGUMENTS = ("backbone", "prompts", "latents", "lora", "size", "low", "frames", "steps", "minutes")


def settings_of(args: argparse.Namespace) -> Settings:
    """The recipe, then the arguments, then what --set says."""
    recipe = args.recipe or ("emoji-sdxl" if args.backbone is None else None)
    return filled(args, read_recipe(recipe, Settings()) if recipe else Settings())


def filled(args: argparse.Namespace, settings: Kinds) -> Kinds:
    """What the arguments and --set say, over settings."""
    given = {name: getattr(args, name) for name in ARGUMENTS if getattr(args, name, None) is not None}
    return changed(settings, {**given, **assignments(args.set)})


def run(args: argparse.Namespace, device: torch.device) -> Path:
    """Check everything that can be checked before anything loads, then distil; returns the student's folder."""
    settings = settings_of(args)
    entry = catalog.find(settings.backbone)
    out = args.out or (args.runs / OUT[entry.id] if entry.id in OUT else None)
    if out is None:
        raise RequestError("out is missing; give the run's folder with --out.")
    prompts = PromptFile(Path(settings.prompts)) if settings.prompts else None
    check_source(entry, settings)
    if args.student is not None and settings.lora is not None:
        raise RequestError("student and lora cannot be used together; a LoRA begins at the teacher.")
    sizes = sizes_of(entry, settings)
    check_world(entry, settings, sizes)
    together = Together(device, settings.tracker, out)
    if device.type == "cuda":
        memory = needed(parameters(entry), settings, device, together.count)
        check_room(memory, free_gb(together.device), settings, entry.name)
    if together.first:
        refuse_other(out, settings)
    together.wait()
    backbone = opened(entry, settings, together.device)
    backbone.spec = replace(backbone.spec, **sizes)
    source = source_of(entry, backbone, settings, prompts)
    claim(out, settings, together)
    return train(backbone, source, settings, out, args.student, together)


def check_source(entry: catalog.Entry, settings: Settings) -> None:
    """Raise RequestError where nothing says what a backbone is to draw."""
    if not settings.prompts and not settings.latents and world_of(entry, settings) is None:
        raise RequestError(f"prompts is missing; {entry.name} needs --prompts, a text file with a prompt per line.")
    if settings.gan_weight and not settings.latents and (settings.prompts or world_of(entry, settings) is None):
        raise RequestError("latents is missing; gan_weight needs real ones: give --latents (`train latents`).")


def sizes_of(entry: catalog.Entry, settings: Common) -> dict[str, Any]:
    """The sizes and frames of a run as a spec has them, checked as a request's are."""
    wanted = {name: getattr(settings, name) for name in ("size", "low", "frames")}
    request = read_outline(entry, None).request({"prompt": "a", **wanted})
    return {"high": size_of(str(request.size)), "low": size_of(str(request.low)), "frames": request.frames}


def source_of(entry: catalog.Entry, backbone: Backbone, settings: Common, prompts: PromptFile | None) -> Source:
    """What a run learns from: latents with captions, a file of prompts, or a bundled world."""
    if settings.latents:
        return Latents(Path(settings.latents), backbone, prompts.lines if prompts else None)
    name = world_of(entry, settings)
    assert prompts is not None or name is not None  # see `check_source`
    return prompts or World(str(name), backbone, settings.seed)


def check_world(entry: catalog.Entry, settings: Common, sizes: dict[str, Any]) -> None:
    """RequestError where the world that is learnt from is not of the backbone's kind."""
    name = world_of(entry, settings)
    if name is not None and not settings.latents and not getattr(settings, "prompts", None):
        check_fit(name, entry.name, sizes["high"], sizes["frames"])


def world_of(entry: catalog.Entry, settings: Common) -> str | None:
    """The bundled world that a run learns from where nothing else is given."""
    return settings.world or WORLD.get(entry.id)


def overhead(args: argparse.Namespace, device: torch.device) -> str:
    """What some iterations (--steps, 5 by default) cost in time and memory, in a line of text."""
    settings = settings_of(args)
    entry = catalog.find(settings.backbone)
    prompts = PromptFile(Path(settings.prompts)) if settings.prompts else None
    check_source(entry, settings)
    if args.weights == "random":
        backbone = whole(RandomWeights().backbone(entry, device))
    else:
        backbone = opened(entry, settings, device)
    cost = measure(backbone, source_of(entry, backbone, settings, prompts), settings, args.steps or 5)
    each, inside = cost.seconds / cost.iterations, cost.inside / cost.iterations
    return (
        f"{entry.name}, batch {settings.batch}×{settings.accumulate}: {each:.3g} s an iteration, {inside:.3g} s of it "
        f"in networks, backward passes and optimisers; {cost.around:.1%} around them; {cost.memory:.3g} GB at most "
        f"({describe(str(device))})"
    )


def plan(args: argparse.Namespace, device: torch.device) -> str:
    """What a run would hold in memory, and whether that fits, in lines of text."""
    settings, _ = settings_of(args), whole_number("devices", args.devices, 1, 100_000)
    entry = catalog.find(settings.backbone)
    count = parameters(entry)
    memory = needed(count, settings, device, args.devices)
    free = args.memory or free_gb(device)
    lines = [f"{name:42} {size:7.2f} GB" for name, size in memory.parts.items()]
    fits = f"of {free:.1f} GB: {free - memory.total:.1f} GB are left for activations, text encoders and decoder"
    try:
        check_room(memory, free, settings, entry.name)
    except RequestError as error:
        fits = str(error)
    return "\n".join([f"{entry.name}, {count / 1e9:.3g} billion weights", *lines, f"{memory.total:.2f} GB {fits}"])


def opened(entry: catalog.Entry, settings: Common, device: torch.device) -> Backbone:
    """The backbone, in fp32 where all of it is trained: its copies for computing are made from that. Where it is shared
    out, one device need not hold it in fp32."""
    catalog.check_there(entry)
    dtype = torch.float32 if settings.lora is None and settings.shard == "no" else None
    return open_backbone(entry.folder, entry.id, device, dtype, entry.spec)


def refuse_other(out: Path, settings: Common) -> None:
    """RequestError for a folder that holds another run or something else, or cannot be written to."""
    file, mine = out / SETTINGS_FILE, asdict(settings)
    if file.is_file():
        plain = {one.name: one.default for one in fields(settings)}  # of settings that came after the run
        theirs = plain | json.loads(file.read_text())
        other = [name for name in mine if name not in FREE and mine[name] != theirs[name]]
        if other:
            name = other[0]
            raise RequestError(
                f"out: {out} holds a run with {name} {theirs[name]!r}, not {mine[name]!r}; give the same settings "
                "to go on with it, or another folder."
            )
    elif any((out / name).exists() for name in (STATE, "student", "teacher")):
        raise RequestError(f"out: {out} holds another run, without its settings; give another folder.")
    ensure_writable(out)


def claim(out: Path, settings: Common, together: Together) -> None:
    """Make the folder this run's own, once nothing more can be refused."""
    if together.first:
        text = json.dumps(asdict(settings), indent=1) + "\n"
        write_text(out / SETTINGS_FILE, text)
    together.wait()
