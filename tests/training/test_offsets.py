"""Offsets of corpora and speakers in training: centering removes them, and shifts are differences of speakers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from affekt.batch import Stream
from affekt.bundle.adaptation import Adaptation, time_statistics
from affekt.errors import BadConfig
from affekt.features.augment import Offsets
from affekt.models.base import FeatureSpec
from affekt.training.dataset import Dataset
from affekt.training.offsets import SourceOffsets

CORPORA = ["studio"] * 40 + ["phone"] * 40
SPEAKERS = [f"studio/{n % 4}" for n in range(40)] + [f"phone/{n % 2}" for n in range(40)]


def utterances(seed=0):
    """Frames whose mean and deviation depend on the speaker."""
    generator = np.random.default_rng(seed)
    offsets = {name: (generator.normal(0, 5, 3), np.exp(generator.normal(0, 0.5, 3))) for name in sorted(set(SPEAKERS))}
    return [
        (offsets[name][0] + offsets[name][1] * generator.normal(size=(50, 3))).astype(np.float16) for name in SPEAKERS
    ]


def dataset(**settings):
    frames = utterances()
    offsets = SourceOffsets.measure(Offsets(**settings), frames, CORPORA, SPEAKERS)
    ids = [str(number) for number in range(len(frames))]
    return Dataset(ids, np.zeros(len(frames), np.int64), {"speech": frames}, {"speech": FeatureSpec(3, 50.0)},
                   offsets={"speech": offsets})  # fmt: skip


def epoch_statistics(data, seed=0):
    """The statistics of each utterance in one epoch, (utterances, dim) each."""
    batch = data.sample_epoch(np.random.default_rng(seed)).batch(range(len(data)))
    return [values.numpy() for values in time_statistics(batch.streams["speech"])]


def test_centered_speakers_or_corpora_have_the_statistics_of_all_utterances():
    data = dataset(center_probability=1.0)
    means, log_stds = epoch_statistics(data)
    all_means, all_log_stds = (v.numpy() for v in time_statistics(data.batch(range(len(data))).streams["speech"]))
    groups = np.array(SPEAKERS)
    for name in set(SPEAKERS):  # an utterance is centered on its speaker or its corpus
        nearest = np.abs(means[groups == name] - all_means.mean(axis=0)).max(axis=1)
        assert (nearest < 1.5).any()
        assert np.abs(log_stds[groups == name] - all_log_stds.mean(axis=0)).max(axis=1).min() < 0.5
    assert means.std(axis=0).mean() < 0.8 * all_means.std(axis=0).mean()


def test_centering_is_what_a_pipeline_does_with_the_offset_as_input():
    data = dataset(center_probability=1.0)
    draw = data.offsets["speech"].sample(np.random.default_rng(0))
    statistics, group = draw.statistics, draw.plus[7]
    adaptation = Adaptation(3)
    adaptation.mean.copy_(torch.from_numpy(statistics.center))
    frames = data.features["speech"][7].astype(np.float32)
    expected = adaptation(
        Stream(torch.from_numpy(frames)[None]),
        torch.from_numpy(statistics.mean[group]),
        torch.from_numpy(statistics.log_std[group]),
    )
    np.testing.assert_allclose(draw.remove(frames, 7), expected.values[0], rtol=1e-4, atol=1e-4)


def test_shifts_vary_between_epochs_and_are_zero_without_a_factor():
    data = dataset(shift_probability=1.0, shift=2.0)
    first, second = epoch_statistics(data, 0)[0], epoch_statistics(data, 1)[0]
    assert np.abs(first - second).max() > 1
    np.testing.assert_array_equal(epoch_statistics(data, 0)[0], first)
    unshifted = epoch_statistics(dataset())[0]
    np.testing.assert_allclose(unshifted, [frames.mean(axis=0) for frames in utterances()], atol=0.01)


def test_offsets_follow_a_selection_of_utterances_and_do_not_reach_scored_subsets():
    data = dataset(center_probability=1.0)
    selected = data.select([50, 3])
    assert selected.offsets["speech"].corpus.tolist() == [0, 1]  # names in order: phone, studio
    assert selected.offsets["speech"].speaker.tolist() == [data.offsets["speech"].speaker[n] for n in (50, 3)]
    stored = data.batch([3]).streams["speech"].values[0].numpy()
    np.testing.assert_array_equal(stored, data.features["speech"][3].astype(np.float32))
    assert not replace(data, copies=()).only("speech").offsets


def test_settings_out_of_range_are_named():
    with pytest.raises(BadConfig, match=r"center_probability = 1\.5"):
        Offsets(center_probability=1.5)
    with pytest.raises(BadConfig, match=r"shift_probability = 0\.7"):
        Offsets(center_probability=0.5, shift_probability=0.7)
    with pytest.raises(BadConfig, match=r"shift = -1"):
        Offsets(shift=-1.0)
