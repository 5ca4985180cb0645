"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from rmd.checks import RequestError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path)` and rename it to `path`; on failure nothing is left and RequestError is raised."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".rmd-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A whole text file, in UTF-8, or none."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def own_temporary_folder() -> Path:
    """A folder for temporary files that no other account uses: its usual name has the account's own in it, and where
    somebody took that already, a new one is made."""
    account = str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    usual = Path(tempfile.gettempdir()) / f"rmd-{account}"
    try:
        usual.mkdir(mode=0o700, exist_ok=True)
        ours = not usual.is_symlink() and (not hasattr(os, "getuid") or usual.stat().st_uid == os.getuid())
        if ours and os.access(usual, os.R_OK | os.W_OK | os.X_OK):
            return usual
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="rmd-"))


def ensure_writable(folder: Path) -> None:
    """Create the folder and try a file in it, so that an unusable one is known before any work is done."""
    write_whole(folder / ".rmd-probe", lambda temporary: None)
    (folder / ".rmd-probe").unlink(missing_ok=True)
