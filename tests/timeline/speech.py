"""Recordings of speech for the tests of timelines, made of the synthetic samples."""

from functools import cache

import numpy as np

from affekt.audio.read import SAMPLE_RATE, load
from tests.conftest import SAMPLES


@cache
def sample(index):
    """Return one of the five synthetic clips of speech."""
    return load(SAMPLES[index])


def noise(seconds, seed=0, amplitude=1e-3):
    """Return noise that is far softer than speech."""
    size = round(seconds * SAMPLE_RATE)
    return (amplitude * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)


def silence(seconds):
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


@cache
def conversation():
    """Return 21 s: speech with pauses of silence, with a short and a long pause of noise, and without a pause."""
    return np.concatenate(
        [sample(0), silence(2), sample(1), noise(0.2), sample(2), noise(3), sample(3), sample(4), sample(0), silence(1)]
    )
