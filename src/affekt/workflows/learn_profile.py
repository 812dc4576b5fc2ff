"""Learn a profile of one source from unlabeled recordings, in two passes: offsets of the features, then class biases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from affekt.audio.folders import expand_folders
from affekt.audio.read import SAMPLE_RATE, AudioSource, name_of
from affekt.audio.time_limit import check_timeout
from affekt.errors import BadConfig, TooFewClips
from affekt.inference.clips import Clip
from affekt.inference.profile import Profile, StreamShift, round_digits
from affekt.inference.profile_learning import (
    LearningSettings,
    adaptation_strength,
    distance,
    diversity,
    estimate_class_bias,
    shrunk_mean,
)
from affekt.inference.recognizer import Recognizer
from affekt.plural import quantity
from affekt.progress import Progress
from affekt.registry import did_you_mean
from affekt.workflows.observe_sources import observe_sources
from affekt.workflows.recognize_files import is_stream

SETTINGS = LearningSettings()


@dataclass
class _Clips:
    """The clips with speech of all recordings."""

    outputs: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)
    """Output of the graph -> its value for each clip, (size,)."""
    hashes: list[str] = field(default_factory=list)
    samples: int = 0
    recordings: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """Status, or "duplicate" -> number of recordings without any new clip with speech."""
    first_error: str = ""
    """The error of the first recording that could not be read; "" if there is none."""
    _known: set[str] = field(default_factory=set)

    def add_recording(self, clips: Sequence[Clip]) -> None:
        """Add the clips of a recording that have speech and are new, or count the recording as skipped.

        A duplicate adds no information about the source, but would count as much as a different clip.
        """
        statuses = {clip.status for clip in clips}
        if "ok" not in statuses:
            self.skipped["no_speech" if "no_speech" in statuses else "silence"] += 1
            return
        before = len(self.hashes)
        for clip in clips:
            if clip.status == "ok" and clip.outputs and clip.digest not in self._known:
                self._known.add(clip.digest)
                self.samples += clip.samples
                self.hashes.append(clip.digest)
                for name, value in clip.outputs.items():
                    self.outputs.setdefault(name, []).append(value[0])
        if len(self.hashes) > before:
            self.recordings += 1
        else:
            self.skipped["duplicate"] += 1

    def values(self, name: str) -> NDArray[np.float64]:
        """Return an output for all clips, (clips, size)."""
        return np.array(self.outputs[name], np.float64)


def learn_profile(
    sources: Sequence[AudioSource],
    *,
    recognizer: Recognizer | None = None,
    name: str = "adapted",
    expected: Mapping[str, float] | None = None,
    lenient: bool = False,
    timeout: float | None = None,
    progress: Progress | None = None,
    settings: LearningSettings = SETTINGS,
    jobs: int | None = 1,
) -> Profile:
    """Learn a profile of one source from unlabeled recordings of it.

    The recordings are read twice, unless the model can only be adapted by class biases. Recordings that cannot be read, are
    silent, have no speech, or have the same samples as an earlier one are left out, and counted in the profile. A recording
    of over 8 s contributes its windows.

    Args:
        sources: Audio files, folders, or other sources that a recognizer accepts and that can be read twice.
        recognizer: The recognizer of the model to adapt; by default the one that ships with affekt.
        name: The name of the profile.
        expected: Emotion -> its expected fraction of the recordings; the rest is shared evenly by all other emotions. By
            default, all emotions are expected to be equally frequent.
        lenient: Learn from the readable part of a file that is damaged or cut off.
        timeout: The limit for one file in seconds; by default there is none.
        progress: Called after each recording.
        settings: The constants.
        jobs: As for `recognize_files`. The profile is the same for any number.

    Raises:
        BadAudio: A file name is empty.
        BadBundle: The default bundle cannot be loaded.
        BadConfig: `expected` is not a distribution of the model's emotions, `timeout` is not positive, `jobs` is less than 1
            or too large for this machine, or a source can be read only once.
        TooFewClips: There are fewer than `settings.min_clips` clips with speech.
    """
    if timeout is not None:
        check_timeout(timeout)
    recognizer = (recognizer or Recognizer.load()).adapt(None)
    recognizer.check_audio_only("adaptation")
    distribution = _complete_distribution(expected or {}, recognizer.bundle.emotions, settings)
    sources = _expand(sources)
    passes = 2 if recognizer.graph.adaptable else 1

    def observe(adapted: Recognizer, number: int) -> _Clips:
        title = f"learning, pass {number} of {passes}" if passes > 1 else "learning"
        clips = _observe(adapted, sources, title, lenient=lenient, timeout=timeout, progress=progress, jobs=jobs)
        if len(clips.hashes) < settings.min_clips:
            errors = f" (the first error: {clips.first_error})" if clips.first_error else ""
            raise TooFewClips(
                f"only {quantity(len(clips.hashes), 'clip')} with speech {_describe_skipped(clips)}to learn a profile from: "
                f"expected {settings.min_clips} different recordings or more, or as many windows of a longer one{errors}"
            )
        return clips

    clips = observe(recognizer, 1)
    means = [clips.values(f"{stream}_mean") for stream in recognizer.graph.adaptable]
    settings = settings.at_distance(distance(np.concatenate(means, axis=1)) if means else 0.0)
    value = diversity(clips.values("probabilities"), distribution)
    factor = adaptation_strength(value, settings)
    profile = Profile(
        name=name,
        model=recognizer.model,
        recordings=clips.recordings,
        clips=len(clips.hashes),
        seconds=round(clips.samples / SAMPLE_RATE, 3),
        expected=_by_emotion(recognizer, distribution),
        diversity=round(value, 4),
        strength=round(factor, 4),
        class_bias=_by_emotion(recognizer, np.zeros(len(distribution))),
        streams={stream: _shift(clips, stream, factor, settings) for stream in recognizer.graph.adaptable},
        skipped=dict(sorted(clips.skipped.items())),
        notes=tuple(_notes(recognizer, value, factor, bool(expected), settings)),
        clip_hashes=tuple(sorted(set(clips.hashes))),
    )
    if not factor:
        return profile
    if profile.streams:
        clips = observe(recognizer.adapt(profile), 2)
    tolerance = 1.0 if expected else settings.tolerance
    bias, limited = estimate_class_bias(clips.values("probabilities"), distribution, settings, tolerance=tolerance)
    if limited:
        note = f"a class bias was limited to {settings.max_bias:g}: the expected distribution cannot be reached"
        profile = replace(profile, notes=(*profile.notes, note))
    return replace(profile, class_bias=_by_emotion(recognizer, factor * bias))


def _complete_distribution(
    expected: Mapping[str, float], emotions: Sequence[str], settings: LearningSettings
) -> NDArray[np.float64]:
    """Return the expected distribution, (emotions,). Raises `BadConfig`."""
    for emotion, fraction in expected.items():
        if emotion not in emotions:
            raise BadConfig(
                f"the model has no emotion {emotion!r}{did_you_mean(emotion, emotions)} (it has {', '.join(emotions)})"
            )
        if not 0 <= fraction <= 1:
            raise BadConfig(f"the expected fraction of {emotion} is {fraction}: expected a number from 0 to 1")
    total, others = sum(expected.values()), [emotion for emotion in emotions if emotion not in expected]
    if total > 1 + 1e-6 or (not others and total < 1 - 1e-6):
        raise BadConfig(f"the sum of the expected fractions is {total:g}: expected {'at most ' if others else ''}1")
    rest = max(0.0, 1 - total) / max(1, len(others))
    distribution = np.array([expected.get(emotion, rest) for emotion in emotions])
    distribution = np.maximum(distribution, settings.min_expected)
    return distribution / distribution.sum()


def _expand(sources: Sequence[AudioSource]) -> list[AudioSource]:
    """Return the sources with folders replaced by the files in them. Raises `BadConfig` for what can be read only once."""
    paths = expand_folders(source for source in sources if isinstance(source, str | Path))
    others = [source for source in sources if not isinstance(source, str | Path)]
    for source in [*filter(is_stream, paths), *(source for source in others if hasattr(source, "read"))]:
        raise BadConfig(
            f"{name_of(source)} can be read only once, but learning a profile needs two passes: save it to a file first"
        )
    return [*paths, *others]


def _observe(
    recognizer: Recognizer,
    sources: Sequence[AudioSource],
    title: str,
    *,
    lenient: bool,
    timeout: float | None,
    progress: Progress | None,
    jobs: int | None,
) -> _Clips:
    """Return the clips of all recordings, with the graph's outputs."""
    clips = _Clips()
    observed = observe_sources(recognizer, sources, lenient=lenient, timeout=timeout, jobs=jobs)
    for done, result in enumerate(observed, start=1):
        if isinstance(result, str):
            clips.skipped["error"] += 1
            clips.first_error = clips.first_error or result
        else:
            clips.add_recording(result)
        if progress:
            progress(title, done, len(sources))
    return clips


