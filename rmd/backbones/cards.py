"""What is known of a backbone and of a student without any weights: data, as their cards have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from rmd.checks import RequestError, abbreviated, choice, real, size_text, whole
from rmd.method.plan import MAX_STEPS, Mapping, Reinjection, Upsampler
from rmd.request import GUIDANCE, MAX_FRAMES, MAX_SIDE, TEACHER_STEPS

SHIFT = (0.1, 20.0)
CONVERT = "convert it with diffusers' from_single_file and save_pretrained, and give the folder"
"""What to do with a checkpoint in one file."""
MAX_DETAIL = 1000.0  # mean square; latents have a variance of about 1


@dataclass(frozen=True)
class BackboneSpec:
    """What a backbone is and its defaults. Sizes in pixels (height, width).

    Raises RequestError for impossible values.
    """

    id: str
    name: str
    high: tuple[int, int]
    low: tuple[int, int]
    teacher_steps: int
    guidance: float
    default_steps: int
    default_switch: int
    licence: str
    known_words: tuple[str, ...] = ()
    """Objects the model was trained on; empty when it is general."""
    colours: tuple[str, ...] = ()
    """Background colours the model was trained on."""
    attributes: tuple[str, ...] = ()
    """What else prompts may say of an object, as they say it."""
    prompts: tuple[str, ...] = ()
    """Prompts to suggest where one word is not enough of a prompt, as for clips."""
    caption_words: tuple[str, ...] = ("a", "an", "the", "of", "on", "in")
    """All other words of the captions it was trained on."""
    shift_ratio: float | None = None
    """Ratio of the backbone's own timestep shifts, high size over low size; flow backbones only."""
    detail: float | None = None
    """Mean square of what the low size cannot hold of this backbone's clean latents (`transition.lost_detail`)."""
    frames: int = 1
    """Pictures in a result; 1 is a picture, more are a clip."""
    fps: int = 16
    """Frames per second of a clip."""
    negative: str = ""
    """The negative prompt that its makers recommend."""
    shift: float | None = None
    """Timestep shift at the high size; None takes the scheduler's own. Flow backbones only."""

    @property
    def default_size(self) -> str:
        """As the setting `size` has it."""
        return size_text(self.high)

    @property
    def default_low(self) -> str:
        """As the setting `low` has it."""
        return size_text(self.low)

    def __post_init__(self) -> None:
        for name, size in (("high", self.high), ("low", self.low)):
            if len(size) != 2:
                raise RequestError(f"{name} must be a height and a width in pixels, not {abbreviated(size)}.")
            for side in size:
                whole(name, side, 1, MAX_SIDE)
        if self.low[0] > self.high[0] or self.low[1] > self.high[1]:
            raise RequestError(
                f"low must not be larger than high, {abbreviated(self.high)}, not {abbreviated(self.low)}."
            )
        whole("frames", self.frames, 1, MAX_FRAMES)
        whole("fps", self.fps, 1, 120)
        if self.shift is not None:
            real("shift", self.shift, *SHIFT)
        whole("teacher_steps", self.teacher_steps, *TEACHER_STEPS)
        real("guidance", self.guidance, *GUIDANCE)
        if self.detail is not None:
            real("detail", self.detail, 0, MAX_DETAIL)
        whole("default_switch", self.default_switch, 0, whole("default_steps", self.default_steps, 1, MAX_STEPS))


