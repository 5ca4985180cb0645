"""`python -m rmd train latents` and `train pretrain`: pictures or clips, and a teacher that has learnt them."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch._dynamo.exc import BackendCompilerFailed

from rmd.backbones import catalog
from rmd.backbones.loading import open_backbone
from rmd.backbones.machine import describe
from rmd.checks import RequestError
from rmd.disk import ensure_writable
from rmd.train.command_distill import check_world, claim, filled, opened, refuse_other, sizes_of, source_of, world_of
from rmd.train.examples import read_examples
from rmd.train.latents import encode
from rmd.train.pretrain import train
from rmd.train.settings import Common, Pretraining, read_recipe
from rmd.train.together import Together


def latents(args: argparse.Namespace, device: torch.device) -> Path:
    """Encode a folder with a backbone's autoencoder; returns the folder of latents."""
    settings = filled(args, Common())
    entry = catalog.find(settings.backbone)
    sizes = sizes_of(entry, settings)
    examples = read_examples(args.pictures, clips=sizes["frames"] > 1)
    catalog.check_there(entry)
    ensure_writable(args.out)
    backbone = open_backbone(entry.folder, entry.id, device, None, entry.spec)
    backbone.spec = replace(backbone.spec, **sizes)
    try:
        encode(backbone, examples, args.out)
    except ValueError as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"backbone: {error}.") from error
    return args.out


def pretrain(args: argparse.Namespace, device: torch.device) -> Path:
    """Check everything that can be checked before anything loads, then train; returns the teacher's folder."""
    plain = Pretraining(rate=1e-5)  # for whole networks that have learnt already; a LoRA takes 1e-4
    settings = filled(args, read_recipe(args.recipe, plain) if args.recipe else plain)
    entry = catalog.find(settings.backbone)
    if args.out is None:
        raise RequestError("out is missing; give the run's folder with --out.")
    if not settings.latents and world_of(entry, settings) is None:
        raise RequestError(f"latents is missing; {entry.name} needs --latents, a folder that `train latents` wrote.")
    sizes = sizes_of(entry, settings)
    check_world(entry, settings, sizes)
    if settings.still_share and sizes["frames"] == 1:
        raise RequestError(f"still_share must be 0 for {entry.name}, which makes pictures, not {settings.still_share}.")
    together = Together(device, settings.tracker, args.out)
    if together.first:
        refuse_other(args.out, settings)
    together.wait()
    backbone = opened(entry, settings, together.device)
    backbone.spec = replace(backbone.spec, **sizes)
    source = source_of(entry, backbone, settings, None)
    claim(args.out, settings, together)
    try:
        return train(backbone, source, settings, args.out, together)
    except BackendCompilerFailed as error:  # PyTorch 2.13 writes C++ for UNets in bf16 that no compiler takes
        raise RequestError(
            f"compile must be no here, not {settings.compile}: this PyTorch cannot compile {entry.name} for "
            f"{describe(str(together.device))}."
        ) from error
