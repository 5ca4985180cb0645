"""The tiny decoder: where there is one, how it decodes, and that both pictures of a request share it."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch
from diffusers import AutoencoderTiny
from huggingface_hub import constants

from rmd.backbones import catalog, loading
from rmd.backbones.entries import DECODER_FILES, TinyDecoder
from rmd.checks import RequestError
from rmd.cli import main
from rmd.engine.pool import ModelPool
from rmd.engine.results import Done
from rmd.engine.session import Session
from rmd.engine.teacher_cache import TeacherCache
from rmd.request import GenerateRequest, completed, make_request
from rmd.serve.offer import Offer
from rmd.serve.runner import Runner
from rmd.ui.draw import verdict
from rmd.ui.rail import Rail
from rmd.ui.share import Share
from tests.backbones.test_hub import TinyHub, address, use
from tests.engine.test_pool import live_bytes
from tests.tiny_flow import SD3_CARD, tiny_sd3

CPU = torch.device("cpu")
TINY = TinyDecoder("tiny-decoder", "Tiny decoder", "mit", "x/decoder")
HERE = "python -m rmd models --download tiny-decoder"


def small_decoder() -> AutoencoderTiny:
    torch.manual_seed(9)
    return AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4, num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1), latent_channels=4,
    )  # fmt: skip


def put_into_cache(cache: Path) -> Path:
    """The decoder as downloading leaves it; returns its folder."""
    place = cache / "models--x--decoder"
    small_decoder().save_pretrained(place / "snapshots" / "abc")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    return place / "snapshots" / "abc"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SD3 pipeline, whose own autoencoder has both a scaling and a shift factor."""
    made = tmp_path_factory.mktemp("backbone") / "sd3"
    tiny_sd3(False).save_pretrained(made)
    (made / "backbone.json").write_text(json.dumps(SD3_CARD))
    return made


@pytest.fixture
def tiny_id(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A catalog backbone that names a tiny decoder; the cache is empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    entry = catalog.Entry("sd3", "Tiny SD3", folder, folder / "student", decoder=TINY)
    monkeypatch.setattr(catalog, "ENTRIES", (*catalog.ENTRIES, entry))
    return "sd3"


@pytest.fixture
def downloaded(tmp_path: Path) -> Path:
    return put_into_cache(tmp_path / "hub")


def run(session: Session, backbone: str, **more: Any) -> Done:
    values = {"backbone": backbone, "prompt": "a fox", "seed": 1, "teacher_steps": 2, "steps": 2, "switch": 1, **more}
    return next(event for event in session.generate(make_request(values)) if isinstance(event, Done))


def test_latents_are_decoded_as_the_network_sees_them(folder: Path, downloaded: Path) -> None:
    """No scaling factor: the pipeline's own autoencoder has one of 1.5305 and a shift, the tiny one 1 and none."""
    backbone = loading.open_backbone(folder, "sd3", CPU, torch.float32)
    decoder: Any = loading.open_decoder(downloaded, CPU).float()
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, wanted = backbone.pixels(latents, decoder), decoder.decode(latents, return_dict=False)[0]
        own = backbone.pixels(latents)
    torch.testing.assert_close(ours, wanted.clamp(-1, 1))
    assert not torch.allclose(ours, own)


def test_it_draws_from_0_to_1_and_is_read_as_minus_1_to_1(folder: Path, downloaded: Path) -> None:
    backbone = loading.open_backbone(folder, "sd3", CPU)
    decoder: Any = loading.open_decoder(downloaded, CPU)
    last = decoder.decoder.layers[-1]
    with torch.inference_mode():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.0, 0.5, 1.0]))
        ((picture,),) = backbone.decode(torch.zeros(1, 4, 8, 8), decoder)
    assert (picture.size, picture.getpixel((5, 5))) == ((64, 64), (0, 128, 255))


