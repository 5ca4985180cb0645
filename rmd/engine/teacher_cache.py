"""Teachers that were run before, on disk: for hosts where fifty steps for every visitor cannot be paid.

A cached teacher is the very output that would be computed again: it is found by everything that decides it, the
weights included. Where and when it was measured goes with it, and everything made with it says so.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image, ImageSequence, PngImagePlugin

from rmd.backbones import catalog
from rmd.checks import RequestError
from rmd.disk import write_whole
from rmd.engine.results import Done, Output, Timings
from rmd.request import GenerateRequest, teacher_key

log = logging.getLogger("rmd.teacher_cache")

CHUNK = "rmd-teacher"


class TeacherCache:
    """Outputs as PNG files (animated ones for clips) with their timings inside.

    limit: bytes that the folder may have; beyond it those go that were not used for longest.
    """

    def __init__(self, folder: Path, limit: int = 500_000_000):
        self.folder, self.limit = folder, limit

    def get(self, request: GenerateRequest) -> tuple[Output, str] | None:
        """The output and where it was measured, in words; None when it is not there or cannot be read."""
        path = self._path(request)
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                known = json.loads(picture.info[CHUNK])
                frames = tuple(frame.convert("RGB") for frame in ImageSequence.Iterator(picture))
            output = Output(frames, Timings.from_dict(known["timings"]), fps=known["fps"])
            os.utime(path)
        except (OSError, LookupError, TypeError, ValueError):
            return None
        return output, str(known["measured"])

    def put(self, done: Done) -> None:
        """Keep a teacher that was just run. A folder that cannot be written only costs the next visitor time."""
        output = done.teacher
        assert output is not None
        known = {
            "timings": asdict(output.timings),
            "fps": output.fps,
            "measured": f"{done.hardware}, {done.dtype}, on {time.strftime('%Y-%m-%d', time.gmtime())}",
        }
        info = PngImagePlugin.PngInfo()
        info.add_itxt(CHUNK, json.dumps(known))
        more: dict[str, Any] = {"save_all": True, "append_images": output.frames[1:]} if len(output.frames) > 1 else {}
        try:
            write_whole(
                self._path(done.request), lambda path: output.image.save(path, format="PNG", pnginfo=info, **more)
            )
            self._prune()
        except (RequestError, OSError) as error:
            log.warning("a teacher could not be kept: %s", error)

    def _path(self, request: GenerateRequest) -> Path:
        entry = catalog.find(request.backbone)
        weights = [
            (str(file.relative_to(entry.folder)), file.stat().st_size, file.stat().st_mtime_ns)
            for file in sorted(entry.folder.rglob("*.safetensors"))
        ]
        key = json.dumps([teacher_key(request), weights], sort_keys=True)
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.png"

    def _prune(self) -> None:
        files = sorted(self.folder.glob("*.png"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
        room = self.limit
        for file in files:
            room -= file.stat().st_size
            if room < 0:
                file.unlink(missing_ok=True)
