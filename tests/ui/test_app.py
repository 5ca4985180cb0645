"""The app over HTTP, as a program would use it: `/generate` draws, and bad input is answered with a sentence."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

from rmd.request import offered


@pytest.fixture(scope="module")
def client(app_url: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(app_url, download_files=str(tmp_path_factory.mktemp("downloads")), verbose=False)


def generate(client: Client, **settings: Any) -> tuple[str, str | None, dict[str, Any]]:
    values = {"prompt": "a fox on a blue background", "backbone": "tiny", "seed": 7, "teacher_steps": 3, **settings}
    return client.predict(**values, api_name="/generate")


def raw(url: str, data: str) -> str:
    """Post a body as it is, also one that no JSON library would write, and return the event stream's text."""
    body = f'{{"data": {data}}}'.encode()
    call = urllib.request.Request(f"{url}/gradio_api/call/generate", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(call) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{url}/gradio_api/call/generate/{event}") as answer:
        return answer.read().decode()


def test_generate_returns_two_pictures_and_what_was_measured(client: Client) -> None:
    student, teacher, info = generate(client)
    assert teacher is not None
    assert [Image.open(path).size for path in (student, teacher)] == [(64, 64)] * 2
    assert info["request"]["seed"] == 7
    assert [len(stage["times"]) for stage in info["plan"]["stages"]] == [2, 2]
    assert set(info["speedup"]) == {"denoiser", "end_to_end"}
    assert info["student"].startswith("not distilled")


def test_the_files_are_png_with_the_settings_inside(client: Client) -> None:
    student, _, info = generate(client)
    picture = Image.open(student)
    assert picture.format == "PNG"
    inside = json.loads(picture.info["rmd"])
    assert inside["role"] == "student"
    assert inside["request"] == info["request"]


def test_one_seed_gives_one_picture(client: Client) -> None:
    first, second = (Path(generate(client, teacher=False)[0]).read_bytes() for _ in range(2))
    pixels = [Image.open(generate(client, teacher=False, seed=seed)[0]).tobytes() for seed in (7, 7, 8)]
    assert first
    assert second
    assert pixels[0] == pixels[1] != pixels[2]


def test_without_a_teacher_there_is_no_speedup(client: Client) -> None:
    _, teacher, info = generate(client, teacher=False)
    assert teacher is None
    assert info["speedup"] is None


def test_a_small_number_of_steps_fits_the_default_switch(client: Client) -> None:
    assert generate(client, steps=1, teacher=False)[2]["request"]["switch"] == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \n"}, "prompt is empty"),
        ({"prompt": "x" * 10_000}, "at most 1000"),
        ({"prompt": "a\0b"}, "control characters"),
        ({"prompt": 5}, "prompt must be text"),
        ({"steps": 0}, "steps must be a whole number from 1 to 8, not 0"),
        ({"steps": 99}, "steps must be a whole number from 1 to 8, not 99"),
        ({"steps": "many"}, "steps must be a whole number"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"steps": 4, "switch": 5}, "switch must be a whole number from 0 to 4, not 5"),
        ({"switch": -1}, "switch must be a whole number from 0 to 4"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"eta": "NaN"}, "eta must be a number from 0 to 1"),
        ({"guidance": 1000}, "guidance must be a number from 1 to 20"),
        ({"reinjection": "none"}, "reinjection must be one of fresh, mix, band"),
        ({"mapping": "shift"}, "mapping 'shift' needs a backbone with timestep shifts"),
        ({"teacher": "yes"}, "teacher must be true or false"),
        ({"backbone": "nobody"}, "backbone must be one of tiny, damaged, gone"),
        ({"backbone": "/etc"}, "backbone must be one of"),
        ({"backbone": ["tiny"]}, "backbone must be one of"),
        ({"backbone": "damaged"}, "cannot be loaded"),
        ({"backbone": "gone"}, "There is no folder gone"),
    ],
    ids=str,
)
def test_bad_input_is_answered_with_a_sentence(client: Client, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(AppError) as caught:
        generate(client, **settings)
    message = str(caught.value)
    assert words in message
    assert message.rstrip("'\"").endswith(".")
    assert "Traceback" not in message
    assert "app0" not in message, "no path of the server"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "null", "[]", "{}", '"2"', "true"])
def test_odd_json_numbers_are_no_crash(app_url: str, number: str) -> None:
    given = {"prompt": '"a fox"', "backbone": '"tiny"', "steps": number, "seed": "1", "teacher": "false"}
    answer = raw(app_url, f"[{', '.join(given.get(setting.name, 'null') for setting in offered())}]")
    event, _, data = answer.partition("\n")
    if number == "null":  # a missing setting takes the default
        assert event == "event: complete"
    else:
        assert event == "event: error"
        assert "steps must be a whole number" in data


def test_it_still_draws_after_all_this(client: Client) -> None:
    assert generate(client, teacher=False)[0].endswith(".png")


def test_the_endpoint_is_documented(client: Client) -> None:
    described = client.view_api(return_format="dict", print_info=False)
    assert described is not None
    endpoints = described["named_endpoints"]
    assert list(endpoints) == ["/generate"]
    names = [parameter["parameter_name"] for parameter in endpoints["/generate"]["parameters"]]
    assert names[:4] == ["prompt", "backbone", "steps", "switch"]


@pytest.mark.parametrize("path", ["/monitoring", "/gradio_api/monitoring/summary"])
def test_there_is_no_monitoring_page(app_url: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(app_url + path)