def test_teacher_and_student_share_the_decoder(tiny_id: str, downloaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(ModelPool(CPU), previews=False)
    tiny = run(session, tiny_id, decoder="tiny")
    assert tiny.result.as_dict()["request"]["decoder"] == "tiny"
    assert session.pool.resident(tiny_id, None, "tiny")
    vae: Any = session.pool.acquire(tiny_id, None).teacher
    before = {role: output(tiny, role) for role in ("student", "teacher")}
    full = run(session, tiny_id)
    for role in ("student", "teacher"):
        assert output(full, role) != before[role]
    assert session.pool.acquire(tiny_id, None).decoder is None
    # with the pipeline's own decoder broken, the tiny one still makes both
    monkeypatch.setattr(vae.pipe.vae, "decode", None)
    again = run(session, tiny_id, decoder="tiny")
    assert {role: output(again, role) for role in before} == before


def output(done: Done, role: str) -> bytes:
    return getattr(done, role).image.tobytes()


def test_it_comes_and_goes_with_the_backbone(tiny_id: str, downloaded: Path, tiny_sdxl: Path) -> None:
    pool = ModelPool(CPU)
    pool.acquire(str(tiny_sdxl), None)
    start = live_bytes()
    pool.acquire(tiny_id, None)
    assert not pool.resident(tiny_id, None, "tiny")
    alone = live_bytes()
    first = pool.acquire(tiny_id, None, "tiny")
    assert first.decoder is not None
    assert live_bytes() - alone == sum(p.nbytes for p in first.decoder.parameters())
    second = pool.acquire(tiny_id, None, "tiny")
    assert second.decoder is first.decoder
    del first, second
    pool.acquire(str(tiny_sdxl), None)
    assert pool._decoder is None
    assert live_bytes() == pytest.approx(start, rel=0.03)


def test_what_is_not_there_is_one_sentence_before_anything_is_loaded(
    tiny_id: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = f"Tiny decoder is not on this machine; `{HERE}` downloads it."
    pool = ModelPool(CPU)
    with pytest.raises(RequestError, match="downloads it"):
        pool.acquire(tiny_id, None, "tiny")
    with pytest.raises(RequestError, match=r"decoder must be full for sd3: there is no tiny one\."):
        pool.acquire(str(folder), None, "tiny")
    assert pool.name is None
    for command in (["generate", "--prompt", "x", "--out", str(tmp_path / "out")], ["bench", "--plans", "1/0"]):
        assert main([*command, "--backbone", tiny_id, "--decoder", "tiny"]) == 2
        assert capsys.readouterr().err.strip() == missing
    assert not (tmp_path / "out").exists()
    runner = Runner(Session(pool), Offer(), tmp_path)
    with pytest.raises(RequestError, match="downloads it"):
        runner.request({"prompt": "x", "backbone": tiny_id, "decoder": "tiny"})
    for bad in ("old", 3, ["tiny"]):
        with pytest.raises(RequestError, match="decoder must be one of full, tiny"):
            runner.request({"prompt": "x", "backbone": tiny_id, "decoder": bad})


def test_a_damaged_decoder_is_a_sentence(tiny_id: str, downloaded: Path, tmp_path: Path) -> None:
    weights = downloaded / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:900])
    pool = ModelPool(CPU)
    with pytest.raises(RequestError, match="cannot be loaded"):
        pool.acquire(tiny_id, None, "tiny")
    assert pool.name is None
    runner = Runner(Session(pool), Offer(), tmp_path)
    with pytest.raises(RequestError, match=r"^Tiny decoder cannot be loaded: ") as caught:
        list(runner.run(runner.request({"prompt": "x", "backbone": tiny_id, "decoder": "tiny"}), "visitor"))
    assert str(downloaded) not in str(caught.value)


