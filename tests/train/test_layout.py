"""The text encoder's first lesson: which token stands for which place."""

import torch

from rmd.backbones.cards import with_article
from rmd.train.bundled import image_layout as layout
from rmd.worlds import emoji


def test_regions_go_row_by_row_and_keep_every_cell() -> None:
    x = torch.arange(2 * 4 * 16 * 16, dtype=torch.float32).reshape(2, 4, 16, 16)
    parts = layout.regions(x)
    assert parts.shape == (2, 16, 64)
    assert torch.equal(parts[1, 6].reshape(4, 4, 4), x[1, :, 4:8, 8:12])  # second row, third column
    assert torch.equal(parts.flatten(1).sort(dim=1).values, x.flatten(1).sort(dim=1).values)


def test_mean_latents_average_each_object_on_each_colour() -> None:
    low = torch.randn(12, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    concept, colour = torch.tensor([0, 0, 1] * 4), torch.tensor([0, 1, 0] * 4)
    concept = torch.cat([concept, torch.tensor([1])])
    colour = torch.cat([colour, torch.tensor([1])])
    low = torch.cat([low, torch.ones(1, 4, 16, 16)])
    means = layout.mean_latents({"low": low.half(), "concept": concept, "colour": colour})
    assert means.shape == (2, 2, 4, 16, 16)
    assert torch.allclose(means[1, 0], low[2:12:3].half().float().mean(0), atol=1e-5)
    assert torch.allclose(means[1, 1], torch.ones(4, 16, 16))


def test_captions_leave_the_layout_tokens_free() -> None:
    """The longest caption's last word must come before the first of the sixteen layout tokens."""
    from rmd.train.bundled import image_text as text

    words = [c.name for c in emoji.concepts()]
    tokenizer = text.build_tokenizer(
        50 * words + 200 * [*emoji.COLOURS, "background", "emoji", "3d", "a", "an", "on", "of"]
    )
    longest = max(
        len(tokenizer(f"a 3d emoji of {with_article(w)} on {with_article(c)} background").input_ids)
        for w in words
        for c in emoji.COLOURS
    )
    assert longest <= text.LENGTH - layout.GRID**2
