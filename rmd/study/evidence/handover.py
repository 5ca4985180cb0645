"""A study's samples as other benchmarks take them: GenEval 2's list of files, VBench's names of clips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rmd.checks import RequestError
from rmd.disk import write_text
from rmd.engine.files import save_mp4
from rmd.study.evidence.rows import Row
from rmd.study.evidence.study import Study
from rmd.train.sheets import to_image

LONGEST = 180
"""Characters of a prompt in a file's name, with room for what comes behind it."""


def geneval2(study: Study, rows: Sequence[Row], folder: Path) -> None:
    """FOLDER/ROW.json: each prompt's first sample, as `--image_filepath_data` of GenEval 2 (arXiv 2512.16853).

    RequestError for clips.
    """
    if study.frames > 1:
        raise RequestError("handover geneval2 takes pictures; this model makes clips. vbench takes those.")
    for row in rows:
        store = study.stores[row.name]
        paths = {prompt: str(store.path(i * study.seeds).resolve()) for i, prompt in enumerate(study.prompts)}
        text = json.dumps(paths, indent=1, ensure_ascii=False) + "\n"
        write_text(folder / f"{row.slug}.json", text)


def vbench(study: Study, rows: Sequence[Row], folder: Path) -> None:
    """FOLDER/ROW/PROMPT-INDEX.mp4 of every seed (VBench, arXiv 2311.17982, has five of a prompt).

    RequestError, before anything is written, for pictures and for prompts that are no file's name.
    """
    if study.frames == 1:
        raise RequestError("handover vbench takes clips; this model makes pictures. geneval2 takes those.")
    for prompt in study.prompts:
        if "/" in prompt or "\0" in prompt or len(prompt.encode()) > LONGEST:
            raise RequestError(f"vbench names files by prompts of at most {LONGEST} bytes without /, not {prompt!r}.")
    for row in rows:
        place = folder / row.slug
        place.mkdir(parents=True, exist_ok=True)
        for number, (prompt, _) in enumerate(study.items):
            clip = study.pixels(row.name, [number])[0].transpose(0, 1)
            frames = [to_image(frame) for frame in clip]
            save_mp4(frames, study.outline.spec.fps, place / f"{prompt}-{number % study.seeds}.mp4", {})


HANDOVERS = {"geneval2": geneval2, "vbench": vbench}
