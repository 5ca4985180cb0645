"""The YAML block at the top of a Space's README.md.

The repository's own README does without one: GitHub would show it as a table above the title. `deploy` puts it into
the copy that it uploads; `render --out README.md` is for those who push to the Space with git.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from rmd.space.spec import OURS

BLOCK = re.compile(r"\A---\r?\n(.*?)^---\s*?(?:\r?\n|\Z)\n?", re.DOTALL | re.MULTILINE)


def block(fields: dict[str, Any]) -> str:
    """The rendered block with its dashes; empty lists and our own fields are left out."""
    shown = {name: value for name, value in fields.items() if name not in OURS and value != []}
    return f"---\n{yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120)}---\n"


def with_block(readme: str, fields: dict[str, Any]) -> str:
    """A README with the block of these fields, instead of one that it may have."""
    return block(fields) + "\n" + BLOCK.sub("", readme, count=1)


def fields_of(readme: str) -> dict[str, Any] | None:
    """What a README's block says: None without one, {} for one that is no mapping."""
    found = BLOCK.match(readme)
    if found is None:
        return None
    try:
        fields = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return {}
    return fields if isinstance(fields, dict) else {}
