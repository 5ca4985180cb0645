"""The Hugging Face Hub: what is in its cache on this machine, and downloading when somebody asks for it.

The cache is the one every program shares (HF_HOME), the token the one they share too (HF_TOKEN); downloads that
were interrupted go on where they stopped.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm import tqdm

from rmd.checks import Cancelled, RequestError

OnBytes = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes in all."""


def cache_folder(repo: str) -> Path:
    """Where the Hub's programs keep a repository on this machine."""
    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def cached(repo: str, revision: str = "main") -> Path | None:
    """The folder of a repository's files as far as they were downloaded, or None. Asks no network."""
    root = cache_folder(repo)
    try:
        commit = (root / "refs" / revision).read_text(encoding="ascii").strip()
    except OSError:
        commit = revision  # a commit names itself
    folder = root / "snapshots" / commit
    return folder if commit and folder.is_dir() else None


def download(repo: str, revision: str, allow: list[str], ignore: list[str], on_bytes: OnBytes) -> Path:
    """Fetch the files of a repository that match the patterns into the cache; returns their folder.

    on_bytes may raise Cancelled. Raises RequestError, in a sentence: gated, missing, no network, no room on the disk.
    """
    what: dict[str, Any] = {"revision": revision, "allow_patterns": allow, "ignore_patterns": ignore}
    what |= {"endpoint": constants.ENDPOINT, "cache_dir": constants.HF_HUB_CACHE}
    try:
        files: Any = huggingface_hub.snapshot_download(repo, dry_run=True, **what)
        wanted = sum(file.file_size or 0 for file in files if file.will_download)
        check_room(repo, wanted)
        if not files:
            raise RequestError(f"{repo} on the Hugging Face Hub has none of the files {', '.join(allow)}.")
        what["tqdm_class"] = bar_for(on_bytes, wanted)
        return Path(huggingface_hub.snapshot_download(repo, **what))
    except (RequestError, Cancelled):
        raise
    except Exception as error:
        raise RequestError(reason(repo, revision, error)) from error


def free_bytes() -> int:
    """Room on the cache's disk."""
    place = Path(constants.HF_HUB_CACHE)
    return shutil.disk_usage(next(folder for folder in (place, *place.parents) if folder.exists())).free


def check_room(repo: str, wanted: int) -> None:
    """Raise RequestError when the cache's disk has not the bytes that are wanted."""
    place, free = Path(constants.HF_HUB_CACHE), free_bytes()
    if wanted > free:
        raise RequestError(
            f"{repo} needs {wanted / 1e9:.1f} GB more on the disk of {place}, where {free / 1e9:.1f} GB are free; "
            "make room or set HF_HOME to a folder on a larger disk."
        )


def bar_for(on_bytes: OnBytes, wanted: int) -> type[tqdm]:  # pyright: ignore[reportMissingTypeArgument]
    """A silent progress bar that reports to the caller.

    The Hub makes one for files and two for bytes, received and written; for some kinds of storage only one of the
    two moves, so the further one counts. Not a subclass of the Hub's own, which other libraries switch off.
    """
    reached = [0]

    class Reporting(tqdm):  # pyright: ignore[reportMissingTypeArgument]
        def __init__(self, *args: Any, **kwargs: Any):
            self.bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **{**kwargs, "disable": False, "file": _Nowhere()})

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if self.bytes and self.n > reached[0]:
                reached[0] = int(self.n)
                on_bytes(reached[0], max(wanted, reached[0]))
            return shown

    return Reporting


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...


def reason(repo: str, revision: str, error: BaseException) -> str:
    """Why a download failed, and what to do about it."""
    chain = [error]
    while (error := chain[-1].__cause__ or chain[-1].__context__) is not None and error not in chain:  # type: ignore[assignment]
        chain.append(error)
    page = f"{constants.ENDPOINT}/{repo}"
    status = next((e.response.status_code for e in chain if isinstance(e, HfHubHTTPError)), 0)
    if has(chain, GatedRepoError) or status == 403:
        return f"{repo} is gated: accept its licence on {page}, then set HF_TOKEN to a token of that account."
    if has(chain, RevisionNotFoundError):
        return f"{repo} has no revision {revision}; see {page}."
    if has(chain, RepositoryNotFoundError) or status == 401:
        return f"{repo} was not found on the Hugging Face Hub; if it is private or gated, set HF_TOKEN (see {page})."
    if has(chain, EntryNotFoundError) and not has(chain, LocalEntryNotFoundError):
        return f"{repo} lacks a file that is needed; see {page}."
    if any(isinstance(e, OSError) and e.errno == errno.ENOSPC for e in chain):
        return f"The disk of {constants.HF_HUB_CACHE} is full; make room or set HF_HOME to a folder on a larger disk."
    if any(isinstance(e, PermissionError) for e in chain):
        return f"{constants.HF_HUB_CACHE} cannot be written; set HF_HOME to a folder of yours."
    if status:
        return f"The Hugging Face Hub answered {status} for {repo}; try again later. What was downloaded is kept."
    offline = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
    return (
        f"The Hugging Face Hub cannot be reached at {constants.ENDPOINT}{offline}; check the network and try again. "
        "What was downloaded is kept."
    )


def has(chain: list[BaseException], kind: type[BaseException]) -> bool:
    return any(isinstance(e, kind) for e in chain)