@dataclass(frozen=True)
class StudentSpec:
    """What is known of a student's weights, from its `rmd.json` card. Raises RequestError for impossible values."""

    name: str
    base_model: str
    licence: str
    default_steps: int
    default_switch: int
    eta: float
    reinjection: Reinjection
    training: str
    """One sentence: data, budget, hardware."""
    quality: dict[str, Any]
    """Measured figures; empty when none were measured."""
    origin: Literal["rmd", "published"] = "rmd"
    """"published" weights were not trained for the cascade: they run in it as they are, "training-free"."""
    guidance: float = 1.0
    """The classifier-free guidance it is run with; 1 is none."""
    shift: float | None = None
    """The timestep shift it was trained with, where that is not the backbone's own. Flow backbones only."""
    times: tuple[float, ...] = ()
    """Its own times at full size, falling, used when a request asks for as many steps; by default uniform from 1."""
    scales: tuple[float, ...] = ()
    """The share of the full size at which it takes each of its steps, rising to 1, where it knows several sizes."""
    mapping: Mapping = "logsnr"
    upsampler: Upsampler = "bilinear"
    lora_scale: float = 1.0
    """What a LoRA's products are multiplied with, on top of its own alpha."""
    left_out: str = ""
    """What of its file is not used here, in words."""
    told_full: bool = False
    """Whether low-resolution steps tell the network the full size, as in its training. SDXL only."""
    trained_steps: tuple[int, int] | None = None
    """The fewest and the most steps that this project's trainer drew for it; None where the card does not say."""
    trained_switch: int | None = None
    """The switch it was trained at, where that was one alone."""

    @property
    def distilled(self) -> bool:
        """Whether it was trained for the cascade by this project's trainer."""
        return self.origin == "rmd"

    def off_training(self, steps: int, switch: int, sizes: bool = False) -> str:
        """What of a plan is outside its training, as a sentence; empty where nothing is or nothing is known of it.

        sizes: whether the plan is its own one of several sizes.
        """
        if self.scales:
            known = "" if sizes else f"{self.default_steps} steps at sizes of its own"
        elif not self.distilled:
            own = (steps, switch) == (self.default_steps, 0)
            known = "" if own else f"{count(self.default_steps)} at full resolution"
        elif self.trained_steps is None:
            known = ""
        else:
            least, most = self.trained_steps
            inside = least <= steps <= most and self.trained_switch in (None, switch)
            at = "any switch" if self.trained_switch is None else f"{self.trained_switch} at low resolution"
            known = "" if inside else f"{count(most) if least == most else f'{least} to {most} steps'}, {at}"
        return f"Off training: {self.name} was trained for {known}." if known else ""

    def __post_init__(self) -> None:
        whole("default_switch", self.default_switch, 0, whole("default_steps", self.default_steps, 1, MAX_STEPS))
        if self.trained_steps is not None:
            if len(self.trained_steps) != 2:
                raise RequestError(f"trained_steps must be two numbers, not {abbreviated(self.trained_steps)}.")
            least, most = self.trained_steps
            whole("trained_steps", most, whole("trained_steps", least, 1, MAX_STEPS), MAX_STEPS)
        if self.trained_switch is not None:
            whole("trained_switch", self.trained_switch, 0, MAX_STEPS)
        real("eta", self.eta, 0, 1)
        choice("reinjection", self.reinjection, get_args(Reinjection))
        choice("origin", self.origin, ("rmd", "published"))
        real("guidance", self.guidance, *GUIDANCE)
        if self.shift is not None:
            real("shift", self.shift, *SHIFT)
        for time in self.times:
            real("times", time, 0, 1)
        for scale in self.scales:
            real("scales", scale, 0.01, 1)
        if self.scales and (len(self.scales) != self.default_steps or self.scales[-1] != 1):
            raise RequestError(f"scales must be one for each of the {self.default_steps} steps, the last 1.")
        choice("mapping", self.mapping, get_args(Mapping))
        choice("upsampler", self.upsampler, get_args(Upsampler))
        real("lora_scale", self.lora_scale, 0.001, 10)
        if not isinstance(self.quality, dict):  # pyright: ignore[reportUnnecessaryIsInstance]  # it comes from a file
            raise RequestError(f"quality must be an object, not {abbreviated(self.quality)}.")


def count(steps: int) -> str:
    """A number of steps in words."""
    return f"{steps} step{'' if steps == 1 else 's'}"


def unknown_words(spec: BackboneSpec, prompt: str) -> list[str]:
    """Words of the prompt that a small model with a known vocabulary never saw; empty for general models."""
    if not spec.known_words:
        return []
    phrases = (*spec.known_words, *spec.colours, *spec.caption_words)
    known = {word for phrase in phrases for word in phrase.lower().split()}
    words = "".join(c if c.isalnum() else " " for c in prompt.lower()).split()
    return list(dict.fromkeys(word for word in words if word not in known))


def with_article(noun: str) -> str:
    """ "a fox", "an apple", "a unicorn": by the sound of the word's beginning."""
    vowel = noun[:1].lower() in "aeiou" and not noun.lower().startswith(("uni", "use", "eu"))
    return f"{'an' if vowel else 'a'} {noun}"
