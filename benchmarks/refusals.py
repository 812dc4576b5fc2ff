"""Measure which recordings a bundle refuses because it finds no speech, and which it calls unlike its training data.

    python benchmarks/refusals.py --model BUNDLE --record docs/confidence.md

Music, environmental sounds, generated sounds and vocal bursts should be refused, and emotional speech should not. Only sounds
on which the bundle's detector of speech was not trained are counted: of the folders in its recipe, those that are held out
(`affekt.workflows.train_detector`). Recordings without speech are cut into pieces of at most 5 s, and pieces under 0.75 s,
which no detector refuses, are left out. Prints Markdown tables and writes benchmarks/results/refusals.json; with --record,
replaces the tables between the markers in a page.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import numpy as np

from affekt.audio.read import SAMPLE_RATE, Waveform, find_files, load
from affekt.bundle.folder import DEFAULT, Bundle
from affekt.corpora.base import data_root
from affekt.corpora.emogator import NAME
from affekt.corpora.source import Source
from affekt.corpora.waveforms import read_waveform
from affekt.features.augment import add_reverb, apply_codec, apply_lowpass, make_noise
from affekt.features.generated import MAKERS, generate
from affekt.inference.recognizer import Recognizer
from affekt.protocols import Split, utterance_key
from affekt.tables import table
from affekt.workflows.train_detector import MIN_PIECE, held_out_files, pieces
