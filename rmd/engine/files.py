"""Files of finished runs: PNG for pictures, MP4 (and WebP) for clips, all with their settings inside.

An MP4 is H.264 in yuv420p with its index in front ("faststart"), which every browser plays while it loads. The
settings are JSON: in a PNG's text chunk "rmd", in an MP4's comment, in a WebP's EXIF user comment.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image, PngImagePlugin

from rmd.checks import RequestError
from rmd.disk import write_whole
from rmd.engine.results import Output

QUALITY = 14  # x264's constant rate factor: well below what the eye tells from the frames themselves
USER_COMMENT = 0x9286  # the EXIF tag
HOSTILE = (Image.DecompressionBombError, RecursionError)
"""What a stranger's file raises that claims to be huge, or whose settings are nested without end."""
LARGEST_BOX = 2**20  # of an MP4's comment; ours hold a few kilobytes


def save_output(output: Output, folder: Path, stem: str, settings: dict[str, Any], webp: bool = False) -> list[Path]:
    """Write a run's picture or clip as STEM.png or STEM.mp4, a clip with `webp` as STEM.webp too; returns the paths.

    Raises RequestError when the folder cannot be written or the disk is full; no file is left half-written.
    """
    if len(output.frames) == 1:
        path = folder / f"{stem}.png"
        save_png(output.image, path, settings)
        return [path]
    paths = [folder / f"{stem}.mp4"]
    save_mp4(output.frames, output.fps, paths[0], settings)
    if webp:
        paths.append(folder / f"{stem}.webp")
        save_webp(output.frames, output.fps, paths[1], settings)
    return paths


def save_mp4(frames: Sequence[Image.Image], fps: int, path: Path, settings: dict[str, Any]) -> None:
    """Write a clip for browsers. frames: RGB, all of one size with even sides (yuv420p halves the colours)."""
    # only clips need it
    from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter  # pyright: ignore[reportMissingTypeStubs]

    width, height = frames[0].size
    if width % 2 or height % 2:
        raise ValueError(f"a clip's sides must be even, not {width}×{height}")
    # Untagged colours are guessed by the picture's height; these say what they are. Moviepy asks for a format with
    # transparency, which x264 has not: ffmpeg then takes the nearest it has, yuv420p.
    colours = ["-vf", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p", "-colorspace", "bt709"]
    colours += ["-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
    about = ["-metadata", f"comment={json.dumps(settings, ensure_ascii=False)}", "-movflags", "+faststart"]
    parameters = ["-crf", str(QUALITY), *colours, *about, "-f", "mp4"]

    def write(temporary: Path) -> None:
        try:
            writer: Any = FFMPEG_VideoWriter(str(temporary), (width, height), fps, ffmpeg_params=parameters)
            with writer:
                for frame in frames:
                    writer.write_frame(np.asarray(frame.convert("RGB")))
        except OSError as error:
            raise OSError(str(error).strip().splitlines()[-1].rstrip(".")) from error
        try:  # the writer does not tell when the end of the file could not be written
            mp4_comment(temporary)
        except (OSError, LookupError, ValueError, struct.error) as error:
            raise OSError("the file is incomplete; is the disk full?") from error

    write_whole(path, write)


def save_webp(frames: Sequence[Image.Image], fps: int, path: Path, settings: dict[str, Any]) -> None:
    """Write a clip as an endlessly repeated animation, for places that show pictures only."""
    exif = Image.Exif()
    exif[USER_COMMENT] = b"UNICODE\0" + json.dumps(settings).encode("utf-16-be")
    first, *rest = frames
    # WebP counts in whole milliseconds; the ends of the frames are rounded, so that the whole keeps its length
    ends = [round(1000 * i / fps) for i in range(len(frames) + 1)]
    lengths = [b - a for a, b in pairwise(ends)]
    write_whole(
        path,
        lambda temporary: first.save(
            temporary, "WEBP", save_all=True, append_images=rest, duration=lengths, loop=0, quality=90, exif=exif
        ),
    )


def first_frame(path: Path) -> Image.Image:
    """A picture, or the first one of a clip; raises RequestError for a damaged file."""
    try:
        if path.suffix.lower() != ".mp4":
            with Image.open(path, formats=["PNG", "WEBP"]) as picture:
                return picture.convert("RGB")
        from moviepy import VideoFileClip  # pyright: ignore[reportMissingTypeStubs]  # only clips need it

        clip: Any = VideoFileClip(str(path), audio=False)
        with clip:
            return Image.fromarray(clip.get_frame(0))
    except (OSError, KeyError, ValueError, *HOSTILE) as error:
        raise RequestError(f"{path.name} cannot be read.") from error


def read_settings(path: Path) -> dict[str, Any]:
    """The settings inside a file that this project wrote; raises RequestError when there are none."""
    try:
        data: Any = json.loads(mp4_comment(path) if path.suffix.lower() == ".mp4" else picture_comment(path))
    except (OSError, LookupError, TypeError, ValueError, struct.error, *HOSTILE) as error:
        raise RequestError(f"{path.name} holds no settings of ours.") from error
    if not isinstance(data, dict):
        raise RequestError(f"{path.name} holds no settings of ours.")
    return cast("dict[str, Any]", data)


def picture_comment(path: Path) -> str:
    with Image.open(path, formats=["PNG", "WEBP"]) as picture:
        if picture.format == "PNG":
            return picture.info["rmd"]
        comment = picture.getexif()[USER_COMMENT]
        return comment.removeprefix(b"UNICODE\0").decode("utf-16-be")


def mp4_comment(path: Path) -> str:
    """The text of moov/udta/meta/ilst/©cmt/data. Read by hand: a stranger's file needs no decoder for this."""
    with path.open("rb") as file:
        start, end = 0, path.stat().st_size
        for name in (b"moov", b"udta", b"meta", b"ilst", b"\xa9cmt", b"data"):
            start, end = next(span for kind, *span in boxes(file, start, end) if kind == name)
            start += 4 if name == b"meta" else 8 if name == b"data" else 0  # version and flags; type and locale
        if end - start > LARGEST_BOX:
            raise ValueError("too long for a comment")
        file.seek(start)
        return file.read(end - start).decode()


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[Any, ...]]:
    """(kind, start, end) of the contents of every MP4 box between two positions; LookupError when none is left."""
    while start + 8 <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if size == 1:
            size, header = struct.unpack(">Q", file.read(8))[0], 16
        size = size or end - start
        if size < header:
            break
        yield kind, start + header, min(start + size, end)
        start += size
    raise LookupError("no such box")


def save_png(image: Image.Image, path: Path, settings: dict[str, Any]) -> None:
    """Write a PNG with the settings as a text chunk named "rmd"; all of it or nothing.

    Raises RequestError when the folder cannot be written or the disk is full.
    """
    info = PngImagePlugin.PngInfo()
    info.add_itxt("rmd", json.dumps(settings, ensure_ascii=False))
    write_whole(path, lambda temporary: image.save(temporary, format="PNG", pnginfo=info))
