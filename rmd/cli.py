"""`python -m rmd COMMAND`: results on standard output, progress on standard error."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rmd.arguments import Parser, add_fleet, add_settings, add_tuning, given, parse_plans, tuning_of, values_in
from rmd.backbones import catalog, parallel
from rmd.backbones.cards import BackboneSpec, unknown_words
from rmd.backbones.command import add_models
from rmd.backbones.outline import read_outline
from rmd.checks import RequestError
from rmd.disk import ensure_writable
from rmd.engine.base import Engine
from rmd.engine.events import Loading, Progress, Timing, Waiting, Warming
from rmd.engine.files import save_output
from rmd.engine.film import Film
from rmd.engine.pool import ModelPool
from rmd.engine.results import BUSY, Done, Result
from rmd.engine.session import RUNS, Session
from rmd.engine.spread import fleet_at
from rmd.request import SETTINGS, GenerateRequest, make_request, singles
from rmd.study.bench import add_bench
from rmd.study.sweep import Cell, Point, points, reference_of, stored_cell, stored_reference, sweep, weights_time
from rmd.study.sweep_files import row, write_results

PLAN = SETTINGS["plan"]
FILM = "write the clean estimate after every step too, for the page, beside each student's file"


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def add_request(p: argparse.ArgumentParser, leave_out: Collection[str] = (), several: Collection[str] = ()) -> None:
    """What every kind of run shares; see `add_settings`."""
    add_settings(p, leave_out, several)
    p.add_argument("--json", action="store_true", help="print the whole result as one JSON object")
    add_tuning(p)


def add_generate(commands: Any) -> None:
    p = commands.add_parser("generate", help="make one picture or clip with the student and one with the teacher")
    add_request(p)
    p.add_argument("--out", type=Path, default=Path("outputs"), help="folder for student.* and teacher.* (png or mp4)")
    p.add_argument("--webp", action="store_true", help="write clips as animated WebP too")
    p.add_argument("--film", action="store_true", help=FILM)
    words = "split each result among this many processes with a GPU each, started by torchrun (Wan, FLUX.2)"
    p.add_argument("--context-parallel", type=int, default=1, metavar="N", help=words)
    p.set_defaults(run=generate)


def add_sweep(commands: Any) -> None:
    p = commands.add_parser(
        "sweep",
        help="the student over a grid of steps and switch points, with the time of each",
        description="Run the student over a grid, and the teacher once to hold it against. Cells that --out holds "
        "already with the same settings (give a --seed) are kept, so that a sweep that was interrupted goes on when "
        "the same command is given again.",
    )
    add_request(p, ("steps", "switch", "plan", "count"), ("reinjection", "eta"))
    p.add_argument("--plans", help='"all" or a list of steps/switch such as 4/2,4/1; all unless there is a --plan')
    p.add_argument("--plan", action="append", default=[], dest="several", help=f"{PLAN.help}; may be given again")
    p.add_argument("--out", type=Path, default=Path("outputs/sweep"), help="folder for the pictures and sweep.*")
    p.add_argument("--film", action="store_true", help=FILM)
    add_fleet(p)
    p.set_defaults(run=run_sweep)


def checked(args: argparse.Namespace, **more: Any) -> GenerateRequest:
    """The request the arguments ask for, its defaults taken from the backbone and its student."""
    outline = read_outline(catalog.find(args.backbone), args.student)
    request = outline.request({**given(args), **more, "backbone": outline.entry.id})
    ensure_writable(args.out)
    warn_unknown(outline.spec, request.prompt)
    for note in (*outline.notes(request), outline.off_training(request)):
        if note:
            say(f"Note: {note}")
    return request


def run_sweep(args: argparse.Namespace) -> None:
    plans = parse_plans(args.plans or "all") if args.plans or not args.several else []
    kinds, etas = args.reinjection, args.eta
    # each value is checked as a request of its own would be
    args.reinjection = args.eta = None
    request = checked(args)
    kinds, etas = values_in("reinjection", kinds, request.reinjection), values_in("eta", etas, request.eta)
    for kind in kinds:
        for eta in etas:
            make_request({**asdict(request), "reinjection": kind, "eta": eta})
    cells: dict[Point, Cell] = {}
    pictures: dict[Point, Path] = {}
    missing: list[Point] = []
    outline = read_outline(catalog.find(request.backbone), request.student)
    several = [str(outline.request({**asdict(request), "plan": plan}).plan) for plan in args.several]
    wanted = points(plans, kinds, [float(eta) for eta in etas], several)
    since = weights_time(request)
    for point in wanted:
        found = stored_cell(args.out, request, point, since)
        if found:
            cells[point], pictures[point] = found
        else:
            missing.append(point)
    if cells:
        say(f"{len(cells)} of {len(wanted)} cells are there already, from an earlier sweep with the same settings.")
    reference = stored_reference(args.out, request, since) if request.teacher else None
    alone = request.teacher and reference is None
    making = missing or wanted[:alone]  # one brings the teacher
    with engine_of(args, args.film) as engine:
        for cell in sweep(engine.generate, request, making, alone, engine.places):
            point, done = cell.point, cell.done
            taken = f"{done.student.timings.end_to_end:.3f} s" if done else cell.error
            say(f"{point.split}, {point.reinjection}, eta {point.eta:g}: {taken}")
            cells[point] = cell
            if done:
                pictures[point] = save_output(done.student, args.out, point.name, settings_of(done, "student"))[0]
                cell.film.save(pictures[point])
            if done and done.teacher:
                reference = reference_of(cell)
                save_output(done.teacher, args.out, "teacher", settings_of(done, "teacher"))
                say(f"teacher, {request.teacher_steps} steps: {done.teacher.timings.end_to_end:.3f} s")
    ordered = [cells[point] for point in wanted]
    teacher = next((path for path in args.out.glob("teacher.*") if reference), None)
    files = [str(path) for path in write_results(ordered, pictures, args.out, reference, teacher)]
    rows = [row(cell, reference) for cell in ordered]
    print(json.dumps({"cells": rows, "files": files}) if args.json else "\n".join(files))


def engine_of(args: argparse.Namespace, previews: bool) -> AbstractContextManager[Engine]:
    """Where a command's runs are computed: here, or on the fleet it names."""
    tuning = tuning_of(args)
    if args.fleet:
        say("Starting the fleet …")
        return fleet_at(args.fleet, args.replicas, previews, tuning)
    return nullcontext(Session(ModelPool(tuning=tuning), previews))


