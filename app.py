"""The web demo: `python app.py`, then open http://127.0.0.1:7860."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported; nothing is sent to anyone

from rmd.config import RequestError
from rmd.session import Session
from rmd.ui import layout, style


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default: %(default)s)")
    parser.add_argument("--share", action="store_true", help="make a public link through Gradio's tunnel")
    parser.add_argument("--auth", metavar="NAME:PASSWORD", help="ask visitors for this name and password")
    parser.add_argument(
        "--backbone", type=Path, action="append", default=[], metavar="FOLDER",
        help="offer this diffusers folder too, before the bundled models; may be repeated",
    )  # fmt: skip
    args = parser.parse_args()
    if args.auth is not None and not all(args.auth.partition(":")):
        parser.error("--auth must look like NAME:PASSWORD")
    return args


def main() -> None:
    args = parse()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    try:
        page = layout.build(Session(), args.backbone)
    except RequestError as error:
        raise SystemExit(str(error)) from error
    page.launch(
        server_name=args.host,
        server_port=args.port,
        share=args.share,
        auth=tuple(args.auth.split(":", 1)) if args.auth else None,
        theme=style.theme(),
        css=style.css(),
        enable_monitoring=False,
        show_error=True,  # the handlers' own failures are sentences already; this is for what Gradio refuses itself
        footer_links=["api"],
        ssr_mode=False,
        max_file_size="20mb",
        state_session_capacity=200,
    )


if __name__ == "__main__":
    main()
