"""The alterations that `make shifts` measures."""

import sys

import numpy as np
import pytest

from affekt.reports.shifts import UNCHANGED
from affekt.utterance import Utterance
from tests.conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import shifts


def test_silence_is_added_where_the_condition_says():
    generator, clip = np.random.default_rng(0), np.linspace(0.1, 1, 16_000)
    conditions = shifts.all_shifts()
    assert {UNCHANGED, "27 s of noise of -40 dBFS, both", "a pause of 2 s, zeros"} <= set(conditions)
    after = conditions["5 s of zeros, after"](clip, generator)
    np.testing.assert_array_equal(after, np.pad(clip, (0, 80_000)))
    both = conditions["1 s of noise of -60 dBFS, both"](clip, generator)
    np.testing.assert_array_equal(both[16_000:32_000], clip)
    assert 10 * np.log10(np.mean(both[:16_000] ** 2)) == pytest.approx(-60, abs=0.5)
    paused = conditions["a pause of 1 s, zeros"](clip, generator)
    assert (np.count_nonzero(paused), paused.size) == (16_000, 32_000)
    assert 0 < np.argmax(paused == 0) < 16_000


def test_long_recordings_have_one_emotion_and_few_speakers():
    utterances = [
        Utterance(f"{number}", "corpus", None, emotion=("happy", "sad")[number % 2], speaker=f"{number // 8}")
        for number in range(32)
    ]
    waveforms = [np.zeros(5 * 16_000, np.float32)] * 32
    groups = list(shifts.long_groups(utterances, waveforms))
    assert [len(group) for group in groups] == [7, 7, 7, 7][: len(groups)]
    for group in groups:
        assert len({utterances[index].emotion for index in group}) == 1
        assert len({utterances[index].speaker for index in group}) <= 3
    assert shifts.join([waveforms[0]] * 2, 1).size == 12 * 16_000
