"""`python -m rmd bench`: teacher and student plans timed side by side in one process.

Every repeat runs all plans and the teacher once, in turn, so that a machine that slows down slows all of them. One
round before the first counts for nothing (on top of the session's own warm-up). Medians and ranges are given. With
--peers diffusers' own few-step samplers run in the same rounds, on the same weights.

With random weights the backbone is the catalog's architecture at full size, and its student the same network without
guidance: the times are those of the published weights, which need not be downloaded for that.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rmd.arguments import add_settings, add_tuning, parse_plans, tuning_of
from rmd.backbones import catalog
from rmd.backbones.cards import BackboneSpec
from rmd.backbones.machine import peak_gb
from rmd.backbones.outline import read_outline
from rmd.backbones.peers import few_steps, peer_names
from rmd.backbones.random_weights import NOTE, RandomWeights
from rmd.checks import RequestError, whole
from rmd.disk import ensure_writable, write_text
from rmd.engine.plans import plan_for
from rmd.engine.pool import ModelPool
from rmd.engine.results import Done, Output, StageTiming, Timings
from rmd.engine.session import Session
from rmd.engine.stopwatch import Stopwatch
from rmd.method.plan import ratio
from rmd.request import SETTINGS, GenerateRequest, make_request

PROMPT, SEED = "a fox on a light blue background", 0


def add_bench(commands: Any) -> None:
    """Register the command."""
    p = commands.add_parser("bench", help="time teacher and student plans side by side")
    p.set_defaults(prompt=PROMPT)
    add_settings(p, set(SETTINGS) - {"backbone", "student", "prompt", "teacher_steps", "decoder"})
    p.add_argument(
        "--weights", choices=("stored", "random"), default="stored",
        help="random: a catalog backbone's architecture at full size, for its times; nothing is downloaded",
    )  # fmt: skip
    p.add_argument("--plans", default="4/2,2/1,6/3,4/0", help='"all" or a list of steps/switch')
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument(
        "--peers", action="store_true",
        help="the same network by diffusers' own few-step samplers too, with as many steps as the first plan",
    )  # fmt: skip
    p.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    add_tuning(p)
    p.add_argument("--out", type=Path, help="write the JSON object to this file too; the app's map reads assets/bench/")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    repeats, plans = whole("repeats", args.repeats, 1, 1000), parse_plans(args.plans)
    pool = ModelPool(tuning=tuning_of(args), weights=RandomWeights() if args.weights == "random" else None)
    request, spec = asked(args)
    if args.out:
        ensure_writable(args.out.parent)
    report = measure(Session(pool, previews=False), request, plans, repeats, args.peers)
    report |= {"weights": args.weights, **pool.tuning.as_dict(), "peak_memory_gb": peak_gb(pool.device)}
    if args.weights == "random":
        report["student"] = NOTE
    if request.teacher_steps != spec.teacher_steps:
        report["extrapolated"] = extrapolated(report, spec.teacher_steps)
    if args.out:
        words = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
        write_text(args.out, words)
    print(json.dumps(report) if args.json else table(report))


def asked(args: argparse.Namespace) -> tuple[GenerateRequest, BackboneSpec]:
    """The request that all plans share, and what its backbone's defaults are."""
    values = {"backbone": args.backbone, "prompt": args.prompt, "seed": SEED, "decoder": args.decoder}
    values |= {"teacher_steps": args.teacher_steps}
    entry = catalog.find(args.backbone)
    if args.weights == "stored":
        outline = read_outline(entry, args.student)
        return outline.request({**values, "student": args.student}), outline.spec
    if args.student:
        raise RequestError("--student is for stored weights; with random ones it is the same network unguided.")
    if entry.spec is None:
        raise RequestError(f"--weights random is for the catalog's published backbones, not for {entry.id}.")
    own = {"teacher_steps": entry.spec.teacher_steps, "guidance": entry.spec.guidance}
    return make_request(own | {name: value for name, value in values.items() if value is not None}), entry.spec


def extrapolated(report: dict[str, Any], steps: int) -> dict[str, Any]:
    """What the denoiser's speed-ups would be with a teacher of `steps` steps that are as fast as those timed."""
    scale = steps / report["teacher_steps"]
    gains = {name: row["speedup"]["denoiser"] * scale for name, row in report["rows"].items() if name != "teacher"}
    return {"teacher_steps": steps, "denoiser_speedup_not_measured": gains}


