"""The documented endpoint `/generate`.

Gradio reads the annotations of the return value as they stand, so this module does without postponed ones.
"""

import secrets
from contextlib import closing
from typing import Any

from gradio.data_classes import FileData

from rmd.checks import Cancelled
from rmd.engine.results import Done
from rmd.serve.admission import listening
from rmd.serve.guard import sentence
from rmd.serve.runner import Runner
from rmd.ui import text, views
from rmd.ui.handlers import FIELDS


class Api:
    """The documented endpoint."""

    def __init__(self, runner: Runner):
        self.runner = runner

    def generate(
        self,
        prompt: str,
        backbone: str | None = None,
        steps: int | None = None,
        switch: int | None = None,
        seed: int | None = None,
        teacher: bool = True,
        teacher_steps: int | None = None,
        guidance: float | None = None,
        negative: str = "",
        reinjection: str | None = None,
        eta: float | None = None,
        mapping: str | None = None,
        upsampler: str | None = None,
        decoder: str | None = None,
    ) -> tuple[FileData, FileData | None, dict[str, Any]]:
        values = {name: value for name, value in locals().items() if name in FIELDS}
        try:
            checked = self.runner.request(values)
            done, present = None, listening()
            with closing(self.runner.run(checked, secrets.token_hex(8))) as events:
                for event in events:
                    if not present():
                        raise Cancelled("Nobody waits for this picture any more.")
                    done = event if isinstance(event, Done) else done
            assert done is not None
            saved = self.runner.save(done)
        except Exception as error:
            raise sentence(error, html=False) from None
        files = [views.file_of(saved.files[role]) if role in saved.files else None for role in ("student", "teacher")]
        return files[0], files[1], saved.info  # type: ignore[return-value]

    generate.__doc__ = text.API
