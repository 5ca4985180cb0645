"""Requests: every bad value is refused in one sentence that names the field, the value and what is allowed."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmd.backbones.cards import BackboneSpec, unknown_words
from rmd.checks import RequestError
from rmd.method.plan import MAX_STEPS, Mapping, Reinjection, Upsampler
from rmd.request import PROMPT_LENGTH, SEED_LIMIT, GenerateRequest, make_request

GOOD: dict[str, Any] = {"backbone": "emoji-sdxl", "prompt": "a fox"}


@pytest.mark.parametrize(
    ("bad", "parts"),
    [
        ({"prompt": ""}, ["prompt is empty", "describe the picture"]),
        ({"prompt": " \n\t "}, ["prompt is empty"]),
        ({"prompt": None}, ["prompt is empty"]),
        ({"prompt": "x" * 10_000}, ["prompt has 10000 characters", "at most 1000"]),
        ({"prompt": 7}, ["prompt must be text, not 7"]),
        ({"prompt": "a\x00b"}, ["prompt holds control characters"]),
        ({"prompt": "a\ud800b"}, ["prompt holds control characters"]),
        ({"negative": "x" * 1001}, ["negative has 1001 characters"]),
        ({"backbone": ""}, ["backbone is empty"]),
        ({"backbone": ["a"]}, ["backbone must be text", "['a']"]),
        ({"steps": 0}, ["steps must be a whole number from 1 to 8, not 0"]),
        ({"steps": 99}, ["steps must be a whole number from 1 to 8, not 99"]),
        ({"steps": 2.5}, ["steps", "not 2.5"]),
        ({"steps": math.nan}, ["steps", "from 1 to 8", "not nan"]),
        ({"steps": math.inf}, ["steps", "not inf"]),
        ({"steps": "four"}, ["steps", "not 'four'"]),
        ({"steps": True}, ["steps", "not True"]),
        ({"steps": 10**400}, ["steps", "from 1 to 8", "a huge number"]),
        ({"seed": -(10**5000)}, ["seed", "a huge number"]),
        ({"eta": 10**400}, ["eta", "from 0 to 1", "a huge number"]),
        ({"steps": 4, "switch": 5}, ["switch must be a whole number from 0 to 4, not 5"]),
        ({"switch": -1}, ["switch", "from 0 to 4", "-1"]),
        ({"seed": -1}, ["seed", f"from 0 to {SEED_LIMIT - 1}", "-1"]),
        ({"seed": SEED_LIMIT}, ["seed", str(SEED_LIMIT)]),
        ({"seed": math.nan}, ["seed", "nan"]),
        ({"teacher_steps": 1}, ["teacher_steps", "from 2 to 100", "not 1"]),
        ({"teacher_steps": 101}, ["teacher_steps", "not 101"]),
        ({"teacher": "yes"}, ["teacher must be true or false, not 'yes'"]),
        ({"guidance": math.nan}, ["guidance must be a number from 1 to 20, not nan"]),
        ({"guidance": 0.5}, ["guidance", "0.5"]),
        ({"guidance": "3"}, ["guidance", "'3'"]),
        ({"eta": -0.1}, ["eta must be a number from 0 to 1, not -0.1"]),
        ({"eta": math.inf}, ["eta", "inf"]),
        ({"reinjection": "old"}, ["reinjection must be one of fresh, mix, band, block, not 'old'"]),
        ({"mapping": "x"}, ["mapping must be one of logsnr, shift, none, not 'x'"]),
        ({"upsampler": ["bilinear"]}, ["upsampler must be one of bilinear, bicubic, nearest"]),
        ({"decoder": "small"}, ["decoder must be one of full, tiny, not 'small'"]),
        ({"student": ""}, ["student is empty"]),
        ({"color": "red"}, ["color is not a setting", "steps"]),
        ({"prompt": {"a": "b" * 999}}, ["prompt must be text", "…"]),
    ],
)  # fmt: skip
def test_bad_values_are_named(bad: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(RequestError) as caught:
        make_request({**GOOD, **bad})
    message = str(caught.value)
    assert [part for part in parts if part not in message] == []
    assert len(message) < 400
    assert "\n" not in message
    assert message.endswith((".", "”."))


def test_what_is_missing_takes_the_defaults() -> None:
    request = make_request({**GOOD, "seed": 3, "steps": None, "eta": None})
    assert request == GenerateRequest(backbone="emoji-sdxl", prompt="a fox", seed=3)


def test_spaces_are_tidied() -> None:
    assert make_request({**GOOD, "prompt": "  a\n fox\t"}).prompt == "a fox"


def test_whole_floats_are_whole_numbers() -> None:
    """A number from JSON or a slider may arrive as 4.0."""
    request = make_request({**GOOD, "steps": 4.0, "seed": 7.0})
    assert (request.steps, request.seed) == (4, 7)
    assert isinstance(request.steps, int)


def test_a_missing_seed_is_drawn() -> None:
    seeds = {make_request(GOOD).seed for _ in range(8)}
    assert len(seeds) > 1
    assert all(0 <= seed < SEED_LIMIT for seed in seeds)


def test_the_limits_themselves_are_allowed() -> None:
    make_request({**GOOD, "prompt": "x" * PROMPT_LENGTH, "seed": SEED_LIMIT - 1})
    make_request({**GOOD, "steps": MAX_STEPS, "switch": MAX_STEPS})
    make_request({**GOOD, "steps": 1, "switch": 0, "teacher_steps": 100, "guidance": 1, "eta": 0})


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), st.binary(max_size=5),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip
names = st.sampled_from([*GenerateRequest.__dataclass_fields__, "other", ""])


@given(st.dictionaries(names, values, max_size=6))
def test_anything_else_never_comes(given_values: dict[str, Any]) -> None:
    """A request that is in range, or a RequestError; no other exception, whatever arrives."""
    try:
        request = make_request({**GOOD, **given_values})
    except RequestError:
        return
    assert 0 <= request.switch <= request.steps <= MAX_STEPS
    assert 0 <= request.seed < SEED_LIMIT
    assert 0 <= request.eta <= 1
    assert 1 <= request.guidance <= 20
    assert request.prompt.strip()
    assert request.reinjection in get_args(Reinjection)
    assert request.mapping in get_args(Mapping)
    assert request.upsampler in get_args(Upsampler)


def spec(words: tuple[str, ...]) -> BackboneSpec:
    caption = ("a", "an", "on", "background")
    return BackboneSpec(
        "id", "Name", (64, 64), (32, 32), 6, 3.5, 4, 2, "MIT", words, ("light blue",), caption_words=caption
    )


def test_unknown_words() -> None:
    known = spec(("red apple", "Fox"))
    assert unknown_words(known, "An APPLE, and a fox on a light-blue background!") == ["and"]
    assert unknown_words(known, "a zebra beside a zebra") == ["zebra", "beside"]
    assert unknown_words(spec(()), "anything goes") == []
