"""Pictures are drawn where and how their numbers say, and captions say nothing that is not so."""

from dataclasses import replace

import torch
from torch import Tensor

from rmd.worlds import emoji, views
from rmd.worlds.views import Views


def one(**changes: float | int) -> Views:
    """A fox in the middle of a white ground, upright, with changes."""
    fox = [c.name for c in emoji.concepts()].index("fox")
    plain = {"concept": fox, "style": 0, "colour": 0, "scale": 0.5, "x": 0.0, "y": 0.0, "angle": 0.0, "mirrored": 0}
    values = {name: torch.tensor([value]) for name, value in {**plain, **changes}.items()}
    return Views(**values, shade=torch.zeros(1, 3), slope=torch.zeros(1, 2))


def drawn(shown: Views, size: int = 128) -> Tensor:
    return views.render(emoji.load_sprites(), shown, size)


def middle(picture: Tensor) -> tuple[float, float]:
    """The middle of what differs from the white ground, right and down from the canvas's, in canvases."""
    weight = (picture[0].mean(dim=0) - picture[0, :, 0, 0].mean()).abs()
    axis = (torch.arange(picture.shape[-1]) + 0.5) / picture.shape[-1] - 0.5
    total = weight.sum()
    return float((weight.sum(dim=0) * axis).sum() / total), float((weight.sum(dim=1) * axis).sum() / total)


def test_an_object_is_where_its_numbers_say() -> None:
    x0, y0 = middle(drawn(one()))
    x1, y1 = middle(drawn(one(x=0.2, y=-0.1)))
    assert abs(x1 - x0 - 0.2) < 0.01
    assert abs(y1 - y0 + 0.1) < 0.01


def test_a_size_is_a_share_of_the_canvas() -> None:
    areas = [float((drawn(one(scale=s)) - drawn(one(scale=s))[..., :1, :1]).abs().mean()) for s in (0.4, 0.8)]
    assert abs(areas[1] / areas[0] - 4) < 0.2


def test_a_mirrored_picture_is_the_mirror_of_the_picture() -> None:
    car = [c.name for c in emoji.concepts()].index("car")
    plain, mirrored = drawn(one(concept=car)), drawn(one(concept=car, mirrored=1))
    assert torch.allclose(mirrored, plain.flip(-1), atol=0.01)
    assert not torch.allclose(mirrored, plain, atol=0.1)


def test_a_tilt_turns_clockwise() -> None:
    rocket = [c.name for c in emoji.concepts()].index("rocket")
    quarter = drawn(one(concept=rocket, angle=torch.pi / 2))
    assert torch.allclose(quarter, drawn(one(concept=rocket)).rot90(-1, (2, 3)), atol=0.02)


def test_a_low_resolution_picture_is_the_average_of_the_full_one() -> None:
    shown = views.draw(4, torch.Generator().manual_seed(0))
    full = torch.nn.functional.avg_pool2d(drawn(shown, 256), 2)
    assert float((full - drawn(shown, 128)).abs().mean()) < 0.005


def test_rendering_can_be_fitted() -> None:
    """The judge moves a view until it lies on a picture: the gradient must point the right way."""
    shown = one()
    target, x = drawn(one(x=0.02)), torch.tensor([0.0], requires_grad=True)
    (drawn(replace(shown, x=x)) - target).square().mean().backward()
    assert x.grad is not None
    assert float(x.grad) < 0


def test_objects_stay_on_the_canvas_and_everything_varies() -> None:
    shown = views.draw(2000, torch.Generator().manual_seed(0))
    assert bool((shown.x.abs() + shown.scale / 2 <= 0.5 + 1e-6).all())
    assert bool((shown.y.abs() + shown.scale / 2 <= 0.5 + 1e-6).all())
    assert len(shown.concept.unique()) == 60
    for name, least in (("scale", 0.1), ("x", 0.07), ("y", 0.07), ("angle", 0.1), ("mirrored", 0.4), ("style", 0.4)):
        assert float(getattr(shown, name).float().std()) > least


def test_captions_name_object_and_ground_and_sometimes_more() -> None:
    g = torch.Generator().manual_seed(0)
    said = views.draw_captions(3000, g)
    plain = sum(caption.startswith(("a ", "an ")) and "," not in caption for caption in said) / len(said)
    assert 0.5 < plain < 0.9
    for word in ("small", "big", "left", "right", "top", "bottom", "middle", "tilted", "mirrored", "flat", "3d"):
        share = sum(f" {word}" in f" {caption}" for caption in said) / len(said)
        assert 0.01 < share < 0.3, word
