"""The one training loop: epochs, order, predictions after every epoch, and resumption at the last finished one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from affekt.checkpoint import load_state, save_state
from affekt.data import Dataset, scoring_batches, training_batches
from affekt.errors import BadConfig
from affekt.evaluation.selection import PART, select
from affekt.run import Run
from affekt.training.distributed import wait
from affekt.training.strategy import Strategy


def fit(
    strategy: Strategy,
    train: Dataset,
    scored: Mapping[str, Dataset],
    run: Run,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    patience: int = 0,
    sampling: str = "plain",
    rank: int = 0,
    world: int = 1,
    say: Callable[[str], None] = print,
) -> None:
    """Train to `epochs`, going on where the run folder stands; equal to the last bit to a run that was never stopped.

    After every epoch the predictions on every part in `scored` are kept in the run folder.
    patience: epochs without a better UA on the validation part after which training ends; 0 for never.
    sampling: "plain", every utterance once an epoch; "balanced", every emotion equally often.
    """
    done = 0
    if run.checkpoint.is_file():
        state = load_state(run.checkpoint)
        strategy.restore(state["strategy"])
        done = state["epoch"]
        say(f"going on after epoch {done} of {epochs}")
    for epoch in range(done + 1, epochs + 1):
        if patience and done_waiting(run, patience):
            say(f"no better UA on the validation part for {patience} epochs: ended after epoch {epoch - 1}")
            return
        began = time.perf_counter()
        # An epoch's randomness depends on nothing but seed, epoch and rank: resuming needs no generator's state.
        torch.manual_seed(_mixed_seed(seed, epoch, rank))
        generator = np.random.default_rng([seed, epoch])
        heard = train.drawn(generator)
        order = list(
            training_batches(
                heard.lengths(),
                batch_size,
                generator,
                rank=rank,
                world=world,
                labels=heard.labels if sampling == "balanced" else None,
            )
        )
        if not order:
            raise BadConfig(f"{len(heard)} utterances in batches of {batch_size} do not go round {world} processes")
        entries = []
        for number, indices in enumerate(order):
            progress = (epoch - 1 + number / len(order)) / epochs
            entries.append(strategy.step(heard.batch(indices), progress))
        means = {name: float(np.mean([entry[name] for entry in entries])) for name in entries[0]}
        if not all(np.isfinite(value) for value in means.values()):
            raise BadConfig(
                f"epoch {epoch} gave {means}: the training has come apart; try a lower learning_rate, or clip"
            )
        if rank == 0:
            predictions = {part: predict(strategy, dataset, batch_size) for part, dataset in scored.items()}
            means["seconds"] = round(time.perf_counter() - began, 2)
            run.record(epoch, predictions, means)
            save_state(dict(strategy.weights()), run.weights(epoch))
            save_state({"epoch": epoch, "strategy": strategy.state()}, run.checkpoint)
            _forget(run, epoch)
            say(_line(epoch, epochs, means, predictions, scored))
        wait()


def done_waiting(run: Run, patience: int) -> bool:
    """Whether the best epoch by the validation part lies `patience` epochs back."""
    return bool(run.epochs) and run.epochs[-1] - select(run, "validation") >= patience


def _forget(run: Run, epoch: int) -> None:
    """Keep the weights of the last epoch, and of the best by every rule that the run's parts allow."""
    parts = run.predictions(epoch)
    kept = {epoch, *(select(run, rule) for rule, part in PART.items() if part in parts)}
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


def _line(
    epoch: int,
    epochs: int,
    means: Mapping[str, float],
    predictions: Mapping[str, NDArray[np.float32]],
    scored: Mapping[str, Dataset],
) -> str:
    entries = [f"epoch {epoch}/{epochs}", *(f"{name} {value:.4g}" for name, value in means.items())]
    for part, probabilities in predictions.items():
        if part != "test":  # a test score that is watched while training goes on is no longer one
            right = probabilities.argmax(axis=1) == scored[part].labels
            entries.append(f"{part} WA {right.mean():.1%}")
    return "  ".join(entries)
