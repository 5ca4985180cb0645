"""`python -m rmd evaluate`: samples of teacher and student, measured with intervals, judged, as sheets and a table."""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from rmd.arguments import add_fleet, parse_plans
from rmd.backbones import catalog
from rmd.backbones.machine import describe
from rmd.backbones.outline import Outline, read_outline
from rmd.checks import RequestError, whole
from rmd.disk import ensure_writable, write_text
from rmd.engine.session import Session, dtype_name
from rmd.engine.spread import fleet_at
from rmd.request import NO_STUDENT, GenerateRequest
from rmd.study.evidence.features import Features
from rmd.study.evidence.handover import HANDOVERS
from rmd.study.evidence.hubkit import hub_kit, missing
from rmd.study.evidence.measures import NEIGHBOURS
from rmd.study.evidence.plot import forest
from rmd.study.evidence.report import markdown, rows_of
from rmd.study.evidence.rows import AGAIN, REAL, ROUND_TRIP, TEACHER, Row, method_rows, plan_rows, split, usual_rows
from rmd.study.evidence.study import Study
from rmd.study.evidence.switches import switches
from rmd.train.sheets import save_sheet

ASSETS = Path(__file__).resolve().parents[2] / "assets"
COUNT, SEEDS = (1, 100_000), (1, 64)
BATCH = {"cpu": 16, "cuda": 32, "mps": 8}
COLUMNS, SHOWN = 8, 40
PLOTS = {
    "fd_teacher": "Fréchet distance to the teacher's samples, less is nearer",
    "fd_real": "Fréchet distance to real pictures, less is nearer",
}
"""Figures that are drawn."""


