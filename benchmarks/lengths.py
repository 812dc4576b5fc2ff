"""Time whole models over ever longer speech: `mstr` and `vanilla`, 1 s to 20 min, forward pass and training step.

    python benchmarks/lengths.py [--threads 2] [--up-to 1200] [--longest 600] [--resume]

Both models have the paper's widths and depth (1024 features, 4 blocks, 16 heads) and take any length. The input is one
utterance of HuBERT frames, 50 per second, without a mask, because no frame is padding. A training step is
`Supervised.step`: forward, backward and Adam. It has no dropout on attention weights unless --attention-dropout asks for it:
with dropout torch has no fused attention on a CPU, and full attention then stores more weights than fit into memory: 230 GB
in each block for 20 min.

The attention of each model's four blocks is also timed alone, without projections and dropout. The models and their
attentions take turns, with fewer runs for longer speech. A measurement is left out if one of its runs would take more than
--longest seconds, judging by the next shorter length. --resume makes only the measurements that the results file lacks, so
that a benchmark can be finished in several sessions. A training step for 20 min needs about 12 GB of memory.

Writes results/lengths.json after every measurement; `lengths_page.py` reads it.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import harness
import torch
from attention import STEPS as ATTENTION_STEPS
from attention import fractal, full, random_inputs
from lengths_page import crossing, format_length
from lengths_results import BASELINE, MSTR, STEPS, Floor, Lengths, ModelName, Step, Time, read_lengths
from limits import bandwidth, product_rate

import affekt
from affekt.batch import Batch, Stream
from affekt.cost import cost
from affekt.models import models
from affekt.models.base import EmotionModel
from affekt.training.supervised import Supervised, SupervisedConfig

SPEECH = (1, 2, 5, 6.52, 10, 30, 60, 120, 300, 600, 1200)  # s; 6.52 s are the paper's 326 frames
FRAME_RATE, NUM_EMOTIONS = 50, 4
ANY_LENGTH = {"frames": "any", "masked": True, "norm": "features"}
OPERATIONS: dict[ModelName, Any] = {MSTR: fractal, BASELINE: full}
# From this length on, attention alone is not timed for training steps, because that would take another hour.
ATTENTION_LIMIT_SECONDS = 300
GROWTH = {MSTR: 1, BASELINE: 2}  # the highest power of the length with which the time can grow


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    lengths = earlier_results(options) if options.resume else None
    if lengths is None:
        lengths = Lengths(
            harness.machine(),
            max(bandwidth(options.threads).values()),
            product_rate(options.threads),
            options.attention_dropout,
            times=(),
            floors=(),
            code=hash_code(),
        )
    for speech in [speech for speech in SPEECH if speech <= options.up_to]:
        known = {(floor.model, floor.speech) for floor in lengths.floors}
        new_floors = [floor(model, speech) for model in OPERATIONS if (model, speech) not in known]
        lengths = replace(lengths, floors=(*lengths.floors, *new_floors))
        for step in STEPS:
            due = [model for model in OPERATIONS if is_due(lengths, model, step, speech, options.longest)]
            if due:
                lengths = replace(lengths, times=(*lengths.times, *measure(due, step, speech, options)))
                harness.write(options.name, asdict(lengths))
                show(lengths, step, speech)
    print_summary(lengths)
    print(f"wrote {harness.write(options.name, asdict(lengths))}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="number of runs; fewer for more than a minute of speech")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--up-to", type=float, default=SPEECH[-1], help="longest speech, in seconds")
    parser.add_argument("--longest", type=float, default=600.0, help="most seconds that one run of a model may take")
    parser.add_argument("--attention-dropout", type=float, default=0.0)
    parser.add_argument("--resume", action="store_true", help="make only the measurements that the results file lacks")
    parser.add_argument("--name", default="lengths", help="name of the results file, without .json")
    return parser.parse_args()


def earlier_results(options: argparse.Namespace) -> Lengths | None:
    """Return the measurements so far, if any; exit if they were made in another way."""
    path = harness.RESULTS / f"{options.name}.json"
    if not path.exists():
        return None
    lengths = read_lengths(path, complete=False)
    for name, before, now in (
        ("machine", lengths.machine, harness.machine()),
        ("attention dropout", lengths.attention_dropout, options.attention_dropout),
        ("code of the networks", lengths.code, hash_code()),
    ):
        if before != now:
            sys.exit(
                f"{path} was measured with another {name} ({before}, now {now}): leave out --resume to start again"
            )
    return lengths


def hash_code() -> str:
    """Return a hash of the files that the times depend on: the networks and the training step."""
    package = Path(affekt.__file__).parent
    files = [*sorted((package / "models").rglob("*.py")), package / "training" / "supervised.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def is_due(lengths: Lengths, model: ModelName, step: Step, speech: float, longest: float) -> bool:
    """Return whether the measurement is missing and one of its runs will take at most `longest` seconds."""
    before = lengths.times_of(model, step)
    if speech in before:
        return False
    shorter = [time for time in before.values() if time.speech < speech]
    expected = shorter[-1].seconds * (speech / shorter[-1].speech) ** GROWTH[model] if shorter else 0.0
    if expected > longest:
        print(
            f"skipped: {model}, {step}, {format_length(speech)}; a run would take up to {expected:.0f} s",
            flush=True,
        )
    return expected <= longest


def measure(names: list[ModelName], step: Step, speech: float, options: argparse.Namespace) -> Iterator[Time]:
    """Time each model and its attention alone, in turns."""
    frames = round(speech * FRAME_RATE)
    inputs, gradient = random_inputs(1, frames)
    attend = ATTENTION_STEPS["forward" if step == "forward" else "both"]
    warm_up, batch = (
        Batch({"speech": Stream(torch.randn(1, size, 1024))}, labels=torch.zeros(1, dtype=torch.long))
        for size in (FRAME_RATE, frames)
    )
    turns: dict[str, Callable[[], object]] = {}
    for model in names:
        run = make_runner(build(model, options.attention_dropout), step)
        run(warm_up)  # one second of speech: loads the kernels, and the optimizer allocates its moments
        turns[model] = partial(run, batch)
        if step == "forward" or speech < ATTENTION_LIMIT_SECONDS:
            turns[f"{model}'s attention"] = partial(attend, OPERATIONS[model], inputs, gradient)
    runs = options.runs if speech <= 60 else min(options.runs, 3 if speech < 300 else 1)
    # If a run takes minutes, a warm-up run changes less than it costs.
    times = harness.interleaved(turns, runs, clock=harness.clock_for(options.threads), warm=speech < 300)
    for model in names:
        blocks = models[model].Config().blocks
        alone = times.get(f"{model}'s attention")
        attention = None if alone is None else blocks * alone / 1000
        yield Time(model, step, speech, frames, runs, times[model] / 1000, attention)


def build(model: ModelName, dropout: float) -> EmotionModel:
    torch.manual_seed(0)
    return models[model](models[model].Config(**ANY_LENGTH, attention_dropout=dropout), NUM_EMOTIONS)


def make_runner(model: EmotionModel, step: Step) -> Callable[[Batch], object]:
    if step == "forward":
        return torch.no_grad()(model.eval())
    return partial(Supervised(model, SupervisedConfig()).step, progress=0.5)


def floor(model: ModelName, speech: float) -> Floor:
    """Return the least work of a forward pass.

    The numbers read and written, per frame and block: 1 + 3 widths for the projections, 3 + 1 for attention, 1 + 1 for its
    output, 2 + 1 for each residual with its norm, 1 + 1 and twice the inner width for the feed-forward layer. Every weight
    is read once.
    """
    config = models[model].Config()
    frames = round(speech * FRAME_RATE)
    settings = [f"{key}={value}".lower() for key, value in ANY_LENGTH.items()]
    counted = cost(model, frames=frames, emotions=NUM_EMOTIONS, settings=settings)
    numbers = frames * config.blocks * (18 * config.dim + 2 * config.feedforward) + counted.parameters
    return Floor(model, speech, 4 * numbers, counted.flops)


def show(lengths: Lengths, step: Step, speech: float) -> None:
    times = [lengths.times_of(model, step).get(speech) for model in (MSTR, BASELINE)]
    texts = [
        f"{time.model} {time.seconds:.4g} s"
        + (f", attention {time.attention_fraction:.0%}" if time.attention_fraction else "")
        for time in times
        if time
    ]
    ratio = lengths.ratios(step).get(speech)
    print(
        f"{format_length(speech)}, {step}: {'; '.join(texts)}" + (f"; ratio {ratio:.2f}" if ratio else ""),
        flush=True,
    )


def print_summary(lengths: Lengths) -> None:
    rows = [
        [format_length(speech), *(f"{lengths.ratios(step).get(speech, float('nan')):.2f}" for step in STEPS)]
        for speech in lengths.times_of(MSTR, STEPS[0])
    ]
    harness.table(["speech", *(f"{step}: vanilla's time / mstr's" for step in STEPS)], rows)
    for step in STEPS:
        start = crossing(lengths.ratios(step), 1.0)
        print(
            f"{step}: " + ("mstr is not faster" if start is None else f"mstr is faster from {format_length(start)} on")
        )


if __name__ == "__main__":
    main()
