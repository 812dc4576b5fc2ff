# make run    a virtual environment with the light core, then the main job on the spoken samples
# make test   a virtual environment with everything, then lint, types and all tests
# make bench  speed, memory and start-up beside the usual way
# make shifts what the shipped model keeps in noise, rooms, bands and codecs (needs AFFEKT_DATA)
# make results  train MSTR and its baseline on CREMA-D, three seeds, two protocols, and write docs/results.md (an hour)
# make model  train the shipped model again (needs AFFEKT_DATA and AFFEKT_MODELS)

PYTHON ?= python3
RUN := .venv-run
DEV := .venv-dev
BIN := $(if $(filter Windows_NT,$(OS)),Scripts,bin)

.PHONY: run test bench shifts results model samples clean

run: $(RUN)/installed
	$(RUN)/$(BIN)/affekt recognize samples

test: $(DEV)/installed
	$(DEV)/$(BIN)/ruff check
	$(DEV)/$(BIN)/ruff format --check
	$(DEV)/$(BIN)/mypy
	$(DEV)/$(BIN)/pytest

bench: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks/recognize.py

shifts: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks/shifts.py

APART := 'protocol={name="speaker-folds",k=5,validation=0.125}' 'folds=[1]'
results: $(DEV)/installed
	for model in mstr vanilla; do \
	  $(DEV)/$(BIN)/affekt train $$model-cremad repeats=3 --run runs/$$model-cremad-random && \
	  $(DEV)/$(BIN)/affekt train $$model-cremad $(APART) repeats=3 --run runs/$$model-cremad-apart || exit 1; \
	done
	$(DEV)/$(BIN)/affekt report runs/mstr-cremad-random runs/vanilla-cremad-random \
	  runs/mstr-cremad-apart runs/vanilla-cremad-apart --output docs/results.md

model: $(DEV)/installed
	$(DEV)/$(BIN)/affekt train default --output src/affekt/assets/default

samples:  # needs espeak-ng
	$(PYTHON) samples/make.py

# Installed anew when what is installed changes; the package's own code is not copied, so that it is always current.
$(RUN)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(RUN)
	$(RUN)/$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

# torch goes first: asked for by its pin, it is not exchanged for another build by what depends on it.
$(DEV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEV)
	$(DEV)/$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(DEV)/$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(RUN) $(DEV)