def test_it_is_downloaded_and_listed_like_a_student(
    tiny_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models"]) == 0
    assert "--decoder tiny: Tiny decoder, mit, not downloaded (tiny-decoder)" in capsys.readouterr().out
    small_decoder().save_pretrained(tmp_path / "made")
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), TinyHub)
    server.files = {file.name: file.read_bytes() for file in (tmp_path / "made").iterdir()}
    server.files |= {"taesdxl_decoder.pth": b"never wanted"}
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    use(monkeypatch, address(server))
    try:
        assert main(["models", "--download", "tiny-decoder"]) == 0
        assert {name for command, name, _ in server.seen if command == "GET"} == set(DECODER_FILES)
    finally:
        server.shutdown()
        server.server_close()
    capsys.readouterr()
    assert main(["models", "--json"]) == 0
    row = next(row for row in json.loads(capsys.readouterr().out) if row["id"] == tiny_id)
    assert row["decoder"] == {**asdict(TINY), "here": True}
    arguments = ["generate", "--backbone", tiny_id, "--prompt", "a fox", "--teacher-steps", "2", "--decoder", "tiny"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.count("s end to end (tiny decoder)") == 2


def test_bench_says_which_decoder_it_timed(tiny_id: str, downloaded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "--backbone", tiny_id, "--plans", "1/0", "--repeats", "1", "--teacher-steps", "2"]
    assert main([*arguments, "--decoder", "tiny"]) == 0
    assert "teacher 2 steps; tiny decoder, attention native" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["decoder"] == "full"


def test_the_page_offers_it_where_it_is_and_keeps_the_choice(
    tiny_id: str, downloaded: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Runner(Session(ModelPool(CPU)), Offer(), tmp_path / "pictures")
    local = catalog.register(folder)
    monkeypatch.setattr(runner.offer, "entries", {tiny_id: catalog.find(tiny_id), local.id: local})
    with gr.Blocks():
        rail = Rail(runner.offer)
        share = Share(runner, rail)
    backbone, prompt, decoder = (rail.settings[name] for name in ("backbone", "prompt", "decoder"))
    assert decoder.visible  # the first model has one
    assert rail.another_shown({backbone: tiny_id, prompt: "x"})[decoder] == gr.update(visible=True)
    assert rail.another_shown({backbone: local.id, prompt: "x"})[decoder] == gr.update(visible=False, value="full")

    checked = runner.request({"backbone": tiny_id, "prompt": "a fox", "decoder": "tiny", "seed": 3, "teacher_steps": 2})
    done = next(event for event in runner.run(checked, "visitor") if isinstance(event, Done))
    saved = runner.save(done)
    assert "with the tiny decoder</p>" in verdict.speed(saved)
    assert "<td>tiny decoder</td>" in verdict.table(saved)
    link = share.link_to(gr.Request(headers={"referer": "http://x/"}), saved)
    assert link.startswith("http://x/?")
    assert "decoder=tiny" in link
    assert share.uploaded(str(saved.files["teacher"]))[decoder] == "tiny"


def test_the_catalog_names_the_published_ones() -> None:
    named = {entry.id: entry.decoder and entry.decoder.repo for entry in catalog.ENTRIES if entry.hub}
    small = "madebyollin/taesd3"
    assert named == {
        "sdxl": "madebyollin/taesdxl", "sd3.5-medium": small, "sd3.5-large": small,
        "wan2.1-1.3b": None, "wan2.1-14b": None, "z-image": "madebyollin/taef1", "flux2-klein-4b": None,
    }  # fmt: skip
    assert catalog.download.__doc__
    with pytest.raises(RequestError, match=r"there are sdxl, .*, taesdxl, .*, taesd3, sd3\.5-large, [^t]*wan.*, taef1"):
        catalog.download("nothing")


def test_a_cached_teacher_is_one_of_the_same_decoder(tiny_id: str, tmp_path: Path) -> None:
    cache, request = TeacherCache(tmp_path), GenerateRequest(tiny_id, "x")
    assert cache._path(request) != cache._path(replace(request, decoder="tiny"))


def test_settings_from_before_there_were_decoders_mean_the_full_one() -> None:
    old = asdict(GenerateRequest("a", "b", steps=3))
    del old["decoder"]
    assert completed(old) == asdict(GenerateRequest("a", "b", steps=3))
