"""Upload this checkout as a Space, with its variables, secrets and hardware."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from rmd.checks import RequestError
from rmd.space import card, check, spec

WORDS = {
    401: "the Hub does not know this token; log in with `hf auth login` or set HF_TOKEN.",
    402: "this hardware has to be paid for; add a payment method or choose another suggested_hardware.",
    403: "this token may not write there; it needs the right to write to the repositories of that name.",
    404: "there is no such user or organisation on the Hub.",
    413: "the Hub refuses files of this size.",
    429: "the Hub asks to slow down; try again in a few minutes.",
}


def secrets_for(fields: dict[str, Any]) -> dict[str, str]:
    """The values of the Space's secrets, from the environment; raises RequestError when one is not set."""
    values = {name: os.environ.get(name, "") for name in fields.get("secrets") or []}
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise RequestError(f"space.yaml lists secrets that your environment does not have: {', '.join(missing)}.")
    return values


def plan(root: Path) -> list[tuple[str, int]]:
    """What would be uploaded: (path, bytes) of every file; raises RequestError when `check` finds something."""
    found = check.problems(root)
    if found:
        raise RequestError(" ".join(found))
    return [(name, (root / name).stat().st_size) for name in check.files(root)]


def deploy(root: Path, repo: str, private: bool, say: Callable[[str], None]) -> str:
    """Create or renew the Space `repo` ("owner/name"); returns its address.

    The files of the Space become exactly those of `plan`. Raises RequestError with what to do about it.
    """
    names = [name for name, _ in plan(root)]
    fields = spec.read(root / "space.yaml")
    secrets = secrets_for(fields)
    api = HfApi()
    try:
        say(f"Creating {repo} unless it is there …")
        url = api.create_repo(repo, repo_type="space", space_sdk=fields["sdk"], private=private, exist_ok=True)
        # before the files, so that the first start already has them
        for name, value in (fields.get("environment") or {}).items():
            api.add_space_variable(repo, name, value)
        for name, value in secrets.items():
            api.add_space_secret(repo, name, value)
        say(f"Uploading {len(names)} files …")
        with tempfile.TemporaryDirectory(prefix="rmd-space-") as place:
            stage(root, names, fields, Path(place))
            api.upload_folder(
                repo_id=repo, repo_type="space", folder_path=place, delete_patterns="*", commit_message="Deploy"
            )
        if fields["suggested_hardware"] != "cpu-basic":  # what every Space has at first
            say(f"Asking for {fields['suggested_hardware']} …")
            api.request_space_hardware(repo, fields["suggested_hardware"])
    except LocalTokenNotFoundError as error:
        raise RequestError(f"{repo} cannot be deployed: {WORDS[401]}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        words = WORDS.get(status, f"the Hub answered with status {status}; try again later.")
        raise RequestError(f"{repo} cannot be deployed: {words}") from error
    except (httpx2.TransportError, OfflineModeIsEnabled) as error:
        raise RequestError(f"{repo} cannot be deployed: the Hub cannot be reached from here.") from error
    except OSError as error:
        raise RequestError(f"{repo} cannot be deployed: {error.strerror or error}.") from error
    return str(url)


def stage(root: Path, names: list[str], fields: dict[str, Any], place: Path) -> None:
    """Copy the files to `place`, with the block in README.md."""
    for name in names:
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target)
    text = (root / "README.md").read_text(encoding="utf-8")
    (place / "README.md").write_text(card.with_block(text, fields), encoding="utf-8")
