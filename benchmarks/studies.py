"""Train the runs that docs/results.md reports: `make results`.

All models use their small presets. The runs are MSTR's sweeps of p and L on its paper's random split; all models with and
without text, and their ablations, on unseen actors of CREMA-D; the speech models on EmoDB, leaving one speaker out; MELD's
text; and the two architecture searches. All runs are first trained with one seed, then with the others. Finished runs are
skipped and an interrupted run is resumed, so the command can be stopped at any time; the report covers what is finished.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

Assignments = tuple[str, ...]

SPEAKER_FOLDS: Assignments = ('protocol={name="speaker-folds",k=5,validation=0.125}', "folds=[1]")
FLOAT32: Assignments = ("training.strategy.precision=float32",)
"""For MSTR's recipes, whose bfloat16 is slower on processors without instructions for it."""
LEAVE_ONE_OUT: Assignments = (
    'corpora=["emodb"]',
    'labels="emodb-7"',
    'protocol={name="leave-one-speaker-out"}',
    "folds=[]",
    "training.epochs=20",
)
SPEECH_ONLY: Mapping[str, Assignments] = {
    "mstr": (),
    "vanilla": (),
    "mcsan": ("model.modalities=speech",),
    "ks_transformer": ("model.modalities=speech",),
    "tdfnet": ("model.path=audio", "model.mutual=false", "model.speaker=false"),
}
"""The models, and the settings that leave out what is not speech."""
ABLATIONS: Mapping[str, Mapping[str, Assignments]] = {
    "mcsan": {
        "without-cross": ("model.modules=self",),
        "without-self": ("model.modules=cross",),
        "self+cross": ("model.modules=self+cross",),
        "cross+self": ("model.modules=cross+self",),
    },
    "ks_transformer": {
        "without-ccab": ("model.ccabs=0",),
        "without-dfm": ("model.fusion_layers=0",),
        "without-fem": ("model.extraction_layers=0",),
    },
    "tdfnet": {
        "without-dst": ("model.deep_scale=none",),
        "without-mt": ("model.mutual=false", "model.speaker=false"),
    },
}
"""Rows of the papers' ablations: MCSAN's Table 3, KS-Transformer's Tables 1 and 2, TDFNet's Table V."""
SEARCHES = ("emotionnas-cremad", "emotionnas-emodb")


def sweeps() -> Iterator[tuple[str, str, Assignments]]:
    """Yield MSTR's Figure 3: the factor p with four scales, and the number of scales L with p = 3."""
    yield "random-split/vanilla", "vanilla-cremad", FLOAT32
    yield "random-split/mstr", "mstr-cremad", FLOAT32
    for factor in (2, 4, 5):
        yield f"random-split/mstr-p{factor}", "mstr-cremad", (f"model.factor={factor}", *FLOAT32)
    for scales in (1, 2, 3):
        yield f"random-split/mstr-L{scales}", "mstr-cremad", (f"model.scales={scales}", *FLOAT32)


def unseen_actors() -> Iterator[tuple[str, str, Assignments]]:
    """Yield all models on the same 18 actors of CREMA-D, with and without text, then the ablations."""
    for model, speech_only in SPEECH_ONLY.items():
        settings = () if speech_only else (*SPEAKER_FOLDS, *FLOAT32)
        yield f"unseen-actors/{model}", f"{model}-cremad", settings
        if speech_only:
            yield f"unseen-actors/{model}-speech", f"{model}-cremad", speech_only
    for model, rows in ABLATIONS.items():
        for row, settings in rows.items():
            yield f"unseen-actors/{model}-{row}", f"{model}-cremad", settings


def trainings() -> Iterator[tuple[str, str, Assignments]]:
    """Yield the folder, recipe and settings of every training."""
    yield from sweeps()
    yield from unseen_actors()
    for model, speech_only in SPEECH_ONLY.items():
        yield f"emodb/{model}", f"{model}-cremad", (*LEAVE_ONE_OUT, *(speech_only or FLOAT32))
    yield "meld/mcsan-glove", "mcsan-meld", ()
    minilm = 'features.text={name="minilm",folder="minilm-l6-v2"}'
    yield "meld/mcsan-minilm", "mcsan-meld", (minilm, "training.epochs=8")


def run(arguments: Sequence[str]) -> None:
    """Run a command of affekt in a process of its own; the first that fails ends the program with its exit code."""
    print("affekt " + " ".join(arguments), flush=True)
    if code := subprocess.run([sys.executable, "-m", "affekt", *arguments]).returncode:
        sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train what docs/results.md reports. Needs AFFEKT_DATA and AFFEKT_MODELS."
    )
    parser.add_argument(
        "parts", nargs="*", help="beginnings of folders, such as emodb; by default all, and the searches"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/papers"), help="the folder of the runs")
    parser.add_argument("--seeds", type=int, default=3, help="seeds per training")
    options = parser.parse_args()
    chosen = [training for training in trainings() if training[0].startswith(tuple(options.parts or [""]))]
    for repeats in sorted({1, options.seeds}):
        for folder, recipe, settings in chosen:
            name = folder.replace("/", "-")
            run(["train", recipe, f"name={name}", *settings, f"repeats={repeats}", "--run", str(options.runs / folder)])
    for search in () if options.parts else SEARCHES:
        run(["search", search, "--workers", "2", "--no-bundles", "--run", str(options.runs / search)])


if __name__ == "__main__":
    main()