def _shift(clips: _Clips, stream: str, factor: float, settings: LearningSettings) -> StreamShift:
    offset = shrunk_mean(clips.values(f"{stream}_mean"), settings.feature_shrinkage)
    log_scale = shrunk_mean(clips.values(f"{stream}_log_std"), settings.feature_shrinkage, settings.max_log_std)
    return StreamShift(round_digits(factor * offset), round_digits(factor * log_scale))


def _by_emotion(recognizer: Recognizer, values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(recognizer.bundle.emotions, round_digits(values), strict=True))


def _notes(
    recognizer: Recognizer, value: float, factor: float, is_stated: bool, settings: LearningSettings
) -> Iterator[str]:
    """Yield the sentences on the limits of the profile."""
    if not recognizer.graph.adaptable:
        yield f"the features inside {recognizer.model} cannot be adapted: the profile has class biases only"
    if factor < 1:
        effect = f"the adaptation has {factor:.0%} of its full strength" if factor else "nothing is adapted"
        assumption = "the distribution of --expected" if is_stated else "equally frequent emotions"
        cure = "" if is_stated else "; if you know how frequent they are, state it with --expected"
        yield (
            f"the predictions for these recordings differ less than {assumption} would make them (diversity {value:.2f}, "
            f"expected {settings.high_diversity:.2f} or more): {effect}{cure}"
        )


def _describe_skipped(clips: _Clips) -> str:
    """Return the numbers of skipped recordings in words, with a space after them; "" for none."""
    names = {"duplicate": "repeated", "error": "could not be read", "no_speech": "without speech", "silence": "silent"}
    parts = [f"{count} {names[status]}" for status, count in sorted(clips.skipped.items())]
    return f"({', '.join(parts)}) " if parts else ""
