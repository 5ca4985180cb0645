"""The bundled backbones' own training."""

from rmd.backbones.catalog import find

IMAGE, VIDEO = find("emoji-sdxl"), find("emoji-wan")
OUT = {IMAGE.id: "distill", VIDEO.id: "video-distill"}
"""Where their students are trained, below --runs."""