def settings_of(done: Done, role: str) -> dict[str, Any]:
    """What a result's file holds of it."""
    return {"role": role, **done.result.as_dict()}


def generate(args: argparse.Namespace) -> None:
    with parallel.joined(args.context_parallel) as first:
        request = parallel.agreed(checked(args))  # a seed may have been drawn
        session = Session(ModelPool(tuning=tuning_of(args)), previews=args.film)
        if first:
            generate_all(args, request, session)
            return
        for single in singles(request):  # its share of each call is needed
            list(session.generate(single, runs=RUNS if request.teacher else 1))


def generate_all(args: argparse.Namespace, request: GenerateRequest, session: Session) -> None:
    """Every result made, written and said."""
    results: list[dict[str, Any]] = []
    for single in singles(request):
        film = Film()
        result = run_one(session, single, film)
        stem = f"-{single.seed}" if request.count > 1 else ""
        files = saved(result, args.out, stem, args.webp)
        film.save(Path(files["student"]))
        results.append({**result.result.as_dict(), "files": files})
        if not args.json:
            print(summary(result.result, files), flush=True)
    if args.json:
        print(json.dumps(results[0] if request.count == 1 else {"results": results}))


def saved(done: Done, folder: Path, stem: str, webp: bool) -> dict[str, str]:
    """Write a result's sides as ROLE and `stem`; returns the files by role, a clip's WebP as ROLE_webp."""
    files: dict[str, str] = {}
    for role, output in done.outputs.items():
        settings = {"role": role, **done.result.as_dict()}
        first, *rest = save_output(output, folder, role + stem, settings, webp)
        files |= {role: str(first), **{f"{role}_{path.suffix[1:]}": str(path) for path in rest}}
    return files


def run_one(session: Session, request: GenerateRequest, film: Film) -> Done:
    """One result, with its progress said."""
    done = None
    for event in session.generate(request, runs=RUNS if request.teacher else 1):
        film.take(event)
        if isinstance(event, Loading):
            say(event.sentence)
        elif isinstance(event, Warming):
            say(f"warming up, {event.index} of {event.total} shapes")
        elif isinstance(event, Waiting):
            say("Waiting for the accelerator …")
        elif isinstance(event, Progress):
            say(f"{event.role} step {event.index}/{event.total} at {'×'.join(map(str, event.size))} cells")
        elif isinstance(event, Timing):
            say(f"timing the student again, {event.index} of {event.total}")
        elif isinstance(event, Done):
            done = event
    assert done is not None
    return done


def warn_unknown(spec: BackboneSpec, prompt: str) -> None:
    words = unknown_words(spec, prompt)
    if words:
        say(f"Note: {spec.name} never saw the words: {', '.join(words)}.")


def summary(result: Result, files: dict[str, str]) -> str:
    """The result for a person, a few lines."""
    lines, decoder = [f"Few-step result: {result.label}"], f"{result.request.decoder} decoder"
    for role, t in result.timings.items():
        lines.append(
            f"{role}: {t.denoiser:.3f} s denoiser, {t.end_to_end:.3f} s end to end ({decoder}), {t.nfe} NFE; "
            f"{files[role]}"
        )
    if result.speedup:
        denoiser, both = result.speedup["denoiser"], result.speedup["end_to_end"]
        lines.append(f"speed-up: {denoiser:.1f}× denoiser, {both:.1f}× end to end ({result.device}, warm-up excluded)")
    if result.busy:
        lines.append(f"{BUSY} Generate again when nothing else runs here.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 on success, 2 with one sentence for bad input, 130 when interrupted."""
    parser = Parser(prog="python -m rmd", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    add_generate(commands)
    add_sweep(commands)
    add_models(commands)
    from rmd.space.command import add_space
    from rmd.study.evaluate import add_evaluate
    from rmd.train.command import add_train

    add_train(commands)
    add_evaluate(commands)
    add_bench(commands)
    add_space(commands)
    args = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal whose code page has no × shows another sign
            stream.reconfigure(errors="replace")
    try:
        args.run(args)
        sys.stdout.flush()
    except RequestError as error:
        say(str(error))
        return 2
    except BrokenPipeError:  # the reader went away; what was made is on the disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        say("Stopped.")
        return 130
    return 0
