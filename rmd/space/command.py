"""`python -m rmd space check | render | deploy`."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from rmd.checks import RequestError
from rmd.disk import write_text
from rmd.space import card, check, deploy, spec

ROOT = Path(__file__).resolve().parents[2]


def add_space(commands: Any) -> None:
    p = commands.add_parser("space", help="check, describe and deploy this app as a Hugging Face Space")
    parts = p.add_subparsers(required=True, metavar="check | render | deploy", parser_class=type(p))
    one = parts.add_parser("check", help="whether space.yaml and this checkout would run as a Space")
    one.set_defaults(run=run_check)
    two = parts.add_parser("render", help="the README of the Space: this one with a YAML block from space.yaml on top")
    two.add_argument("--out", type=Path, help="write it to this file (README.md changes the repository's own)")
    two.set_defaults(run=run_render)
    three = parts.add_parser("deploy", help="create or renew a Space with the tracked files of this checkout")
    three.add_argument("--to", metavar="OWNER/NAME", required=True, help="the Space")
    three.add_argument("--private", action="store_true", help="only you can see it, if it is new")
    three.add_argument("--dry-run", action="store_true", help="only list what would be uploaded and set")
    three.set_defaults(run=run_deploy)
    for part in (one, two, three):
        part.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)


def run_check(args: argparse.Namespace) -> None:
    found = check.problems(args.root)
    if found:
        raise RequestError("\n".join(found))
    print("space.yaml and this checkout are ready to be a Space.")


def run_render(args: argparse.Namespace) -> None:
    fields = spec.read(args.root / "space.yaml")
    found = spec.problems(fields)
    if found:
        raise RequestError("\n".join(found))
    readme = card.with_block(check.text(args.root / "README.md"), fields)
    if args.out is None:
        print(readme, end="")
    else:
        write_text(args.out, readme)


def run_deploy(args: argparse.Namespace) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", args.to):
        raise RequestError(f"--to must look like OWNER/NAME, not {args.to!r}.")
    if not args.dry_run:
        print(deploy.deploy(args.root, args.to, args.private, lambda text: print(text, file=sys.stderr, flush=True)))
        return
    fields, shipped = spec.read(args.root / "space.yaml"), deploy.plan(args.root)
    for name, size in shipped:
        print(f"{size:>12,}  {name}")
    print(f"{sum(size for _, size in shipped):>12,}  bytes in {len(shipped)} files, to {args.to}")
    print(f"hardware: {fields['suggested_hardware']}")
    print(f"variables: {', '.join(f'{k}={v}' for k, v in (fields.get('environment') or {}).items()) or 'none'}")
    print(f"secrets: {', '.join(fields.get('secrets') or []) or 'none'}")
