"""The calibration of finished runs, before and after temperature scaling on their validation subsets."""

from __future__ import annotations

import numpy as np

from affekt.evaluation.calibration import TemperatureScaling, average_at_temperature, calibration, fit_temperature
from affekt.runs.folder import Run
from affekt.runs.groups import Predictions, TestPredictions
from affekt.runs.selection import Rule, select_epoch


def calibrate(test: TestPredictions, rule: Rule) -> TemperatureScaling:
    """Return the calibration of a run group on its test set, at the epochs that a rule selects.

    The temperature is fitted for each run, on its own validation subset.
    """
    by_seed = test.predictions[rule]
    before = calibration(test.labels, list(by_seed.values()))
    if any("validation" not in fold.split.subsets for folds in test.group.seeds.values() for fold in folds):
        return TemperatureScaling(before, None, {})
    temperatures = {seed: tuple(_fit(fold.run, rule) for fold in folds) for seed, folds in test.group.seeds.items()}
    scaled = [_scale(test, by_seed[seed], temperatures[seed]) for seed in by_seed]
    return TemperatureScaling(before, calibration(test.labels, scaled), temperatures)


def _fit(run: Run, rule: Rule) -> float:
    return fit_temperature(run.labels("validation"), [run.predictions(select_epoch(run, rule))["validation"]])


def _scale(test: TestPredictions, predictions: Predictions, temperatures: tuple[float, ...]) -> Predictions:
    """Return predictions on all folds after dividing the logits of each fold by its temperature."""
    folds = [predictions[test.folds == fold] for fold in range(len(temperatures))]
    return np.concatenate(
        [average_at_temperature([fold], temperature) for fold, temperature in zip(folds, temperatures, strict=True)]
    )
