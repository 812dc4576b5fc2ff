"""Speech-to-text: Whisper (Radford et al., 2022) in faster-whisper, from the extra `asr`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from affekt.audio.read import Waveform
from affekt.errors import BadConfig
from affekt.extras import need
from affekt.interval import Interval, Word


class SpeechRecognizer(Protocol):
    """A speech-to-text model: any object that has a name and can be called with a waveform."""

    name: str
    """The value recorded in `text_by`, such as "asr:whisper-base"."""

    def __call__(self, waveform: Waveform, language: str) -> str:
        """Return the transcript of a waveform, "" if it has no words.

        Args:
            waveform: Mono waveform at 16 kHz, (samples,).
            language: Its ISO 639-1 code, or "" to detect it.
        """
        raise NotImplementedError


class WordRecognizer(Protocol):
    """A speech-to-text model that also determines when each word is spoken."""

    name: str
    """The value recorded in `text_by`, such as "asr:whisper-base"."""

    def find_intervals(self, waveform: Waveform, language: str) -> list[Interval]:
        """Return the phrases of a waveform with the times of their words, in seconds from its start; [] without words.

        Arguments as for `SpeechRecognizer`.
        """
        raise NotImplementedError


class Whisper:
    """A Whisper model of any size in CTranslate2's format.

    It decodes with five beams and never samples, so that it returns the same text every time.

    Args:
        model: A folder, a folder below AFFEKT_MODELS, or a name on the Hugging Face hub ("small").
        device: "cpu", which rounds the weights to 8 bits (about twice as fast), or "cuda", which uses them as stored.

    Raises:
        BadConfig: The model does not exist or is not a Whisper model.
        MissingExtra: Faster-whisper is not installed.
    """

    def __init__(self, model: str, device: str = "cpu") -> None:
        library = need("faster_whisper", extra="asr", purpose="speech recognition")
        if device not in ("cpu", "cuda"):
            raise BadConfig(f"device {device!r}: expected cpu or cuda")
        path = _find_model(model)
        precision = "int8" if device == "cpu" else "default"
        try:
            self._network = library.WhisperModel(
                path, device=device, compute_type=precision, local_files_only=Path(path).is_dir()
            )
        except (ValueError, OSError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BadConfig(f"the speech recognizer {model!r} cannot be loaded: {reason}") from error
        name = Path(model).name
        self.name = f"asr:{name if 'whisper' in name else f'whisper-{name}'}"

    def __call__(self, waveform: Waveform, language: str) -> str:
        segments = self._transcribe(waveform, language, without_timestamps=True)
        return " ".join(segment.text.strip() for segment in segments)

    def find_intervals(self, waveform: Waveform, language: str) -> list[Interval]:
        """Return the phrases of a waveform with the times of their words; see `WordRecognizer`."""
        segments = self._transcribe(waveform, language, word_timestamps=True)
        return [_read_segment(segment) for segment in segments if segment.text.strip()]

    def _transcribe(self, waveform: Waveform, language: str, **options: Any) -> Any:
        """Return the library's segments, which are computed while they are read."""
        segments, _ = self._network.transcribe(
            waveform, language=language or None, temperature=0.0, condition_on_previous_text=False, **options
        )
        return segments


def _read_segment(segment: Any) -> Interval:
    """Return a segment of faster-whisper as an interval."""
    words = tuple(Word(float(word.start), float(word.end), word.word.strip()) for word in segment.words or ())
    return Interval(float(segment.start), float(segment.end), text=segment.text.strip(), words=words)


def _find_model(model: str) -> str:
    """Return the folder of a model, or its name on the hub."""
    models = os.environ.get("AFFEKT_MODELS")
    for folder in (Path(model).expanduser(), *([Path(models) / model] if models else [])):
        if folder.is_dir():
            if not (folder / "model.bin").is_file():
                raise BadConfig(
                    f"{folder} has no Whisper model in CTranslate2's format: expected model.bin, config.json, tokenizer.json "
                    "and vocabulary.txt or .json, as ct2-transformers-converter writes them"
                )
            return str(folder)
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise BadConfig(
            f"{model} is not a folder; expected one with a Whisper model in CTranslate2's format, or a name on the hub"
        )
    return model
