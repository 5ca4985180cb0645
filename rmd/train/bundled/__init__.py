"""The bundled backbones' own training."""

from rmd.backbones.catalog import find

IMAGE, VIDEO = find("emoji-sdxl"), find("emoji-wan")
OUT = {IMAGE.id: "distill", VIDEO.id: "video-distill"}
"""Where their students are trained, below --runs."""
LICENCE = "apache-2.0 (weights), trained on MIT-licensed pictures"
WORLD = {IMAGE.id: "emoji", VIDEO.id: "emoji-clips"}
"""What they are made from."""
