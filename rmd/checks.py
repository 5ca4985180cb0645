"""Bad input in one sentence: the kinds of values there are, each with its range, and the errors everything raises."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


class RequestError(ValueError):
    """Bad input or an unusable file; the message is a sentence for the person who sent it."""


class Cancelled(Exception):
    """The request was stopped by its owner."""


@dataclass(frozen=True)
class Whole:
    """A whole number in [low, high]. at_most: an earlier setting of the request that bounds it further."""

    low: int
    high: int
    at_most: str = ""

    def check(self, name: str, value: Any) -> int:
        """value as an int; raises RequestError naming the field, the value and the range."""
        return whole(name, value, self.low, self.high)

    def parse(self, text: str) -> Any:
        """The number that a text stands for; the text itself where it is none, for `check` to refuse by name."""
        return int(text) if re.fullmatch(r"-?\d{1,12}", text) else text

    @property
    def allowed(self) -> str:
        """The range in words."""
        return f"{self.low} to {self.at_most or self.high}"


@dataclass(frozen=True)
class Real:
    """A number in [low, high]. step: of its slider."""

    low: float
    high: float
    step: float = 0.1

    def check(self, name: str, value: Any) -> float:
        """value as a float; raises RequestError naming the field, the value and the range."""
        return real(name, value, self.low, self.high)

    def parse(self, text: str) -> Any:
        """As `Whole.parse`."""
        return float(text) if re.fullmatch(r"-?\d{1,6}(\.\d{1,9})?", text) else text

    @property
    def allowed(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Choice:
    """One of a few names. labels: what each means, as a person reads it; none where the name says it."""

    options: tuple[str, ...]
    labels: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> str:
        """value itself; raises RequestError naming the field, the value and the options."""
        return choice(name, value, self.options)

    def parse(self, text: str) -> Any:
        return text

    @property
    def allowed(self) -> str:
        return ", ".join(self.options)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(label, value) of every option."""
        return list(zip(self.labels or self.options, self.options, strict=True))


@dataclass(frozen=True)
class Text:
    """Plain text of at most `longest` characters. advice: what to write, in the message about an empty one."""

    longest: int
    empty: bool = False
    advice: str = ""

    def check(self, name: str, value: Any) -> str:
        """value with its spaces tidied; raises RequestError for what is no text, empty or too long."""
        if not isinstance(value, str):
            raise RequestError(f"{name} must be text, not {abbreviated(value)}.")
        if not self.empty and not value.strip():
            raise RequestError(f"{name} is empty{'; ' if self.advice else ''}{self.advice}.")
        if len(value) > self.longest:
            raise RequestError(f"{name} has {len(value)} characters; at most {self.longest} are allowed.")
        if any(ord(c) < 32 and c not in "\t\n\r" for c in value) or any(0xD800 <= ord(c) < 0xE000 for c in value):
            raise RequestError(f"{name} holds control characters; please use plain text.")
        return " ".join(value.split())

    def parse(self, text: str) -> Any:
        return text

    @property
    def allowed(self) -> str:
        return f"at most {self.longest:,} characters"


SIZE = re.compile(r"\s*(\d{1,6})\s*[xX×*]\s*(\d{1,6})\s*")


@dataclass(frozen=True)
class Size:
    """Width and height in pixels as text, such as "832x480". Which sizes fit is the backbone's to say."""

    longest: int

    def check(self, name: str, value: Any) -> str:
        """value with an x between its two numbers; raises RequestError for anything else."""
        match = SIZE.fullmatch(value) if isinstance(value, str) else None
        if not match or not all(1 <= int(side) <= self.longest for side in match.groups()):
            raise RequestError(f"{name} must be {self.allowed}, not {abbreviated(value)}.")
        return "x".join(str(int(side)) for side in match.groups())

    def parse(self, text: str) -> Any:
        return text

    @property
    def allowed(self) -> str:
        return f"WIDTHxHEIGHT in pixels, each 1 to {self.longest}, such as 832x480"


@dataclass(frozen=True)
class Truth:
    """Yes or no."""

    def check(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise RequestError(f"{name} must be true or false, not {abbreviated(value)}.")
        return value

    def parse(self, text: str) -> Any:
        return {"true": True, "false": False}.get(text.lower(), text)

    @property
    def allowed(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Stages:
    """Sizes with the steps at each as text, smallest first, such as "96x96:1,144x144:1,192x192:2".

    most: steps in all. The last size may have none: then the result is only enlarged to it.
    """

    size: Size
    most: int

    def check(self, name: str, value: Any) -> str:
        """value without its spaces; raises RequestError naming the field, the value and what is allowed."""
        stages: list[tuple[str, int]] = []
        for part in value.split(",") if isinstance(value, str) else [""]:
            size, _, steps = part.partition(":")
            if not re.fullmatch(r"\s*\d{1,2}\s*", steps):
                raise RequestError(f"{name} must be {self.allowed}, not {abbreviated(value)}.")
            stages.append((self.size.check(f"{name}: a size", size), int(steps)))
        counts = [steps for _, steps in stages]
        if not 1 <= sum(counts) <= self.most or 0 in counts[:-1]:
            raise RequestError(f"{name} must be {self.allowed}, not {abbreviated(value)}.")
        sizes = [size_of(size) for size, _ in stages]
        for small, large in pairwise(sizes):
            if small == large or small[0] > large[0] or small[1] > large[1]:
                raise RequestError(
                    f"{name} must have sizes that grow, and not go from {size_text(small)} to {size_text(large)}."
                )
        return ",".join(f"{size}:{steps}" for size, steps in stages)

    def parse(self, text: str) -> Any:
        return text

    @property
    def allowed(self) -> str:
        return (
            f"SIZE:STEPS with commas between them, smallest first, 1 to {self.most} steps in all, at least one at "
            "every size but the last, such as 96x96:1,144x144:1,192x192:2"
        )


def stages_of(text: str) -> list[tuple[tuple[int, int], int]]:
    """((height, width), steps) of every stage of a checked plan."""
    pairs = (part.split(":") for part in text.split(","))
    return [(size_of(size), int(steps)) for size, steps in pairs]


Kind = Whole | Real | Choice | Text | Size | Stages | Truth


def size_text(pixels: tuple[int, int]) -> str:
    """(height, width) as a setting has it."""
    return f"{pixels[1]}x{pixels[0]}"


def size_of(text: str) -> tuple[int, int]:
    """The (height, width) of a checked size."""
    width, height = text.split("x")
    return int(height), int(width)


def whole(name: str, value: Any, low: int, high: int) -> int:
    """value as a whole number in [low, high]; raises RequestError naming the field, the value and the range."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high or value != int(value):
        raise RequestError(f"{name} must be a whole number from {low} to {high}, not {abbreviated(value)}.")
    return int(value)


def real(name: str, value: Any, low: float, high: float) -> float:
    """value as a number in [low, high]; raises RequestError naming the field, the value and the range."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RequestError(f"{name} must be a number from {low:g} to {high:g}, not {abbreviated(value)}.")
    return float(value)


def choice(name: str, value: Any, options: tuple[str, ...]) -> Any:
    """value itself when it is one of the options; raises RequestError naming the field, the value and the options."""
    if value not in options:
        raise RequestError(f"{name} must be one of {', '.join(options)}, not {abbreviated(value)}.")
    return value


def abbreviated(value: Any) -> str:
    """A short, safe form of a bad value for a message."""
    if isinstance(value, int) and abs(value) > 10**30:  # Python refuses to write out integers of thousands of digits
        return "a huge number"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
