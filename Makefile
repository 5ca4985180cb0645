# Nothing has to be installed by hand: the targets make .venv and keep it up to date.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c requirements.lock

.PHONY: demo test test-slow lint types format bench evidence examples browser install install-dev

demo: .venv/.installed
	$(BIN)/python app.py

test: browser lint types
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-slow: .venv/.installed-dev
	$(BIN)/python -m pytest -q -m "slow and not gpu and not hub"

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev
	$(BIN)/pyright

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Times for the app's map of quality and speed; on a machine that does nothing else.
BENCH ?= cpu-2-cores
bench: .venv/.installed
	$(BIN)/python -m rmd bench --plans all --out assets/bench/$(BENCH).json
	$(BIN)/python -m rmd bench --backbone emoji-wan --out assets/bench/$(BENCH)-video.json \
		--plans 4/2,6/3,2/1,6/0,6/4,4/3,3/1,8/4,4/4,1/0

# The tables in assets/evidence, the map and the model cards: hours on two cores; gone on with where it was interrupted.
STUDIED = 1/0,2/0,2/1,3/0,3/1,3/2,4/0,4/1,4/2,4/3,5/3,6/4,8/6
evidence: .venv/.installed-dev
	$(BIN)/python -m rmd evaluate --count 400 --seeds 4 --plans 4/2,4/1,4/3 --methods --out runs/evaluate
	cp runs/evaluate/evidence.json assets/evidence/emoji-sdxl.json
	cp runs/evaluate/evidence.md assets/evidence/emoji-sdxl.md
	$(BIN)/python -m rmd evaluate --count 400 --seeds 4 --plans $(STUDIED) --undistilled 2/1,3/2 --out runs/evaluate
	cp runs/evaluate/evidence.json assets/evidence/emoji-sdxl-plans.json
	cp runs/evaluate/evidence.md assets/evidence/emoji-sdxl-plans.md
	cp runs/evaluate/fd-teacher.svg assets/evidence/emoji-sdxl-teacher.svg
	cp runs/evaluate/fd-real.svg assets/evidence/emoji-sdxl-real.svg
	$(BIN)/python -m rmd train publish-quality
	$(BIN)/python -m rmd evaluate --count 1000 --seeds 4 --plans 4/2,3/0 --out runs/evaluate
	cp runs/evaluate/evidence.json assets/evidence/emoji-sdxl-1000.json
	cp runs/evaluate/evidence.md assets/evidence/emoji-sdxl-1000.md
	$(BIN)/python -m rmd evaluate --backbone emoji-wan --count 96 --seeds 2 --plans 4/2,6/3 --out runs/video-evaluate
	cp runs/video-evaluate/evidence.json assets/evidence/emoji-wan.json
	cp runs/video-evaluate/evidence.md assets/evidence/emoji-wan.md
	$(BIN)/python -m rmd train publish-video-quality

# The stored results the page shows; make them again after new weights, on a machine that does nothing else.
EXAMPLE = $(BIN)/python -m rmd generate --film --out assets/examples/$(1) --steps $(2) --switch $(3) --seed $(4) --prompt $(5) \
	--backbone $(6)
# What can be scrubbed through without running anything: the example's switches, and those of two more numbers of steps.
PLANS = $(BIN)/python -m rmd sweep --film --no-teacher --out assets/examples/$(1)/plans --plans $(2) --seed $(3) --prompt $(4)
TWO = 2/0,2/1,2/2
THREE = 3/0,3/1,3/2,3/3
FOUR = 4/0,4/1,4/2,4/3,4/4
SIX = 6/0,6/1,6/2,6/3,6/4,6/5,6/6
TWO_FOUR = $(TWO),$(FOUR)
FOUR_SIX = $(FOUR),$(SIX)
TWO_FOUR_SIX = $(TWO_FOUR),$(SIX)
TWO_THREE_FOUR = $(TWO),$(THREE),$(FOUR)
examples: .venv/.installed
	rm -rf assets/examples  # a sweep keeps the cells that are there, whatever weights made them
	$(call EXAMPLE,1-fox,4,2,7,"a fox on a light blue background",emoji-sdxl)
	$(call EXAMPLE,2-rocket,2,1,3,"a rocket on a black background",emoji-sdxl)
	$(call EXAMPLE,3-strawberry,6,3,11,"a strawberry on a pink background",emoji-sdxl)
	$(call EXAMPLE,4-penguin,3,2,5,"a penguin on a white background",emoji-sdxl)
	$(call PLANS,1-fox,$(TWO_FOUR_SIX),7,"a fox on a light blue background")
	$(call PLANS,2-rocket,$(TWO_FOUR),3,"a rocket on a black background")
	$(call PLANS,3-strawberry,$(FOUR_SIX),11,"a strawberry on a pink background")
	$(call PLANS,4-penguin,$(TWO_THREE_FOUR),5,"a penguin on a white background")
	rm -f assets/examples/*/plans/sweep.*
	$(call EXAMPLE,5-hamburger,4,2,2,"a hamburger zooming out on a green background",emoji-wan)

# The browser tests use the system's chromium, best its headless shell, and are skipped without one.
INSTALL = DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends
browser:
	@if command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || command -v google-chrome >/dev/null; \
	then true; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && { $(INSTALL) chromium-headless-shell || $(INSTALL) chromium; } \
		|| echo "chromium could not be installed: the browser tests will be skipped"; \
	else echo "no chromium and no right to install it: the browser tests will be skipped"; fi

install: .venv/.installed
install-dev: .venv/.installed-dev

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.installed: requirements.txt requirements.lock | .venv/bin/python
	$(PIP) -r requirements.txt
	@touch $@

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	$(PIP) -r requirements-dev.txt
	@touch $@
