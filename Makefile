# make run         install the light core in a virtual environment and recognize the samples
# make check       ruff, mypy and the fast tests: about two minutes on two cores
# make test        ruff, mypy and all tests: 14 minutes on two cores
# make golden      write the generated pages in tests/golden again
# make coverage    all tests, with the percentage of the source code that they run
# make docs        build the documentation site in site/; fails on a broken link or anchor
# make bench       the benchmarks that need neither corpora nor a GPU
# make extraction  benchmark: feature extraction beside a loop over files (needs AFFEKT_DATA and AFFEKT_MODELS)
# make speakers    ECAPA's equal error rate over all pairs of EmoDB's utterances (needs AFFEKT_DATA and AFFEKT_MODELS)
# make recurrent   benchmark: a recurrent cell beside a plain implementation and torch's LSTM and GRU
# make supernet    benchmark: time and memory of the search's supernet beside a plain implementation
# make throughput  benchmark: utterances per second in training, beside the code before fractal attention had kernels
# make lengths     benchmark: mstr and vanilla on 1 s to 20 min of speech, for docs/cost.md (an hour, 16 GB)
# make scale       measure the rates of decoding, recognition and extraction, and write docs/scale.md (a quarter of an hour)
# make speed       write docs/speed.md from the results of make bench, make quantized and make frames
# make cost        write docs/cost.md: the cost of every model, with the times of make lengths
# make shifts      UA of the shipped model with noise, reverb, codecs, silence and pauses, and on long recordings; the table
#                  becomes part of its card (needs AFFEKT_DATA; half an hour)
# make refusals    which recordings of music, noise, vocal bursts and speech the shipped model refuses; the tables become part of
#                  its card and of docs/confidence.md (needs AFFEKT_DATA; 10 minutes; SOUNDS="music=FOLDER" adds sounds)
# make quantized   benchmark: the shipped graph beside graphs with 8-bit weights: speed, size and scores (needs AFFEKT_DATA)
# make frames      benchmark: the shipped model with half of the encoder's frames (needs AFFEKT_DATA)
# make timeline    benchmark: processor time and memory of the timelines of one hour, with many and few pauses, and of ten
# make load        benchmark: the service at 1 to 200 connections, and write the figures of docs/serving.md (needs wrk; 3 minutes)
# make fuzz        decode 20,000 damaged files of 20 formats; fails if one escapes as another error, hangs or crashes
# make results     train all models with several seeds, run the architecture searches and write docs/results.md and
#                  docs/results-page.html (needs AFFEKT_DATA and AFFEKT_MODELS; a day on one core; can be stopped and resumed)
# make model       train the shipped model again (needs AFFEKT_DATA and AFFEKT_MODELS)
# make web         build the web page into src/affekt/serving/page, with the packages of web/package-lock.json (needs Node.js)
# make samples     synthesize samples/ again (needs espeak-ng)

PYTHON ?= python3
RUN := .venv-run
DEV := .venv-dev
DOCS := .venv-docs
BIN := $(if $(filter Windows_NT,$(OS)),Scripts,bin)

.PHONY: run static check test pytest golden coverage docs bench extraction speakers recurrent supernet throughput lengths cost scale speed shifts refusals quantized frames timeline load fuzz results model web samples clean

run: $(RUN)/installed
	$(RUN)/$(BIN)/affekt recognize samples

# Compiled bytecode is kept, since otherwise every process that a test starts compiles the package again.
unexport PYTHONDONTWRITEBYTECODE

PYTEST := $(DEV)/$(BIN)/pytest --numprocesses auto --dist worksteal

static: $(DEV)/installed
	$(DEV)/$(BIN)/ruff check
	$(DEV)/$(BIN)/ruff format --check
	$(DEV)/$(BIN)/mypy

check: static
	$(PYTEST) -m "not slow and not data"

# The linters and the type checker, which use one core, run beside the tests.
test: $(DEV)/installed
	$(MAKE) --no-print-directory --jobs 2 static pytest

pytest: $(DEV)/installed
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

# The last commit before fractal attention had kernels.
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

quantized: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks/quantized.py

speed: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks/speed_page.py docs/speed.md

frames: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks/fewer_frames.py

scale: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks --only rates encoder_runtimes folder
	$(DEV)/$(BIN)/python benchmarks/scale_page.py docs/scale.md

timeline: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks/timeline.py
	$(DEV)/$(BIN)/python benchmarks/timeline.py --pauses 2.5
	$(DEV)/$(BIN)/python benchmarks/timeline.py --hours 10 --runs 1

load: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks/load.py --page docs/serving.md

fuzz: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks/fuzz.py --seed $(or $(SEED),0)

shifts: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks/shifts.py --clips 180 --record

refusals: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks/refusals.py --record --page docs/confidence.md $(foreach sounds,$(SOUNDS),--sounds $(sounds))

RUNS := runs/papers
REFERENCES := $(foreach run,random-split/vanilla unseen-actors/mcsan unseen-actors/ks_transformer unseen-actors/tdfnet emodb/vanilla meld/mcsan-glove,--against $(RUNS)/$(run))
results: $(DEV)/installed
	$(DEV)/$(BIN)/python benchmarks/studies.py --runs $(RUNS)
	$(DEV)/$(BIN)/affekt report $(RUNS) $(REFERENCES) --output docs/results.md
	$(DEV)/$(BIN)/affekt report $(RUNS) $(REFERENCES) --no-models --output docs/results-page.html

model: $(DEV)/installed
	$(DEV)/$(BIN)/affekt train default --output src/affekt/assets/default

web:
	cd web && npm ci --ignore-scripts --no-audit --no-fund && npm run build

samples:
	$(PYTHON) samples/make.py

# An environment is installed again when the requirements change. The package is installed in editable mode.
$(RUN)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(RUN)
	$(RUN)/$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

# torch is installed first, so that packages that depend on it do not replace it with another build. Modules are compiled when
# they are first imported: most are never used.
$(DEV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEV)
	$(DEV)/$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(DEV)/$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

$(DOCS)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf $(RUN) $(DEV) $(DOCS) site
