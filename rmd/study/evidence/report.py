"""A study's table: JSON for programs, Markdown for readers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rmd.study.evidence.bootstrap import REACH, ROUNDS, Estimate
from rmd.study.evidence.switches import table

FIGURES = {
    "fd_teacher": ("FD to teacher", "Fréchet distance of the features to the teacher's samples; less is nearer", 2),
    "fd_beyond_seeds": (
        "FD beyond seeds",
        "the same from half of the seeds to the teacher's other half, less what the teacher's own halves are apart",
        2,
    ),
    "kid_teacher": ("KID to teacher", "kernel distance to the teacher's samples, unbiased", 4),
    "fd_real": ("FD to real", "Fréchet distance to the world's own pictures of the same prompts", 2),
    "kid_real": ("KID to real", "kernel distance to the world's own pictures", 4),
    "fd_dino_teacher": ("DINOv2 FD to teacher", "Fréchet distance to the teacher's samples in DINOv2's features", 1),
    "fd_dino_real": ("DINOv2 FD to real", "the same to the world's own pictures", 1),
    "clip_score": ("CLIPScore", "how well the samples fit their prompts, 100 times CLIP's cosine", 2),
    "pick_score": ("PickScore", "the same by a CLIP that was trained on people's choices", 2),
    "precision": (
        "precision",
        "share of samples in the neighbourhood of the reference, real pictures or the teacher's",
        2,
    ),
    "recall": ("recall", "share of the reference within the samples' neighbourhood", 2),
    "diversity": ("diversity", "mean distance between seeds of one prompt, over the teacher's", 2),
    "seed_agreement": (
        "same seed",
        "1 − distance to the teacher's sample of the same seed over that between its seeds",
        2,
    ),
    "sharpness": ("sharpness", "energy of the finest details, over the teacher's", 2),
    "grain": ("grain", "the same where the picture is flat", 2),
}
"""Short name, meaning and decimals of every figure, in the table's order."""
COMPARED = ("fd_teacher", "fd_beyond_seeds", "kid_teacher", "fd_real", "kid_real", "diversity", "sharpness")


def rows_of(figures: Mapping[str, Mapping[str, Estimate]], reference: str | None) -> dict[str, dict[str, Any]]:
    """JSON-ready figures by row, and where they differ from the reference row's: the paired difference."""
    found: dict[str, dict[str, Any]] = {}
    for name, row in figures.items():
        values: dict[str, Any] = {kind: estimate_of(one) for kind, one in row.items()}
        if reference and name != reference and reference in figures:
            values["against_reference"] = {
                kind: {**estimate_of(gap), "differs": gap.differs}
                for kind in COMPARED
                if kind in row and kind in figures[reference]
                for gap in [row[kind].minus(figures[reference][kind])]
            }
        found[name] = values
    return found


def estimate_of(one: Estimate) -> dict[str, float]:
    return one.as_dict() if one.rounds else {"value": round(one.value, 6)}


def markdown(report: Mapping[str, Any]) -> str:
    """The table with what it needs to be understood."""
    rows: Mapping[str, Any] = report["rows"]
    present = [kind for kind in FIGURES if any(kind in row for row in rows.values())]
    scored = list(dict.fromkeys(kind for row in rows.values() for kind in row.get("judge", {})))
    heads = ["row", "NFE", "GFLOP", "denoiser s", "end to end s", *(FIGURES[kind][0] for kind in present), *scored]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for name, row in rows.items():
        cost = row.get("cost", {})
        cells = [name, number(cost.get("nfe"), 0), number(cost.get("gflops"), 1)]
        busy = "*" if cost.get("busy") else ""
        cells += [number(cost.get(part), 3) + busy for part in ("denoiser_s", "end_to_end_s")]
        cells += [cell(row.get(kind), FIGURES[kind][2], mark(row, kind)) for kind in present]
        cells += [number(row.get("judge", {}).get(kind), 3) for kind in scored]
        lines.append(f"| {' | '.join(cells)} |")
    words = [f"- **{FIGURES[kind][0]}**: {FIGURES[kind][1]}." for kind in present]
    return "\n".join([*lines, "", *notes(report), *words, *table(report)]) + "\n"


def notes(report: Mapping[str, Any]) -> list[str]:
    """How it was measured."""
    reference = report.get("reference")
    made = f"Made by `{report['command']}` on {report['hardware']} in {report['dtype']}, {report['date']}."
    samples = f"{report['prompts']} prompts with {report['seeds']} seeds each, the same for every row"
    reach = f"± is {REACH} standard errors of {ROUNDS} bootstrap rounds over the prompts"
    found = [
        f"{report['count']} pictures a row: {samples}. {made}",
        f"{reach}. FD depends on the number of pictures: compare within this table.",
    ]
    if reference:
        found.append(f"° marks what cannot be told from “{reference}”: the interval of the paired difference holds 0.")
    if any(row.get("cost", {}).get("busy") for row in report["rows"].values()):
        found.append("\\* timed while the machine was busy: not to be trusted.")
    return [*found, ""]


def mark(row: Mapping[str, Any], kind: str) -> str:
    gap = row.get("against_reference", {}).get(kind)
    return "°" if gap and not gap["differs"] else ""


def cell(figure: Mapping[str, float] | None, decimals: int, mark: str) -> str:
    if figure is None:
        return ""
    reach = f" ± {figure['high'] - figure['value']:.{decimals}f}" if "high" in figure else ""
    return f"{figure['value']:.{decimals}f}{reach}{mark}"


def number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"
