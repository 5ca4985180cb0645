"""`python -m rmd evaluate`: contact sheets and quality figures of a bundled backbone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rmd.arguments import parse_plans
from rmd.backbones import catalog
from rmd.backbones.outline import read_outline
from rmd.checks import RequestError
from rmd.disk import ensure_writable, write_whole
from rmd.engine.session import Session

ASSETS = Path(__file__).resolve().parents[2] / "assets"


def add_evaluate(commands: Any) -> None:
    """Register the command."""
    p = commands.add_parser("evaluate", help="measure teacher and student on the fixed prompts")
    p.add_argument("--backbone", default=catalog.DEFAULT)
    p.add_argument("--student", help="folder of student weights instead of the backbone's own")
    p.add_argument("--plans", default="all", help='"all" or a list of steps/switch such as 4/2,2/1')
    p.add_argument("--prompts", type=Path, help="one prompt a line instead of the fixed ones in assets/")
    p.add_argument("--data", type=Path, default=Path("data"), help="where the video stages put the animations")
    p.add_argument("--out", type=Path, default=Path("outputs/evaluate"), help="folder for quality.json and the sheets")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from rmd.study.quality import evaluate
    from rmd.worlds import clips_judge as motion
    from rmd.worlds import emoji_judge as pictures

    plans = parse_plans(args.plans)
    outline = read_outline(catalog.find(args.backbone), args.student)
    moving = outline.spec.frames > 1
    source = args.prompts or ASSETS / ("prompts_video.txt" if moving else "prompts.txt")
    try:
        prompts = [line.strip() for line in source.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise RequestError(f"{source} cannot be read: {error.strerror}.") from error
    ensure_writable(args.out)
    if moving:
        judge = motion.ClipTemplates(args.data)
        metric = {
            "object, motion": "nearest of the known objects in the known motions, frame by frame at 32×32 px",
            "detail_error": "root mean square difference to the right clip at 64×64 px",
            "on_real": motion.on_real(judge),
        }
    else:
        judge = pictures.Judge()
        metric = {
            "object, background, words": "read off the picture by the world's own network (rmd/worlds/emoji_judge.py)",
            "detail_error": "root mean square difference to the right object at 128×128 px, best aligned",
            "on_real": pictures.on_real(judge),
        }
    session = Session(previews=False)
    result = {**evaluate(session, outline, args.student, prompts, plans, judge, args.out), "metric": metric}
    text = json.dumps(result, indent=1) + "\n"
    write_whole(args.out / "quality.json", lambda path: path.write_text(text))
    print(text)
