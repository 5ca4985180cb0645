"""Clips as files: what a browser can play, with the settings inside, whole or not there at all."""

from __future__ import annotations

import re
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
import torch
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image, ImageStat

from rmd.checks import RequestError
from rmd.engine.files import first_frame, read_settings, save_mp4, save_output, save_webp
from rmd.engine.results import Output, StageTiming, Timings
from tests.engine.test_results import small_files

SETTINGS = {"role": "student", "request": {"prompt": 'un renard 🦊 = 1; # \\ "x"\nzwei', "seed": 7}}
TIMINGS = Timings(0.1, (StageTiming((2, 4, 4), 1, 0.1),), 0.0, 0.1, 1)
COLOURS = [(200, 30, 40), (20, 180, 60), (30, 60, 220), (240, 240, 240), (128, 128, 128)]


def clip(side: int = 64) -> tuple[Image.Image, ...]:
    return tuple(Image.new("RGB", (side, side // 2), colour) for colour in COLOURS)


def noisy() -> tuple[Image.Image, ...]:
    """A clip that does not compress."""
    pixels = torch.randint(256, (6, 128, 128, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return tuple(Image.fromarray(frame.numpy()) for frame in pixels)


def probe(path: Path) -> str:
    return subprocess.run([get_ffmpeg_exe(), "-i", str(path)], capture_output=True, text=True).stderr


def decoded(path: Path, size: tuple[int, int]) -> list[Image.Image]:
    command = [get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    step = size[0] * size[1] * 3
    return [Image.frombytes("RGB", size, raw[i : i + step]) for i in range(0, len(raw), step)]


def test_an_mp4_is_what_browsers_play(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.mp4"
    save_mp4(clip(), 8, path, SETTINGS)
    about = probe(path)
    assert re.search(r"Video: h264 .*yuv420p\(tv, bt709", about), about
    assert "64x32" in about
    assert "8 fps" in about
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # faststart
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]


def test_an_mp4_shows_its_frames_in_their_colours(tmp_path: Path) -> None:
    save_mp4(clip(), 8, tmp_path / "a.mp4", {})
    frames = decoded(tmp_path / "a.mp4", (64, 32))
    assert len(frames) == len(COLOURS)
    for frame, colour in zip(frames, COLOURS, strict=True):
        assert ImageStat.Stat(frame).mean == pytest.approx(colour, abs=4)


@pytest.mark.parametrize("kind", ["mp4", "webp", "png"])
def test_settings_come_back(tmp_path: Path, kind: str) -> None:
    frames = clip()[:1] if kind == "png" else clip()
    paths = save_output(Output(frames, TIMINGS, 8), tmp_path, "student", SETTINGS, webp=True)
    path = next(p for p in paths if p.suffix == f".{kind}")
    assert read_settings(path) == SETTINGS


def test_a_webp_repeats_and_keeps_its_length(tmp_path: Path) -> None:
    save_webp(clip(), 7, tmp_path / "a.webp", {})
    with Image.open(tmp_path / "a.webp") as picture:
        assert picture.n_frames == len(COLOURS)  # type: ignore[attr-defined]
        assert picture.info["loop"] == 0
        total = 0
        for i in range(len(COLOURS)):
            picture.seek(i)
            picture.load()
            total += picture.info["duration"]
    assert total == round(1000 * len(COLOURS) / 7)


def test_a_picture_is_one_png_and_a_clip_one_mp4(tmp_path: Path) -> None:
    save_output(Output(clip()[:1], TIMINGS), tmp_path / "picture", "student", {}, webp=True)
    save_output(Output(clip(), TIMINGS), tmp_path / "clip", "student", {})
    assert [p.name for p in (tmp_path / "picture").iterdir()] == ["student.png"]
    assert [p.name for p in (tmp_path / "clip").iterdir()] == ["student.mp4"]


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("kind", ["mp4", "webp"])
def test_no_room_for_the_whole_clip(tmp_path: Path, kind: str, existing: bool) -> None:
    path = tmp_path / f"a.{kind}"
    if existing:
        path.write_text("old")
    save = save_mp4 if kind == "mp4" else save_webp
    with small_files(20_000), pytest.raises(RequestError, match=rf"a\.{kind} cannot be written: ") as caught:
        save(noisy(), 8, path, {})
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ([path.name] if existing else [])
    assert not existing or path.read_text() == "old"


def test_odd_sides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sides must be even, not 63×31"):
        save_mp4(clip(63), 8, tmp_path / "a.mp4", {})


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def commented(text: bytes) -> bytes:
    """A film of nothing but a comment."""
    comment = box(b"\xa9cmt", box(b"data", bytes(8) + text))
    return box(b"moov", box(b"udta", box(b"meta", bytes(4) + box(b"ilst", comment))))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"not a film", struct.pack(">I4s", 4, b"moov"), struct.pack(">I4s", 1, b"moov"),
        struct.pack(">I4sQ", 1, b"moov", 2**60), box(b"moov", box(b"udta", b"")), box(b"moov", b"")[:-1] * 9,
        commented(b"{"), commented(b"[1]"), commented(b"\xff"), commented(b" " * 2**21),
    ],
    ids=range(11),
)  # fmt: skip
def test_a_strangers_file_is_refused_in_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "strange.mp4"
    path.write_bytes(data)
    with pytest.raises(RequestError, match=r"strange\.mp4 holds no settings of ours"):
        read_settings(path)


def test_a_comment_by_hand_is_read(tmp_path: Path) -> None:
    (tmp_path / "hand.mp4").write_bytes(box(b"free", b"123") + commented(b'{"seed": 1}'))
    assert read_settings(tmp_path / "hand.mp4") == {"seed": 1}


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(side: int, text: bytes) -> bytes:
    """A picture of nothing that claims `side`² pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rest = chunk(b"iTXt", b"rmd" + bytes(5) + text) + chunk(b"IDAT", zlib.compress(bytes(200))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + rest


@pytest.mark.parametrize(
    "data", [png(60_000, b"{}"), png(8, b"[" * 200_000 + b"]" * 200_000)], ids=["60,000 px", "nested without end"]
)
def test_a_hostile_picture_is_refused_in_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "strange.png"
    path.write_bytes(data)
    with pytest.raises(RequestError, match=r"strange\.png holds no settings of ours"):
        read_settings(path)


def test_a_picture_that_claims_to_be_huge_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "strange.png"
    path.write_bytes(png(60_000, b"{}"))
    with pytest.raises(RequestError, match=r"strange\.png cannot be read"):
        first_frame(path)
