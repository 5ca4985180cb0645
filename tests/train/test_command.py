"""`python -m rmd train distill` on tiny genuine pipelines of every family, full and as a LoRA, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from rmd import cli
from rmd.backbones import catalog
from rmd.backbones.loading import open_backbone, open_student
from rmd.checks import RequestError
from rmd.train.command_distill import claim, refuse_other
from rmd.train.memory import needed, parameters
from rmd.train.settings import Pretraining, Settings, assignments, changed, read_recipe, recipes
from rmd.train.together import Together

QUICK = ("--set", "warm_up=1", "--set", "fake_updates=1", "--set", "batch=1", "--set", "patience=1")


def distil(folder: Path, prompts: Path, out: Path, *more: str) -> int:
    arguments = ("--backbone", str(folder), "--prompts", str(prompts), "--out", str(out), "--device", "cpu")
    return cli.main(["train", "distill", *arguments, "--steps", "5", *QUICK, *more])


@pytest.mark.parametrize("rank", ["", pytest.param("2", marks=pytest.mark.slow)], ids=["full", "lora"])
def test_every_family_is_distilled_and_its_student_generates(
    tiny: Path, rank: str, tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tiny, tmp_path / "run"
    assert distil(folder, prompts, out, *(("--lora", rank) if rank else ())) == 0
    assert capsys.readouterr().out.strip() == str(out / "student")
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["matching"] > 0
    base = open_backbone(folder, "tiny", torch.device("cpu"), torch.float32)
    student, card = open_student(out / "student", base)
    assert card.distilled
    assert ("LoRA of rank 2" in card.training) == bool(rank)
    before, after = base.network.state_dict(), student.network.state_dict()
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
    made = tmp_path / "made"
    call = ["generate", "--backbone", str(folder), "--student", str(out / "student"), "--prompt", "a fox"]
    assert cli.main([*call, "--steps", "2", "--switch", "1", "--no-teacher", "--out", str(made)]) == 0
    assert any(made.iterdir())


def test_plain_diffusers_loads_the_lora_with_equal_output(tiny: Path, tmp_path: Path, prompts: Path) -> None:
    folder = tiny
    assert distil(folder, prompts, tmp_path / "run", "--lora", "2", "--set", "rate=0.05") == 0
    base = open_backbone(folder, "tiny", torch.device("cpu"), torch.float32)
    student, _ = open_student(tmp_path / "run" / "student", base)
    index = json.loads((folder / "model_index.json").read_text())
    absent: Any = {part: None for part, source in index.items() if source == [None, None]}
    pipe: Any = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, **absent)
    pipe.load_lora_weights(tmp_path / "run" / "student")
    bare = base.with_network(getattr(pipe, base.component))
    prompt = base.encode(["a fox"])
    x = torch.randn(1, base.channels, *base.latent_size(base.spec.high), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs, teachers = (one.predict(x, 0.5, prompt) for one in (student, bare, base))
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(ours, teachers, atol=1e-3)


def test_a_run_goes_on_and_refuses_other_settings(
    tiny_sdxl: Path, tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert distil(tiny_sdxl, prompts, out) == 0
    assert distil(tiny_sdxl, prompts, out, "--steps", "6") == 0
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["step"] == 5
    before = (out / "state.pt").read_bytes()
    assert distil(tiny_sdxl, prompts, out, "--set", "rate=0.5") == 2
    assert "rate 0.0001, not 0.5" in capsys.readouterr().err
    assert (out / "state.pt").read_bytes() == before


def test_a_size_of_its_own_is_trained(tiny_sdxl: Path, tmp_path: Path, prompts: Path) -> None:
    assert distil(tiny_sdxl, prompts, tmp_path / "run", "--size", "96x64", "--low", "48x32") == 0
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["size"] == "96x64"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--set", "speed=3"), "no training setting 'speed'"),
        (("--set", "rate"), "NAME=VALUE"),
        (("--set", "rate=fast"), "rate must be"),
        (("--set", "renoising=old"), "predicted, fresh"),
        (("--set", "plan_steps=2", "--set", "plan_switch=3"), "plan_switch must be at most plan_steps, which is 2"),
        (("--lora", "0"), "lora must be"),
        (("--steps", "0"), "steps must be"),
        (("--recipe", "sdxxl"), "recipe must be one of emoji-sdxl"),
        (("--size", "65x64"), "size"),
        (("--prompts", "nowhere.txt"), "nowhere.txt cannot be read"),
        (("--backbone", "nothing"), "neither one of"),
        (("--device", "cuda"), "no CUDA device"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_loads(
    more: tuple[str, ...], words: str, tiny_sdxl: Path, tmp_path: Path, prompts: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert distil(tiny_sdxl, prompts, tmp_path / "run", *more) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run" / "state.pt").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no prompt"),
        (b"\n# nothing\n", "holds no prompt"),
        ("ein Fuchs für\n".encode("latin-1"), "not UTF-8 text (byte 11"),
        (b"a fox\n" + b"x" * 5000, "prompts: line 2 has 5000 characters"),
    ],
)
def test_a_file_of_prompts_is_checked(
    content: bytes, words: str, tiny_sdxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    assert distil(tiny_sdxl, file, tmp_path / "run") == 2
    assert words in capsys.readouterr().err


def test_prompts_and_a_folder_are_asked_for(
    tiny_sdxl: Path, tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["train", "distill", "--backbone", str(tiny_sdxl)]
    assert cli.main([*call, "--out", str(tmp_path / "run")]) == 2
    assert "prompts is missing" in capsys.readouterr().err
    assert cli.main([*call, "--prompts", str(prompts)]) == 2
    assert "out is missing" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.pt").write_bytes(b"of another program")
    assert distil(tiny_sdxl, prompts, tmp_path / "run") == 2
    assert "holds another run" in capsys.readouterr().err


def test_a_folder_is_gone_on_with_by_the_same_settings_alone(tmp_path: Path) -> None:
    alone = Together(torch.device("cpu"))
    claim(tmp_path, Settings(rate=1e-5), alone)
    file = tmp_path / "settings.json"
    kept = json.loads(file.read_text())
    del kept["gan_weight"], kept["world"]  # as by a program that did not have them yet
    file.write_text(json.dumps(kept))
    longer = Settings(rate=1e-5, steps=7, minutes=2)
    refuse_other(tmp_path, longer)
    claim(tmp_path, longer, alone)
    assert json.loads(file.read_text())["steps"] == 7
    for other in (Settings(rate=2e-5), Settings(rate=1e-5, gan_weight=0.5)):
        with pytest.raises(RequestError, match=r"holds a run with .* give the same settings"):
            refuse_other(tmp_path, other)


def test_every_recipe_can_be_read_and_says_where_it_was_not_run() -> None:
    assert {"emoji-sdxl", "emoji-wan", "sdxl", "sdxl-lora", "sd3.5-medium-lora", "wan2.1-1.3b"} <= set(recipes())
    for name in recipes():
        settings = read_recipe(name, Settings())
        text = (Path(cli.__file__).parent / "train" / "recipes" / f"{name}.toml").read_text()
        assert text.startswith("# ")
        assert settings.backbone.startswith("emoji") == ("Not yet run at full size" not in text)
    for name in recipes(Pretraining):
        assert name.startswith(read_recipe(name, Pretraining(rate=1e-5)).backbone)


def test_settings_given_as_text_are_numbers_where_they_are_numbers() -> None:
    assert changed(Settings(), assignments(["rate=1e-5", "batch=4", "renoising=fresh"])) == Settings(
        rate=1e-5, batch=4, renoising="fresh"
    )


WAYS = {"full": (), "shared": ("--set", "shard=yes"), "lora": ("--lora", "2")}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_as_one_with_twice_the_batch(
    way: str, tiny_sdxl: Path, tmp_path: Path, prompts: Path
) -> None:
    """Through accelerate, over gloo: the same samples, so the same weights; and both go on where they stopped."""
    program = (
        "import sys, torch; torch.set_num_threads(1); torch.cpu.get_capabilities = lambda: {}; from rmd import cli; "
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = ["train", "distill", "--backbone", str(tiny_sdxl), "--prompts", str(prompts), "--device", "cpu"]
    arguments += [*QUICK, "--set", "patience=1", "--set", "save_minutes=0.01"]
    script = tmp_path / "program.py"
    script.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    both = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(script), *arguments]
    alone = WAYS["lora"] if way == "lora" else ()
    for steps in ("4", "5"):
        more = ["--set", "batch=1", "--steps", steps, "--out", str(tmp_path / "two"), *WAYS[way]]
        subprocess.run([*both, *more], check=True, env=environment, timeout=120)
        more = ["--set", "batch=2", "--steps", steps, "--out", str(tmp_path / "one"), *alone]
        assert cli.main([*arguments, *more]) == 0
    one, two = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("one", "two"))
    assert one["step"] == two["step"] == 5
    assert one["samples"] == two["samples"]
    for state in (one, two):
        state["parts"]["averaged"] = state["parts"]["average"]["values"]["student"]
    for role in ("student", "fake", "averaged"):
        for name, value in one["parts"][role].items():
            apart = (value - two["parts"][role][name]).abs()
            assert apart.mean() < 1e-7, (role, name)  # an update moves each weight by about 1e-4
            assert apart.max() < 1e-4, (role, name)  # Adam makes much of a gradient that is nearly nought
    if way != "lora":
        base = open_backbone(tiny_sdxl, "tiny", torch.device("cpu"), torch.float32)
        open_student(tmp_path / "two" / "student", base)


def test_sharing_out_needs_several_processes_and_whole_networks(
    tiny_sdxl: Path, tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distil(tiny_sdxl, prompts, tmp_path / "alone", "--set", "shard=yes") == 2
    assert "shard must be no for one process" in capsys.readouterr().err
    assert distil(tiny_sdxl, prompts, tmp_path / "lora", "--set", "shard=yes", "--lora", "2") == 2
    assert "shard must be no with lora" in capsys.readouterr().err


def test_the_plan_counts_what_a_run_really_holds(
    tiny_sdxl: Path, tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "plan", "--backbone", str(tiny_sdxl), "--device", "cpu", "--memory", "1"]) == 0
    said = capsys.readouterr().out
    base = open_backbone(tiny_sdxl, "tiny", torch.device("cpu"), torch.float32)
    count = sum(p.numel() for p in base.network.parameters())
    assert parameters(catalog.find(str(tiny_sdxl))) == count
    assert "are left for activations" in said
    assert distil(tiny_sdxl, prompts, tmp_path / "run") == 0
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["parts"]
    memory = needed(count, Settings(), torch.device("cpu")).parts
    moments = [
        sum(v.numel() * 4 for one in state[name]["state"].values() for v in one.values() if v.numel() > 1)
        for name in ("optimizer", "fake_optimizer")
    ]
    assert memory["their optimisers"] == pytest.approx(sum(moments) / 1e9, rel=0.01)
    held = sum(v.numel() * 4 for v in state["average"]["values"]["student"].values())
    assert memory["average"] == pytest.approx(held / 1e9, rel=0.01)


def test_what_is_shared_out_is_divided(capsys: pytest.CaptureFixture[str]) -> None:
    held = []
    for devices in ("1", "8"):
        call = ["train", "plan", "--recipe", "sdxl", "--set", "shard=yes", "--device", "cpu", "--memory", "200"]
        assert cli.main([*call, "--devices", devices]) == 0
        held.append(float(capsys.readouterr().out.splitlines()[-1].split(" GB")[0]))
    assert held[1] == pytest.approx(held[0] / 8, abs=0.01)
    assert cli.main(["train", "plan", "--recipe", "sdxl", "--device", "cpu", "--devices", "0"]) == 2
    assert "devices must be" in capsys.readouterr().err


def test_what_cannot_fit_says_what_to_change(capsys: pytest.CaptureFixture[str]) -> None:
    call = ["train", "plan", "--recipe", "sdxl", "--device", "cpu", "--memory"]
    assert cli.main([*call, "24"]) == 0
    assert "Try --lora 64" in capsys.readouterr().out
    assert cli.main(["train", "plan", "--recipe", "sdxl-lora", "--device", "cpu", "--memory", "24"]) == 0
    assert "2.57 billion weights" in capsys.readouterr().out
