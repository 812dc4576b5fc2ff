"""The one training loop: epochs, order, predictions after every epoch, and resumption at the last finished one."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from affekt.errors import BadConfig, Diverged
from affekt.evaluation.metrics import confusion, ua
from affekt.runs.folder import Run
from affekt.runs.selection import SELECTION_SUBSET, out_of_patience, select_epoch
from affekt.training.checkpoint import load_state, save_state
from affekt.training.dataset import Dataset, scoring_batches, training_batches
from affekt.training.distributed import wait
from affekt.training.strategies import Strategy

logger = logging.getLogger(__name__)


def fit(
    strategy: Strategy,
    train: Dataset,
    scored: Mapping[str, Dataset],
    run: Run,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    until: int | None = None,
    patience: int = 0,
    sampling: str = "plain",
    rank: int = 0,
    world: int = 1,
) -> None:
    """Train to `epochs`, going on where the run folder stands; equal to the last bit to a run that was never stopped.

    After every epoch the predictions on every part in `scored` are kept in the run folder.
    until: the epoch after which to stop for now, of a training that is laid out for `epochs`.
    patience: epochs without a better UA on the validation part after which training ends; 0 for never.
    sampling: "plain", every utterance once an epoch; "balanced", every emotion equally often.
    Raises `Diverged` where the loss is no longer a number, `BadConfig` where there are fewer batches than processes.
    """
    done = _resumed(strategy, run, rank)
    if done:
        logger.info("resuming after epoch %d of %d", done, epochs)
    started = time.perf_counter()
    until = min(until or epochs, epochs)
    for epoch in range(done + 1, until + 1):
        if out_of_patience(run, patience):
            logger.info(
                "no better UA on the validation subset for %d epochs: stopped after epoch %d", patience, epoch - 1
            )
            return
        began = time.perf_counter()
        heard, order = drawn(train, seed, epoch, batch_size, sampling=sampling, rank=rank, world=world)
        entries = []
        for number, indices in enumerate(order):
            progress = (epoch - 1 + number / len(order)) / epochs
            entries.append(strategy.step(heard.batch(indices), progress))
        means = _means(entries, epoch)
        if rank == 0:
            predictions = {part: predict(strategy, dataset, batch_size) for part, dataset in scored.items()}
            means["seconds"] = round(time.perf_counter() - began, 2)
            # Weights first: an epoch that has predictions can then be chosen, wherever a kill falls.
            save_state(dict(strategy.weights()), run.weights_path(epoch))
            run.record(epoch, predictions, {**means, **strategy.notes()})
            save_state({"epoch": epoch, "strategy": strategy.state()}, run.checkpoint_path)
            _forget(run, epoch)
            left = (time.perf_counter() - started) / (epoch - done) * (until - epoch)
            logger.info("%s", _line(run, epoch, epochs, means, left))
        wait()


def _resumed(strategy: Strategy, run: Run, rank: int) -> int:
    """The last finished epoch, its state given to the strategy; 0 where there is none."""
    done = 0
    if run.checkpoint_path.is_file():
        state = load_state(run.checkpoint_path)
        strategy.restore(state["strategy"])
        done = state["epoch"]
    if rank == 0:
        run.discard_after(done)
    wait()
    return done


def drawn(
    train: Dataset, seed: int, epoch: int, batch_size: int, *, sampling: str = "plain", rank: int = 0, world: int = 1
) -> tuple[Dataset, list[list[int]]]:
    """What an epoch hears, and in which batches.

    An epoch's randomness depends on nothing but seed, epoch and rank: resuming needs no generator's state.
    """
    torch.manual_seed(_mixed_seed(seed, epoch, rank))
    generator = np.random.default_rng([seed, epoch])
    heard = train.drawn(generator)
    labels = heard.labels if sampling == "balanced" else None
    order = list(training_batches(heard.lengths(), batch_size, generator, rank=rank, world=world, labels=labels))
    if not order:
        raise BadConfig(
            f"{len(heard)} utterances in batches of {batch_size} do not go round {world} processes: "
            "take a smaller batch_size, or fewer processes"
        )
    return heard, order


def _means(entries: list[dict[str, float]], epoch: int) -> dict[str, float]:
    means = {name: float(np.mean([entry[name] for entry in entries])) for name in entries[0]}
    if not all(np.isfinite(value) for value in means.values()):
        raise Diverged(f"epoch {epoch} gave {means}: the training has come apart; try a lower learning_rate, or clip")
    return means


def _forget(run: Run, epoch: int) -> None:
    """Keep the weights of the last epoch, and of the best by every rule that the run's parts allow."""
    parts = run.predictions(epoch)
    kept = {epoch, *(select_epoch(run, rule) for rule, part in SELECTION_SUBSET.items() if part in parts)}
    for path in (run.folder / "weights").glob("[0-9]*.safetensors"):
        if int(path.stem) not in kept:
            path.unlink()


def predict(strategy: Strategy, dataset: Dataset, batch_size: int) -> NDArray[np.float32]:
    """Probabilities, (utterances, emotions), in the dataset's order."""
    pieces: dict[int, NDArray[np.float32]] = {}
    for indices in scoring_batches(dataset.lengths(), batch_size):
        pieces.update(zip(indices, strategy.predict(dataset.batch(indices)).cpu().numpy(), strict=True))
    return np.stack([pieces[index] for index in range(len(dataset))])


def _mixed_seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _line(run: Run, epoch: int, epochs: int, means: Mapping[str, float], left: float) -> str:
    """An epoch in a line: "epoch  3/20  loss 0.964  validation UA 45.1 %  0.5 s, 9 s left"."""
    entries = [f"epoch {epoch:>{len(str(epochs))}}/{epochs}"]
    entries += [f"{name} {value:.3f}" for name, value in means.items() if name != "seconds"]
    predictions = run.predictions(epoch)
    if "validation" in predictions:  # alone: a test score that is watched while training goes on is no longer one
        counts = confusion(run.labels("validation"), predictions["validation"].argmax(axis=1), len(run.emotions))
        entries.append(f"validation UA {ua(counts):5.1%}")
    seconds = f"{means['seconds']:.1f} s"
    return "  ".join([*entries, seconds + (f", {_span(left)} left" if epoch < epochs else "")])


def _span(seconds: float) -> str:
    """9 s, 3 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
