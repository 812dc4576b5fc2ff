"""The training loop: epochs, the order of batches, predictions after every epoch, and resuming after an interruption."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from affekt.errors import BadConfig, Diverged
from affekt.evaluation.metrics import confusion, cross_entropy, ua, wa, wf1
from affekt.runs.folder import Run
from affekt.runs.selection import SELECTION_SUBSET, StoppingMetric, out_of_patience, select_epoch
from affekt.training.checkpoint import load_state, save_state
from affekt.training.dataset import Dataset, sample_groups, scoring_batches, training_batches
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
    patience_metric: StoppingMetric = "UA",
    score_train: bool = False,
    sampling: str = "plain",
    rank: int = 0,
    world: int = 1,
) -> None:
    """Train for `epochs` epochs, resuming after the last finished epoch in the run folder.

    After every epoch the predictions on all subsets in `scored` are recorded in the run folder. A resumed run reaches
    weights that are bit-identical to those of an uninterrupted one.

    Args:
        strategy: The strategy, which trains on one batch at a time.
        train: The utterances to train on.
        scored: Subset -> the utterances to predict after every epoch.
        run: The run folder.
        epochs: The number of epochs of the whole run.
        batch_size: Utterances in a batch.
        seed: The seed of the order of batches and of all random choices.
        until: The epoch to stop after; the run can be continued later. None for the last.
        patience: Epochs without a better score on the validation subset after which training stops; 0 for never.
        patience_metric: The score that must improve, or the loss, which must fall.
        score_train: Also log the loss, UA, WA and WF1 on the training subset, without augmentation.
        sampling: "plain" uses every utterance once an epoch, "balanced" samples every emotion equally often,
            "corpora" every corpus in proportion to the square root of its size.
        rank: The number of this process, from 0.
        world: The number of processes.

    Raises:
        BadConfig: There are fewer batches than processes.
        Diverged: The loss became NaN or infinite.
    """
    done = _resume(strategy, run, rank)
    if done:
        logger.info("resuming after epoch %d of %d", done, epochs)
    start = time.perf_counter()
    until = min(until or epochs, epochs)
    for epoch in range(done + 1, until + 1):
        if out_of_patience(run, patience, patience_metric):
            better = "lower loss" if patience_metric == "loss" else f"better {patience_metric}"
            logger.info(
                "no %s on the validation subset for %d epochs: stopped after epoch %d", better, patience, epoch - 1
            )
            return
        epoch_start = time.perf_counter()
        dataset, batches = prepare_epoch(train, seed, epoch, batch_size, sampling=sampling, rank=rank, world=world)
        entries = []
        for number, indices in enumerate(batches):
            progress = (epoch - 1 + number / len(batches)) / epochs
            entries.append(strategy.step(dataset.batch(indices), progress))
        means = _means(entries, epoch)
        if rank == 0:
            predictions = {subset: predict(strategy, dataset, batch_size) for subset, dataset in scored.items()}
            train_scores = _score_train(strategy, train, batch_size) if score_train else {}
            means["seconds"] = round(time.perf_counter() - epoch_start, 2)
            # Weights first: an epoch that has predictions can be selected, so its weights must exist even after a kill.
            save_state(dict(strategy.weights()), run.weights_path(epoch))
            run.record(epoch, predictions, {**means, **train_scores, **strategy.notes()})
            save_state({"epoch": epoch, "strategy": strategy.state()}, run.checkpoint_path)
            _delete_weights(run, epoch)
            seconds_left = (time.perf_counter() - start) / (epoch - done) * (until - epoch)
            logger.info("%s", _log_line(run, epoch, epochs, means, seconds_left))
        wait()


def _resume(strategy: Strategy, run: Run, rank: int) -> int:
    """Restore the strategy from the checkpoint; return the last finished epoch, 0 if there is none."""
    done = 0
    if run.checkpoint_path.is_file():
        state = load_state(run.checkpoint_path)
        strategy.restore(state["strategy"])
        done = state["epoch"]
    if rank == 0:
        run.discard_after(done)
    wait()
    return done


def prepare_epoch(
    train: Dataset, seed: int, epoch: int, batch_size: int, *, sampling: str = "plain", rank: int = 0, world: int = 1
) -> tuple[Dataset, list[list[int]]]:
    """Return the dataset of an epoch, and its batches as lists of indices; seed torch's random generator.

    Random choices depend only on seed, epoch and rank, so a resumed run needs no saved state of a random generator.
    """
    torch.manual_seed(_mixed_seed(seed, epoch, rank))
    generator = np.random.default_rng([seed, epoch])
    dataset = train.sample_epoch(generator)
    order = None
    if sampling == "balanced":
        order = sample_groups(dataset.labels, generator)
    elif sampling == "corpora":
        order = sample_groups([key.partition("/")[0] for key in dataset.ids], generator, power=0.5)
    batches = list(training_batches(dataset.lengths(), batch_size, generator, order, rank=rank, world=world))
    if not batches:
        raise BadConfig(
            f"{len(dataset)} utterances in batches of {batch_size} are too few for {world} processes: "
            "reduce batch_size, or use fewer processes"
        )
    return dataset, batches


def _means(entries: list[dict[str, float]], epoch: int) -> dict[str, float]:
    means = {name: float(np.mean([entry[name] for entry in entries])) for name in entries[0]}
    if not all(np.isfinite(value) for value in means.values()):
        raise Diverged(f"training diverged at epoch {epoch} ({means}); try a lower learning_rate or gradient clipping")
    return means


def _score_train(strategy: Strategy, train: Dataset, batch_size: int) -> dict[str, float]:
    """Return loss, UA, WA and WF1 on the unaugmented training subset, with the keys of the log."""
    probabilities, labels = predict(strategy, train, batch_size), np.asarray(train.labels)
    counts = confusion(labels, probabilities.argmax(axis=1), probabilities.shape[1])
    return {
        "train_loss": cross_entropy(labels, probabilities),
        "train_UA": ua(counts),
        "train_WA": wa(counts),
        "train_WF1": wf1(counts),
    }


def _delete_weights(run: Run, epoch: int) -> None:
    """Delete all weights except those of the last epoch and of the epochs that the applicable selection rules select."""
    subsets = run.predictions(epoch)
    selected = {select_epoch(run, rule) for rule, subset in SELECTION_SUBSET.items() if subset in subsets}
    for path in (run.folder / "weights").glob("[0-9]*.safetensors"):
        if int(path.stem) not in {epoch, *selected}:
            path.unlink()


def predict(strategy: Strategy, dataset: Dataset, batch_size: int) -> NDArray[np.float32]:
    """Return probabilities, (utterances, emotions), in the dataset's order."""
    probabilities: dict[int, NDArray[np.float32]] = {}
    for indices in scoring_batches(dataset.lengths(), batch_size):
        predicted = strategy.predict(dataset.batch(indices)).cpu().numpy()
        probabilities.update(zip(indices, predicted, strict=True))
    return np.stack([probabilities[index] for index in range(len(dataset))])


def _mixed_seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _log_line(run: Run, epoch: int, epochs: int, means: Mapping[str, float], seconds_left: float) -> str:
    """Return the log line of an epoch: "epoch  3/20  loss 0.964  validation UA 45.1 %  0.5 s, 9 s left"."""
    entries = [f"epoch {epoch:>{len(str(epochs))}}/{epochs}"]
    entries += [f"{name} {value:.3f}" for name, value in means.items() if name != "seconds"]
    predictions = run.predictions(epoch)
    if "validation" in predictions:  # no test score: a score that is watched in training affects decisions
        counts = confusion(run.labels("validation"), predictions["validation"].argmax(axis=1), len(run.emotions))
        entries.append(f"validation UA {ua(counts):5.1%}")
    seconds = f"{means['seconds']:.1f} s"
    return "  ".join([*entries, seconds + (f", {_format_duration(seconds_left)} left" if epoch < epochs else "")])


def _format_duration(seconds: float) -> str:
    """Format a duration: 9 s, 3 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
