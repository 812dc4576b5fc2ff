"""Material for tests of training: small corpora of tones, a tiny Whisper, a recipe, and a fast substitute for the export."""

import contextlib

import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from tests.conftest import write_tiny_bundle

RECIPE = """
name = "made"
labels = "six"
corpora = ["cremad"]
seed = 1

[protocol]
name = "held-out-speakers"
test = ["cremad/1005", "cremad/1010"]
validation = ["cremad/1002"]

[features.speech]
name = "whisper"
folder = "tiny-whisper"
blocks = [1, 2]
level = "relative"
span = 100

[model]
name = "mstr"
frames = "any"
masked = true
norm = "features"
input_norm = "standard"
dim = 16
blocks = 1
heads = 2
feedforward = 16
classifier_dropout = 0.0

[training]
epochs = 3
batch_size = 8
threads = 1

[training.augmentation]
copies = 1
crop = 0.2

[training.strategy]
learning_rate = 3e-3

[[probes]]
name = "log-mel"
strength = 0.01

[[probes]]
name = "block 2"
blocks = [2]
strength = 0.01
"""
SMALL_RECIPE = """
name = "small"
labels = "six"
corpora = ["cremad"]
seed = 1

[protocol]
name = "held-out-speakers"
test = ["cremad/1005", "cremad/1010"]
validation = ["cremad/1002"]

[features.speech]
name = "mfcc"
coefficients = 8

[model]
name = "vanilla"
frames = "any"
masked = true
norm = "features"
dim = 16
blocks = 1
heads = 2
feedforward = 16

[training]
epochs = 1
batch_size = 8
threads = 1
"""
"""A recipe without an encoder and compiled kernels, for tests that start processes."""
ACTORS = (1001, 1002, 1003, 1004, 1005, 1010)
PITCHES = {"ANG": 300, "DIS": 500, "FEA": 900, "HAP": 1500, "NEU": 2500, "SAD": 4000}  # Hz


def make_data_root(root):
    """Fill a folder that serves as AFFEKT_DATA and AFFEKT_MODELS: cremad/, tiny-whisper/ and the recipe made.toml."""
    make_cremad(root)
    torch.manual_seed(0)
    config = WhisperConfig(d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64)
    WhisperEncoder(config).save_pretrained(root / "tiny-whisper")
    (root / "made.toml").write_text(RECIPE)


def environment(root):
    return {"AFFEKT_DATA": str(root), "AFFEKT_MODELS": str(root), "AFFEKT_CACHE": str(root / "cache")}


@contextlib.contextmanager
def environment_set(root):
    """Set the variables of `environment` for a block, and yield the monkeypatch that does it."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment(root).items():
            patch.setenv(variable, value)
        yield patch


def make_cremad(root):
    """Write a corpus with CREMA-D's layout and tones instead of speech; each emotion has its own pitch."""
    folder = root / "cremad" / "AudioWAV"
    generator = np.random.default_rng(0)
    for actor in ACTORS:
        for emotion, pitch in PITCHES.items():
            for sentence in ("DFA", "ITS"):
                make_clip(folder / f"{actor}_{sentence}_{emotion}_XX.wav", pitch, generator)


def make_folder(root, clips, seed=0):
    """Write clips of the given names for the corpus `folder`; each emotion (the clip's folder) has its own pitch."""
    generator = np.random.default_rng(seed)
    emotions = sorted({name.split("/")[-2] for name in clips})
    for name in clips:
        make_clip(root / name, 300 * 1.6 ** emotions.index(name.split("/")[-2]), generator)
    return root


def make_clip(path, pitch, generator):
    """Write 0.5 to 1.2 s of a noisy tone of about this pitch, in Hz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(generator.uniform(0.5, 1.2) * 16_000)) / 16_000
    wave = 0.3 * np.sin(2 * np.pi * pitch * generator.uniform(0.95, 1.05) * time)
    soundfile.write(path, wave + 0.02 * generator.normal(size=time.size), 16_000)


def quick_export(_, path, emotions, **__):
    """Write a small ONNX file with the same input and output, instead of the slow export."""
    folder = path.parent / "quick"
    write_tiny_bundle(folder, emotions)
    (folder / "model.onnx").rename(path)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
