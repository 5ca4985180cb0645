"""The documented endpoint `/generate`, its signature and documentation made from the settings table."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable
from contextlib import closing
from typing import Any

from gradio.data_classes import FileData

from rmd.checks import Cancelled, Real, Text, Truth, Whole
from rmd.engine.results import ROLES, Done
from rmd.request import Setting, offered
from rmd.serve.admission import listening
from rmd.serve.guard import sentence
from rmd.serve.runner import Runner, Saved, file_of

ABOUT = """Draw a picture with the few-step student and, for comparison, with the teacher.

Settings left out take the model's defaults; a missing seed is drawn at random. Bad values are answered with one
sentence.

Args:
{arguments}

Returns:
    The student's file (PNG, or MP4 for a clip), the teacher's or null, and everything measured: request,
    timings, speed-up. With a count above 1 these are the first result's, and "results" lists all, each with its files.
"""
RETURNS = tuple[FileData, FileData | None, dict[str, Any]]


def endpoint(runner: Runner) -> Callable[..., Any]:
    """The function that Gradio serves as `/generate`; its parameters are the settings that are offered."""

    def generate(*given: Any, **named: Any) -> Any:
        bound = signature.bind(*given, **named)
        try:
            checked = runner.request(dict(bound.arguments))
            results: list[Saved] = []
            present = listening()
            with closing(runner.run(checked, secrets.token_hex(8))) as events:
                for event in events:
                    if not present():
                        raise Cancelled("Nobody waits for this picture any more.")
                    if isinstance(event, Done):
                        results.append(runner.save(event))
        except Exception as error:
            raise sentence(error, html=False) from None
        rows = [{**saved.result.as_dict(), "files": files_of(saved)} for saved in results]
        first = rows[0].pop("files") if checked.count == 1 else rows[0]["files"]
        return first["student"], first["teacher"], rows[0] if checked.count == 1 else {**rows[0], "results": rows}

    settings = offered()
    signature = inspect.Signature([parameter(setting) for setting in settings], return_annotation=RETURNS)
    generate.__signature__ = signature  # type: ignore[attr-defined]
    generate.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()} | {"return": RETURNS}
    generate.__doc__ = ABOUT.format(arguments="\n".join(f"    {s.name}: {documented(s)}" for s in settings))
    return generate


def files_of(saved: Saved) -> dict[str, Any]:
    """A result's files by role, None where a side was not run."""
    return {role: file_of(saved.files[role]) if role in saved.files else None for role in ROLES}


def parameter(setting: Setting) -> inspect.Parameter:
    """A setting as a parameter: what may be left out has None, or what None would mean where that is plain."""
    kind, plain = setting.kind, setting.default
    bases: dict[type[Any], Any] = {Whole: int, Real: float, Truth: bool}
    base = bases.get(type(kind), str)
    given = setting.name == "prompt"
    certain = isinstance(kind, Truth) or (isinstance(kind, Text) and kind.empty)
    default = inspect.Parameter.empty if given else plain if certain else None
    annotation = base if given or certain else base | None
    place = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(setting.name, place, default=default, annotation=annotation)


def documented(setting: Setting) -> str:
    """What a setting does, with its range, as a sentence."""
    kind = setting.kind
    words = setting.text if isinstance(kind, Whole | Real | Truth) else f"{setting.help}: {kind.allowed}"
    if setting.name == "backbone":
        words = "one of the names in the Models tab; the first usable one if left out"
    elif setting.name == "student":
        words = "one of those in the page's list, or \"none\" for the teacher's own weights; its own if left out"
    return f"{words[:1].upper()}{words[1:]}."