def measure(
    session: Session, request: GenerateRequest, plans: list[tuple[int, int]], repeats: int, peers: bool = False
) -> dict[str, Any]:
    """Medians and ranges in seconds per part, and the speed-ups of the medians."""
    outputs: dict[str, list[Output]] = {"teacher": []}
    done = None
    for turn in range(repeats + 1):
        for number, (steps, switch) in enumerate(plans):
            one = replace(request, steps=steps, switch=switch, teacher=number == 0)
            done = next(event for event in session.generate(one) if isinstance(event, Done))
            if turn:  # the first round is warm-up
                outputs.setdefault(f"{steps}/{switch}", []).append(done.student)
                if done.teacher:
                    outputs["teacher"].append(done.teacher)
        for name, output in (
            run_peers(session, replace(request, steps=plans[0][0], switch=plans[0][1])) if peers else ()
        ):
            if turn:
                outputs.setdefault(name, []).append(output)
    assert done is not None
    rows = {name: row(runs) for name, runs in outputs.items()}
    slow = rows["teacher"]
    for fast in rows.values():
        fast["speedup"] = {part: slow[part]["median"] / fast[part]["median"] for part in ("denoiser", "end_to_end")}
    return {
        "backbone": request.backbone,
        "student": done.result.label,
        "teacher_steps": request.teacher_steps,
        "guidance": request.guidance,
        "decoder": request.decoder,
        "repeats": repeats,
        "device": done.device,
        "dtype": done.dtype,
        "hardware": done.hardware,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "rows": rows,
    }


@torch.inference_mode()
def run_peers(session: Session, request: GenerateRequest) -> list[tuple[str, Output]]:
    """diffusers' own few-step samplers on the student's network, timed by the same parts: name and outcome of each."""
    loaded = session.pool.acquire(request.backbone, request.student, request.decoder)
    backbone: Any = loaded.teacher
    network = (loaded.student or loaded.teacher).network
    plan = plan_for(request, loaded.student or loaded.teacher, loaded.card)
    found = []
    for name, scaled in peer_names(backbone).items():
        if scaled and not 0 < plan.switch < plan.steps:
            continue
        low, growth = plan.stages[0].size, ratio(plan.stages[0].size, plan.size)
        scales = [1.0] * (plan.switch - 1) + [growth] * (plan.steps - plan.switch) if scaled else []
        shape, watches = (1, backbone.channels, *(low if scaled else plan.size)), []
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(request.seed or 0)).to(backbone.device)

        def timed(work: Callable[[], Any], watches: list[Stopwatch] = watches) -> Any:
            watches.append(Stopwatch(session.pool.device))
            watches[-1].start()
            result = work()
            watches[-1].stop()
            return result

        prompt = timed(lambda: backbone.encode([request.prompt]))
        x0 = timed(lambda p=prompt, n=noise, s=scales: few_steps(backbone, network, p, n, plan.steps, s))
        frames = timed(lambda x=x0: backbone.decode(x, loaded.decoder)[0])
        encode, calls, decode = (watch.seconds for watch in watches)
        stages = (StageTiming(plan.size, plan.steps, calls),)
        waited = max(watch.waited for watch in watches)
        timings = Timings(encode, stages, 0.0, decode, plan.steps, waited=waited)
        words = f"{plan.switch} + {plan.steps - plan.switch}" if scaled else f"{plan.steps}"
        found.append((f"{name} {words}", Output(frames, timings)))
    return found


def row(runs: list[Output]) -> dict[str, Any]:
    """Per part of the run: median, least and most seconds."""
    parts = {
        "encode": [o.timings.encode for o in runs],
        "switch": [o.timings.switch for o in runs],
        "decode": [o.timings.decode for o in runs],
        "denoiser": [o.timings.denoiser for o in runs],
        "end_to_end": [o.timings.end_to_end for o in runs],
    }
    for number, stage in enumerate(runs[0].timings.stages):
        name = f"stage {'×'.join(map(str, stage.size))}"
        parts[name] = [o.timings.stages[number].seconds for o in runs]
    spread = {k: {"median": statistics.median(v), "min": min(v), "max": max(v)} for k, v in parts.items()}
    return {"nfe": runs[0].timings.nfe, **spread}


def table(report: dict[str, Any]) -> str:
    """The report for a person."""
    how = f"on {report['device']}, {report['dtype']}, {report['threads']} threads"
    compiled = "compiled" if report["compile"] else "not compiled"
    networks = f"{report['decoder']} decoder, attention {report['attention']}, {compiled}"
    wide = max(8, *(len(name) for name in report["rows"]))
    lines = [
        f"{report['backbone']} ({report['student']}) {how}; medians of {report['repeats']} rounds, warm-up excluded",
        f"teacher {report['teacher_steps']} steps; {networks}; peak memory {report['peak_memory_gb']:.2f} GB",
        f"{'plan':>{wide}} {'NFE':>4} {'denoiser s':>11} {'end to end s':>13} {'denoiser ×':>11} {'end to end ×':>13}",
    ]
    for name, one in report["rows"].items():
        lines.append(
            f"{name:>{wide}} {one['nfe']:>4} {one['denoiser']['median']:>11.3f} {one['end_to_end']['median']:>13.3f} "
            f"{one['speedup']['denoiser']:>11.1f} {one['speedup']['end_to_end']:>13.1f}"
        )
    if more := report.get("extrapolated"):
        gains = ", ".join(f"{name} {gain:.1f}×" for name, gain in more["denoiser_speedup_not_measured"].items())
        lines.append(f"extrapolated to {more['teacher_steps']} teacher steps, not measured: denoiser {gains}")
    return "\n".join(lines)
