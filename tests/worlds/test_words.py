"""The bundled models know every word of the captions they were trained on, and no others."""

from __future__ import annotations

import pytest
import torch

from rmd.backbones import catalog
from rmd.backbones.cards import unknown_words, with_article
from rmd.backbones.outline import read_outline
from rmd.worlds import clips, emoji, views
from rmd.worlds.clips_judge import parse_prompt


@pytest.mark.parametrize("world", [views, clips], ids=["emoji-sdxl", "emoji-wan"])
def test_a_model_knows_its_own_captions(world: object, request: pytest.FixtureRequest) -> None:
    spec = read_outline(catalog.find(request.node.callspec.id)).spec
    drawn = world.draw_captions(400, torch.Generator().manual_seed(0))  # type: ignore[attr-defined]
    assert {word for caption in drawn for word in unknown_words(spec, caption)} == set()
    assert unknown_words(spec, "a fox beside a zebra") == ["beside", "zebra"]
    assert spec.caption_words == world.CAPTION_WORDS  # type: ignore[attr-defined]


def test_the_video_models_words_are_those_of_its_world() -> None:
    spec = read_outline(catalog.find("emoji-wan")).spec
    motions = {words for motion in clips.MOTIONS for words in (motion.doing, motion.does)}
    assert set(spec.known_words) == {*clips.OBJECTS, *motions}
    assert set(spec.colours) == set(emoji.COLOURS)
    assert all(parse_prompt(prompt) for prompt in spec.prompts)


@pytest.mark.parametrize("noun", ["a fox", "an apple", "a unicorn", "an orange", "a light blue", "an umbrella"])
def test_articles_follow_the_sound(noun: str) -> None:
    assert with_article(noun.partition(" ")[2]) == noun