def add_evaluate(commands: Any) -> None:
    """Register the command."""
    p = commands.add_parser(
        "evaluate",
        help="measure teacher and student: distances, diversity, sharpness, the judge's figures",
        description="Samples stay in --out and are gone on with, so that an interrupted or larger study, or a new "
        "measure, needs no sample twice.",
    )
    p.add_argument("--backbone", default=catalog.DEFAULT)
    p.add_argument("--student", help="as for generate; the backbone's own when left out")
    p.add_argument("--beside", nargs="+", default=[], metavar="STUDENT", help="other students to compare it with")
    p.add_argument("--plans", default="all", help='the student at "all", "none" or a list of steps/switch: 4/2,2/1')
    p.add_argument("--undistilled", default="none", help="the teacher's own weights, guided, at such plans")
    p.add_argument(
        "--methods", action="store_true", help="every way to switch, with the teacher's weights and the student's"
    )
    words = "a file, one prompt a line or, in .jsonl, its `prompt`; else the fixed ones in assets/, or with --count "
    words += "captions of the bundled world"
    p.add_argument("--prompts", type=Path, help=words)
    p.add_argument("--count", type=int, help="pictures a row; as many as there are prompts when left out")
    p.add_argument(
        "--handover",
        choices=list(HANDOVERS),
        help="also write the samples as this benchmark takes them, into OUT/BENCHMARK",
    )
    p.add_argument("--seeds", type=int, default=1, help="of each prompt; several for the diversity")
    p.add_argument("--batch", type=int, help="results in one call")
    p.add_argument("--out", type=Path, default=Path("outputs/evaluate"), help="folder for samples, figures and sheets")
    add_fleet(p)
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    plans = [] if args.plans == "none" else parse_plans(args.plans)
    free = [] if args.undistilled == "none" else parse_plans(args.undistilled)
    outline = read_outline(catalog.find(args.backbone), args.student)
    judging = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    world = World(outline, judging) if outline.spec.known_words else None
    seeds = whole("seeds", args.seeds, *SEEDS)
    prompts = prompts_of(args, world, seeds)
    if world and (strange := world.strange(prompts)):
        print(f"Note: not judged, for {strange}", file=sys.stderr)
        world = None
    ensure_writable(args.out)
    session = Session(previews=False)
    device = session.pool.device.type
    batch = whole("batch", args.batch if args.batch is not None else BATCH[device] // outline.spec.frames or 1, 1, 1024)
    draw = world.draw if world else None
    with fleet_at(args.fleet, args.replicas, previews=False) if args.fleet else nullcontext(session) as engine:
        study = Study(session, engine, outline, prompts, seeds, args.out, batch, draw)
        rows = plan_rows(plans, args.student) if outline.card else []
        rows += [row for other in args.beside for row in plan_rows(plans, other, other)]
        rows += method_rows(outline, args.student) if args.methods else []
        rows = unlike([*usual_rows(outline), *plan_rows(free, NO_STUDENT), *rows], study)
        study.make(rows)
        if args.handover:
            HANDOVERS[args.handover](study, rows, args.out / args.handover)
        if draw:
            study.make_real()
        report = measured(study, rows, world)
    report["command"] = shlex.join(["python", "-m", "rmd", *sys.argv[1:]])
    write_text(args.out / "evidence.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(args.out / "evidence.md", markdown(report))
    for kind, words in PLOTS.items():
        if picture := forest(report, kind, words):
            write_text(args.out / f"{kind.replace('_', '-')}.svg", picture)
    if world:
        quality = quality_of(study, report, world)
        write_text(args.out / "quality.json", json.dumps(quality, indent=1, ensure_ascii=False) + "\n")
    sheets(study, report["reference"], args.out)
    print(markdown(report))


def unlike(rows: list[Row], study: Study) -> list[Row]:
    """The rows without those that an earlier one is already, by another name."""
    found: dict[Any, Row] = {}
    for row in rows:
        found.setdefault((row.role, study.requests(row)[0]), row)
    return list(found.values())


class World:
    """The judge of a bundled model, and its real pictures or clips."""

    def __init__(self, outline: Outline, device: torch.device):
        from rmd.worlds import clips_judge as clips
        from rmd.worlds import emoji_judge as pictures

        self.moving = outline.spec.frames > 1
        of: Any = clips if self.moving else pictures
        self.judge: Any = of.Judge(device=device)
        self.parse: Callable[[str], Any] = of.parse_prompt
        self.on_real: Callable[[Any], dict[str, float]] = of.on_real
        side = clips.DETAIL if self.moving else pictures.DETAIL
        self.metric = {
            "object, background, words": "read off by the world's own network (rmd/worlds/emoji_judge.py)",
            **({"motion": "the nearest of the known motions, best aligned"} if self.moving else {}),
            "detail_error": f"root mean square difference to the right object at {side}×{side} px, best aligned",
        }

    def strange(self, prompts: list[str]) -> str:
        """Why the judge cannot read one of the prompts; empty where it can read them all."""
        try:
            for prompt in prompts:
                self.parse(prompt)
        except RequestError as error:
            return str(error)
        return ""

    def draw(self, prompt: str, count: int, generator: torch.Generator) -> torch.Tensor:
        """Real ones of a prompt, (B, 3, F, H, W) in [−1, 1]."""
        from rmd.worlds import alike, clips_judge

        if self.moving:
            return clips_judge.pictures(prompt, count, generator, self.judge.sprites)
        return alike.pictures(prompt, count, generator, self.judge.sprites)[:, :, None]

    def asked_for(self, count: int) -> list[str]:
        """Captions of the world."""
        from rmd.worlds import alike, clips_judge

        return (clips_judge if self.moving else alike).asked_for(count, 2)


def prompts_of(args: argparse.Namespace, world: World | None, seeds: int) -> list[str]:
    """The prompts of a study; RequestError for a file that cannot be read, and for counts that do not fit."""
    count = None if args.count is None else whole("count", args.count, *COUNT)
    if count is not None and count % seeds:
        raise RequestError(f"count must be a multiple of seeds, {seeds}, not {count}.")
    if count is not None and args.prompts is None and world:
        return world.asked_for(count // seeds)
    source = args.prompts or ASSETS / ("prompts_video.txt" if world and world.moving else "prompts.txt")
    try:
        prompts = [line.strip() for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
        if source.suffix == ".jsonl":
            prompts = [str(json.loads(line)["prompt"]).strip() for line in prompts]
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RequestError(f"{source} cannot be read: {words}.") from error
    except (ValueError, LookupError, TypeError) as error:
        words = 'every line of a .jsonl file must be JSON with a "prompt"'
        raise RequestError(f"{source} cannot be read: {words}.") from error
    wanted = len(prompts) if count is None else count // seeds
    if not prompts or wanted > len(prompts):
        raise RequestError(f"{source} holds {len(prompts)} prompts; {wanted} are needed for --count with --seeds.")
    return prompts[:wanted]


def measured(study: Study, rows: list[Row], world: World | None) -> dict[str, Any]:
    """The report: every row's settings, cost, figures and scores."""
    usual: GenerateRequest = study.requests(Row("", "student", {}))[0]
    reference = next((r.name for r in rows if is_default(r, usual) and r.changes.get("student") != NO_STUDENT), None)
    figures: dict[str, dict[str, Any]] = {name: {} for name in study.stores}
    try:
        if study.count <= NEIGHBOURS:
            raise RequestError(f"Distances need more than {NEIGHBOURS} pictures a row, not {study.count}.")
        network = Features(study.session.pool.device)
    except RequestError as error:
        print(f"Note: {error}", file=sys.stderr)
    else:
        if words := missing():
            print(f"Note: {words}", file=sys.stderr)
        figures = rows_of(study.measured(network, hub_kit(study.session.pool.device)), reference)
    for row in rows:
        figures[row.name] |= {"made_by": study.described(row), "cost": study.cost(row)}
    if world:
        for name in tqdm(figures, desc="judge", unit="row", file=sys.stderr):
            figures[name]["judge"] = study.scores(name, world.judge)
    order = [REAL, AGAIN, ROUND_TRIP, *(row.name for row in rows)]
    backbone = study.loaded(usual).teacher
    report = {
        "backbone": study.outline.entry.id,
        "count": study.count,
        "prompts": len(study.prompts),
        "seeds": study.seeds,
        "reference": reference,
        "hardware": describe(str(backbone.device)),
        "dtype": dtype_name(backbone),
        "date": datetime.date.today().isoformat(),
        "detail": round(study.detail(), 4),
        "edge_power": round(study.edge_power(), 4),
        "rows": {name: figures[name] for name in order if name in figures},
    }
    return report | {"switches": switches(report, study.outline)}


def is_default(row: Row, usual: GenerateRequest) -> bool:
    """Whether a row is the student at its own default plan, nothing else changed."""
    own = {name: value for name, value in row.changes.items() if name != "student"}
    return row.role == "student" and all(getattr(usual, name) == value for name, value in own.items())


def quality_of(study: Study, report: dict[str, Any], world: World) -> dict[str, Any]:
    """What the model cards and the page's map take of a report."""

    def figures(name: str) -> dict[str, Any]:
        row = report["rows"][name]
        distances = {kind: round(row[kind]["value"], 4) for kind in ("fd_teacher", "fd_real") if kind in row}
        return {**row["judge"], **distances}

    teacher = report["rows"][TEACHER]["made_by"]
    rows = [(name, row["made_by"]) for name, row in report["rows"].items() if "made_by" in row]
    free = next(name for name, _ in rows if name.startswith("not distilled"))
    plain = [(name, made) for name, made in rows if re.fullmatch(r"student, \d+\+\d+", name)]
    return {
        "prompts": len(study.prompts),
        "detail": report["detail"],
        "teacher": {"steps": teacher["teacher_steps"], "guidance": teacher["guidance"], **figures(TEACHER)},
        "cascade_not_distilled": {**plan_of(dict(rows)[free]), **figures(free)},
        "student": [{**plan_of(made), **figures(name)} for name, made in plain],
        "metric": {**world.metric, "on_real": world.on_real(world.judge)},
    }


def plan_of(made: dict[str, Any]) -> dict[str, int]:
    return {"steps": made["steps"], "switch": made["switch"]}


def sheets(study: Study, reference: str | None, folder: Path) -> None:
    """A contact sheet of every row: each prompt's first seed at half the size, or strips of every third frame.

    Those of the default plan lie beside the figures, for the model's cards.
    """
    plan = study.outline.defaults()
    numbers = range(0, study.count, study.seeds)
    for name, store in study.stores.items():
        pixels = study.pixels(name, numbers[: SHOWN if study.frames == 1 else 24])
        path = folder / "sheets" / f"{store.folder.name}.png"
        path.parent.mkdir(exist_ok=True)
        usual = {TEACHER: "teacher", reference: "student"}.get(name)
        usual = usual or ("cascade-not-distilled" if name == f"not distilled, {split(plan)}" else None)
        if pixels.shape[2] == 1:
            save_sheet(torch.nn.functional.avg_pool2d(pixels[:, :, 0], 2), path, COLUMNS)
        else:
            strips = pixels[:, :, ::3].transpose(1, 2)
            save_sheet(strips.flatten(0, 1), path, strips.shape[1])
        if usual:
            shutil.copyfile(path, folder / f"{usual}.png")
