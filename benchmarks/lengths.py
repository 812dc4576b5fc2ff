"""Whole models over ever longer speech: `mstr` beside `vanilla`, from 1 s to 20 min, forward and in a training step.

    python benchmarks/lengths.py [--threads 2] [--up-to 1200] [--longest 600] [--resume]

Both have the paper's widths and depth (1024 features, 4 blocks, 16 heads) and take any length. One utterance of HuBERT's
frames, 50 a second, is given without a mask, for all of it is real. A training step is `Supervised.step`: forward, backward
and Adam. It drops no attention weights unless --attention-dropout asks for it: with dropout torch has no fused attention
on a processor, and the weights that full attention then stores are more than memory holds, of 20 min 230 GB.

Beside each model the attention of its four blocks is timed alone, without projections and dropout. All sides take turns;
the longer the speech the fewer the runs. What takes longer than --longest seconds, to judge by the length before, is left
out; --resume keeps what the results hold already, so that they can be made in pieces. At 20 min a training step holds some
12 GB.

Writes results/lengths.json, which `affekt cost --output docs/cost.md --lengths` reads, after every measurement.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import sides
import torch
from attention import STEPS as ATTENTION_STEPS
from attention import fractal, full, made
from limits import bandwidth, product_rate

import affekt
from affekt.batch import Batch, Stream
from affekt.cost import cost
from affekt.models import models
from affekt.models.base import EmotionModel
from affekt.reports.lengths import OTHER, OURS, STEPS, Floor, Lengths, Step, Time, reached, read, span
from affekt.training.supervised import Supervised, SupervisedConfig

SPEECH = (1, 2, 5, 6.52, 10, 30, 60, 120, 300, 600, 1200)  # s; 6.52 are the paper's 326 frames
FRAME_RATE, EMOTIONS = 50, 4
ModelName = Literal["mstr", "vanilla"]
ANY_LENGTH = {"frames": "any", "masked": True, "norm": "features"}
OPERATIONS: dict[ModelName, Any] = {"mstr": fractal, "vanilla": full}
ALONE = 300  # seconds of speech from which on a training step's attention is not timed alone: it would double the hour
GROWTH = {OURS: 1, OTHER: 2}  # the power of the length with which time grows at most


def main() -> None:
    options = asked()
    torch.set_num_threads(options.threads)
    found = resumed(options) if options.resume else None
    if found is None:
        found = Lengths(
            sides.machine(),
            max(bandwidth(options.threads).values()),
            product_rate(options.threads),
            options.attention_dropout,
            times=(),
            floors=(),
            code=code(),
        )
    for speech in [one for one in SPEECH if one <= options.up_to]:
        known = {(one.model, one.speech) for one in found.floors}
        found = replace(
            found, floors=(*found.floors, *(floor(m, speech) for m in OPERATIONS if (m, speech) not in known))
        )
        for step in STEPS:
            wanted = [model for model in OPERATIONS if due(found, model, step, speech, options.longest)]
            if wanted:
                found = replace(found, times=(*found.times, *measured(wanted, step, speech, options)))
                sides.write(options.name, asdict(found))
                show(found, step, speech)
    summary(found)
    print(f"wrote {sides.write(options.name, asdict(found))}")


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="up to a minute of speech; fewer beyond")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--up-to", type=float, default=SPEECH[-1], help="seconds of speech")
    parser.add_argument("--longest", type=float, default=600.0, help="seconds that a run of one model may take")
    parser.add_argument("--attention-dropout", type=float, default=0.0)
    parser.add_argument("--resume", action="store_true", help="keep what the results hold, and measure the rest")
    parser.add_argument("--name", default="lengths", help="of the results' file, without .json")
    return parser.parse_args()


def resumed(options: argparse.Namespace) -> Lengths | None:
    """The results so far, if there are any, where they were made in the same way."""
    path = sides.RESULTS / f"{options.name}.json"
    if not path.exists():
        return None
    found = read(path, whole=False)
    for what, before, now in (
        ("machine", found.machine, sides.machine()),
        ("attention dropout", found.attention_dropout, options.attention_dropout),
        ("the networks' code", found.code, code()),
    ):
        if before != now:
            sys.exit(f"{path} was made with {what} {before}, and this would be {now}: leave out --resume to begin anew")
    return found


def code() -> str:
    """What the times depend on, of ours: a hash of the networks and of the training step."""
    package = Path(affekt.__file__).parent
    files = [*sorted((package / "models").rglob("*.py")), package / "training" / "strategy.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def due(found: Lengths, model: str, step: Step, speech: float, longest: float) -> bool:
    """Whether it is not measured yet, and will not take too long."""
    before = found.of(model, step)
    if speech in before:
        return False
    shorter = [one for one in before.values() if one.speech < speech]
    expected = shorter[-1].took * (speech / shorter[-1].speech) ** GROWTH[model] if shorter else 0.0
    if expected > longest:
        print(f"left out: {model}, {step}, {span(speech)}, which would take up to {expected:.0f} s", flush=True)
    return expected <= longest


def measured(wanted: list[ModelName], step: Step, speech: float, options: argparse.Namespace) -> Iterator[Time]:
    """Each model and its attention alone, in turns."""
    frames = round(speech * FRAME_RATE)
    given, gradient = made(1, frames)
    attend = ATTENTION_STEPS["forward" if step == "forward" else "both"]
    second, batch = (
        Batch({"speech": Stream(torch.randn(1, size, 1024))}, labels=torch.zeros(1, dtype=torch.long))
        for size in (FRAME_RATE, frames)
    )
    turns: dict[str, Callable[[], object]] = {}
    for model in wanted:
        run = runner(built(model, options.attention_dropout), step)
        run(second)  # kernels are loaded, and the optimiser has its moments
        turns[model] = partial(run, batch)
        if step == "forward" or speech < ALONE:
            turns[f"{model}'s attention"] = partial(attend, OPERATIONS[model], given, gradient)
    runs = options.runs if speech <= 60 else min(options.runs, 3 if speech < 300 else 1)
    # Where a run takes minutes, a first one to warm up changes less than it costs.
    times = sides.interleaved(turns, runs, clock=sides.clock_for(options.threads), warm=speech < 300)
    for model in wanted:
        blocks = models[model].Config().blocks
        alone = times.get(f"{model}'s attention")
        attention = None if alone is None else blocks * alone / 1000
        yield Time(model, step, speech, frames, runs, times[model] / 1000, attention)


def built(model: ModelName, dropout: float) -> EmotionModel:
    torch.manual_seed(0)
    return models[model](models[model].Config(**ANY_LENGTH, attention_dropout=dropout), EMOTIONS)


def runner(model: EmotionModel, step: Step) -> Callable[[Batch], object]:
    if step == "forward":
        return torch.no_grad()(model.eval())
    return partial(Supervised(model, SupervisedConfig()).step, progress=0.5)


def floor(model: ModelName, speech: float) -> Floor:
    """Of a forward pass. Bytes: per frame and block, in numbers read and written: 1 + 3 widths for the projections, 3 + 1
    for attention, 1 + 1 for its output, 2 + 1 for each residual with its norm, 1 + 1 and twice the inner width for the
    feed-forward; and every weight once."""
    config = models[model].Config()
    frames = round(speech * FRAME_RATE)
    settings = [f"{key}={value}".lower() for key, value in ANY_LENGTH.items()]
    counted = cost(model, frames=frames, emotions=EMOTIONS, settings=settings)
    numbers = frames * config.blocks * (18 * config.dim + 2 * config.feedforward) + counted.parameters
    return Floor(model, speech, 4 * numbers, counted.flops)


def show(found: Lengths, step: Step, speech: float) -> None:
    both = [found.of(model, step).get(speech) for model in (OURS, OTHER)]
    told = [
        f"{one.model} {one.took:.4g} s" + (f", attention {one.share:.0%}" if one.share else "") for one in both if one
    ]
    ratio = found.ratios(step).get(speech)
    print(f"{span(speech)}, {step}: {'; '.join(told)}" + (f"; ratio {ratio:.2f}" if ratio else ""), flush=True)


def summary(found: Lengths) -> None:
    rows = [
        [span(speech), *(f"{found.ratios(step).get(speech, float('nan')):.2f}" for step in STEPS)]
        for speech in found.of(OURS, STEPS[0])
    ]
    sides.table(["speech", *(f"{step}: vanilla's time by mstr's" for step in STEPS)], rows)
    for step in STEPS:
        start = reached(found.ratios(step), 1.0)
        print(f"{step}: mstr is the faster " + ("nowhere" if start is None else f"from {span(start)} on"))


if __name__ == "__main__":
    main()
