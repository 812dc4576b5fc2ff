# make run    a virtual environment with the light core, then the main job on the spoken samples
# make check  ruff, mypy and the fast tests: two minutes on two cores
# make test   ruff, mypy and all tests: ten minutes on two cores
# make golden the generated pages in tests/golden, written again
# make coverage  all tests, and the part of the source that they reach
# make docs   the documentation as a site, in site/; fails on a dead link or anchor
# make bench  every pair side by side: recognizing, attention, models by length, export, training, recurrence, search
# make extraction  how fast features are computed, beside the usual loop (needs AFFEKT_DATA and AFFEKT_MODELS)
# make speakers    ECAPA's equal error rate over all pairs of EmoDB (likewise)
# make recurrent  how fast a recurrent recipe is, beside the plain way and torch's own
# make supernet   how fast the network of the search is, and what memory it takes, beside the plain way
# make throughput  utterances per second in training, beside the state before fractal attention had kernels
# make lengths  times of mstr and vanilla for 1 s to 20 min of speech, which make cost adds to its page (an hour, 16 GB)
# make cost   what every model costs, into docs/cost.md
# make shifts what the shipped model keeps in noise, rooms, bands and codecs (needs AFFEKT_DATA)
# make results  train the recipes of the papers on CREMA-D and MELD, several seeds each, and search on CREMA-D and EmoDB, and write docs/results.md (five hours)
# make model  train the shipped model again (needs AFFEKT_DATA and AFFEKT_MODELS)

PYTHON ?= python3
RUN := .venv-run
DEV := .venv-dev
DOCS := .venv-docs
BIN := $(if $(filter Windows_NT,$(OS)),Scripts,bin)

.PHONY: run static check test golden coverage docs bench extraction speakers recurrent supernet throughput lengths cost shifts results model samples clean

run: $(RUN)/installed
	$(RUN)/$(BIN)/affekt recognize samples

PYTEST := $(DEV)/$(BIN)/pytest --numprocesses auto --dist worksteal

static: $(DEV)/installed
	$(DEV)/$(BIN)/ruff check
	$(DEV)/$(BIN)/ruff format --check
	$(DEV)/$(BIN)/mypy

check: static
	$(PYTEST) -m "not slow and not data"

test: static
	$(PYTEST)

golden: $(DEV)/installed
	$(DEV)/$(BIN)/pytest -m golden --refresh-golden
	git status --short tests/golden

coverage: $(DEV)/installed
	$(PYTEST) --cov --cov-report term:skip-covered

docs: $(DOCS)/installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/$(BIN)/mkdocs build --strict

bench: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks

extraction: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks/extraction.py --corpus emodb --clips 32

speakers: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks/speakers.py emodb

recurrent: $(DEV)/installed
	OMP_NUM_THREADS=1 $(DEV)/$(BIN)/python benchmarks/recurrent.py

supernet: $(DEV)/installed
	OMP_NUM_THREADS=1 $(DEV)/$(BIN)/python benchmarks/search.py

BEFORE := 42a95e4
throughput: $(DEV)/installed
	rm -rf .before.building && mkdir .before.building && git archive $(BEFORE) | tar -x -C .before.building
	OMP_NUM_THREADS=1 $(DEV)/$(BIN)/python benchmarks/training.py --before .before.building $(BEFORE)
	rm -rf .before.building

lengths: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks/lengths.py --threads 2 --longest 3600 --resume

cost: $(DEV)/installed
	$(DEV)/$(BIN)/affekt cost --output docs/cost.md --measure
	$(DEV)/$(BIN)/python benchmarks/lengths_page.py docs/cost.md

shifts: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks/shifts.py

APART := 'protocol={name="speaker-folds",k=5,validation=0.125}' 'folds=[1]'
RUNS := runs/papers
AFFEKT := $(DEV)/$(BIN)/affekt
results: $(DEV)/installed
	for model in mstr vanilla; do \
	  $(AFFEKT) train $$model-cremad repeats=3 --run $(RUNS)/$$model-cremad-random && \
	  $(AFFEKT) train $$model-cremad $(APART) repeats=3 --run $(RUNS)/$$model-cremad-apart || exit 1; \
	done
	for model in mcsan ks_transformer; do \
	  $(AFFEKT) train $$model-cremad --run $(RUNS)/$$model-cremad && \
	  $(AFFEKT) train $$model-cremad name=$$model-cremad-speech model.modalities=speech --run $(RUNS)/$$model-cremad-speech || exit 1; \
	done
	$(AFFEKT) train tdfnet-cremad --run $(RUNS)/tdfnet-cremad
	$(AFFEKT) train tdfnet-cremad name=tdfnet-cremad-speech model.path=audio model.mutual=false model.speaker=false \
	  --run $(RUNS)/tdfnet-cremad-speech
	$(AFFEKT) train mcsan-meld --run $(RUNS)/mcsan-meld
	$(AFFEKT) train mcsan-meld name=mcsan-meld-minilm 'streams.text={name="minilm",folder="minilm-l6-v2"}' \
	  training.epochs=8 --run $(RUNS)/mcsan-meld-minilm
	for corpus in cremad emodb; do \
	  $(AFFEKT) search emotionnas-$$corpus --workers 2 --no-bundles --run $(RUNS)/emotionnas-$$corpus || exit 1; \
	done
	$(AFFEKT) report $(RUNS) --output docs/results.md

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

$(DOCS)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf $(RUN) $(DEV) $(DOCS) site
