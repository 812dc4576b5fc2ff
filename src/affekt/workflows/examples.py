"""Prepare a recording as the input of a trained model, and draw the model's attention and scales for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from affekt.audio.read import SAMPLE_RATE
from affekt.batch import Batch
from affekt.bundle.folder import Bundle, shipped_bundles
from affekt.bundle.pipeline import rebuild
from affekt.bundle.text_encoders import load_text_encoders
from affekt.corpora.waveforms import read_waveform
from affekt.errors import BadAudio, BadConfig
from affekt.models.base import EmotionModel
from affekt.reports.figures.attention import Axis, draw_attention, token_words
from affekt.reports.figures.base import Figure
from affekt.reports.figures.scales import ScaleFractions, draw_scales
from affekt.utterance import Utterance
from affekt.workflows.trained_run import TrainedRun, open_run

MAX_DIFFERENCE = 0.1
"""Seconds by which a recording may be longer than its frames; if it is longer, its waveform would not align with them."""


@dataclass(frozen=True)
class Example:
    """A recording as the input of a model."""

    name: str
    model: EmotionModel
    batch: Batch
    """A batch of one."""
    text: str
    """The transcript, which labels the tokens; "" to number them."""
    waveform: NDArray[np.float32] | None
    """(samples,) at 16 kHz; None without audio."""

    @property
    def duration(self) -> float | None:
        """Seconds of audio; None without audio."""
        return None if self.waveform is None else len(self.waveform) / SAMPLE_RATE


def open_example(source: str | Path, clip: str, *, text: str = "") -> Example:
    """Prepare a recording for the model of a run or a bundle.

    Args:
        source: A run folder, the folder of a bundle, or the name of a shipped bundle.
        clip: For a run: the id of an utterance of its corpora. For a bundle: an audio file.
        text: The clip's transcript, for a bundle that takes text.

    Raises:
        BadAudio: The file cannot be read.
        BadBundle: The bundle is incomplete.
        BadConfig: There is no such source, or a text is missing or given for a run.
        BadCorpus: The run's corpora have no such utterance.
    """
    folder = Path(source)
    if not (folder / "model.onnx").is_file() and any(folder.rglob("predictions")):
        if text:
            raise BadConfig("--text is for bundles: an utterance of a run has the transcript of its corpus")
        trained = open_run(folder)
        return example_of_run(trained, trained.model(), trained.find(clip))
    if not folder.is_dir() and str(source) not in shipped_bundles():
        raise BadConfig(
            f"{source} not found: expected a run folder (runs/NAME), a bundle folder, or {shipped_bundles()[0]!r}"
        )
    return _example_of_bundle(Bundle.open(source), clip, text)


def example_of_run(trained: TrainedRun, model: EmotionModel, utterance: Utterance, *, words: bool = True) -> Example:
    """Prepare an utterance of a run's corpora; without `words`, its tokens are numbered instead of named."""
    waveform = read_waveform(utterance) if utterance.audio else None
    return Example(utterance.id, model, trained.batch(utterance), utterance.text if words else "", waveform)


def _example_of_bundle(bundle: Bundle, clip: str, text: str) -> Example:
    pipeline, encoders = rebuild(bundle), load_text_encoders(bundle)
    if encoders and not text:
        raise BadConfig(f"{bundle.folder} takes text too: pass the transcript of {clip} with --text")
    if not Path(clip).is_file():
        raise BadAudio(f"{clip} not found: expected an audio file", code="missing")
    waveform = read_waveform(Utterance(clip, "files", Path(clip), ""))
    samples = torch.from_numpy(waveform)[None]
    with torch.inference_mode():
        streams = {stream: feature(samples) for stream, feature in pipeline.features.items()}
        streams |= {stream: encoder([text]) for stream, encoder in encoders.items()}
    return Example(Path(clip).name, pipeline.first, Batch(streams), text, waveform)


@torch.inference_mode()
def attention_figures(
    example: Example, title: str, *, layer: int = -1, head: int | None = None, only: str = ""
) -> list[Figure]:
    """Draw the attention weights that an example's model returns; no figure if it returns none.

    Args:
        example: The recording and the model.
        title: What the title of each figure begins with.
        layer: The index of the layer.
        head: The index of the head; None for the mean over heads.
        only: The name of one attention; "" for all.

    Raises:
        BadConfig: The model has no such attention, layer or head.
    """
    explanation = example.model.explain(example.batch)
    named = {name: a for name, a in example.model.explained_attention.items() if a.weights in explanation}
    if only and only not in named:
        raise BadConfig(f"the model has no attention {only!r} (it has {', '.join(named) or 'none'})")
    axes = {
        stream: _axis(example, stream, int(count[0]))
        for stream, count in example.model.num_positions(example.batch).items()
    }
    return [
        draw_attention(
            explanation[attention.weights][0].float().numpy(),
            sparse=explanation[attention.sparse][0].float().numpy() if attention.sparse else None,
            kept=explanation[attention.kept][0].numpy() if attention.kept else None,
            queries=axes[attention.queries],
            keys=axes[attention.keys],
            layer=layer,
            head=head,
            title=f"{title}: {name.replace('_', ' ')}",
        )
        for name, attention in named.items()
        if not only or name == only
    ]


def _axis(example: Example, stream: str, frames: int) -> Axis:
    words = example.batch.streams[stream].word_index
    if words is None and example.batch.streams[stream].frame_rate is None:
        return Axis(stream, frames, [str(number) for number in range(1, frames + 1)])
    if words is not None:
        index = words[0, :frames].tolist()
        return Axis(
            stream, frames, token_words(example.text, index) if example.text else [str(n) for n in range(1, frames + 1)]
        )
    seconds = _covered_seconds(example, stream)
    return Axis(stream, frames, duration=seconds, waveform=_covered_waveform(example, stream, seconds))


def _covered_seconds(example: Example, stream: str) -> float:
    """Return how many seconds of the recording the model uses: a model of fixed length cuts the rest."""
    values = example.batch.streams[stream]
    assert values.frame_rate is not None
    frames = int(values.lengths()[0])
    limit = example.model.lengths.get(stream)
    if limit is not None:
        frames = min(frames, limit * example.model.strides.get(stream, 1))
    return frames / values.frame_rate


def _covered_waveform(example: Example, stream: str, seconds: float) -> NDArray[np.float32] | None:
    """Return the samples that the model uses; None without audio, and if frames were left out, as by the speech gate."""
    frames, rate = int(example.batch.streams[stream].lengths()[0]), example.batch.streams[stream].frame_rate
    if example.waveform is None or example.duration is None or rate is None:
        return None
    if frames / rate < example.duration - MAX_DIFFERENCE:
        return None
    return example.waveform[: round(seconds * SAMPLE_RATE)]


@torch.inference_mode()
def scales_figure(example: Example, title: str) -> Figure | None:
    """Draw the fractions of an example's scales over time; None if its model has no scales."""
    key = example.model.explained_scales
    if not key:
        return None
    fractions = example.model.explain(example.batch)[key][0].float().numpy()
    ((stream, count),) = example.model.num_positions(example.batch).items()
    seconds = _covered_seconds(example, stream)
    scales = ScaleFractions(fractions[:, :, : int(count[0])], seconds)
    return draw_scales(scales, title=title, waveform=_covered_waveform(example, stream, seconds))
