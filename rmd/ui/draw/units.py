"""Counts, sizes, times and factors as words."""

from __future__ import annotations


def count(steps: int) -> str:
    return "1 step" if steps == 1 else f"{steps} steps"


def size(pixels: tuple[int, int]) -> str:
    return f"{pixels[1]}×{pixels[0]}"


def duration(seconds: float) -> str:
    """Seconds with a sensible number of digits."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.00095 else f"{seconds * 1000:.1g} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"


def times(value: float) -> str:
    return f"{value:.0f}×" if value >= 20 else f"{value:.1f}×"
