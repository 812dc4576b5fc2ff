"""Speech-to-text: Whisper (Radford et al., 2022) in faster-whisper, and PocketSphinx, which contains an English model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from affekt.audio.read import SAMPLE_RATE, Waveform
from affekt.errors import BadConfig
from affekt.extras import need
from affekt.interval import Interval, Word, join_word_parts

POCKETSPHINX = "pocketsphinx"
"""The name by which PocketSphinx is selected; all other names are those of Whisper models."""
MAX_COMPRESSION = 2.4
"""The largest ratio to which a transcript of Whisper can be compressed, as in Whisper itself."""
FRAMES_PER_SECOND = 100
"""The frame rate of PocketSphinx's word times."""
PHRASE_PAUSE = 0.3
"""The pause between two phrases of PocketSphinx, in seconds."""


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


def load_recognizer(model: str, device: str = "cpu", language: str = "") -> Whisper | PocketSphinx:
    """Load a speech-to-text model by name.

    Args:
        model: "pocketsphinx", or a Whisper model as for `Whisper`.
        device: "cpu" or "cuda".
        language: The language of all recordings, if it is known.

    Raises:
        BadConfig: The model does not exist, or cannot use the device or recognize the language.
        MissingExtra: Its library is not installed.
    """
    if model != POCKETSPHINX:
        return Whisper(model, device)
    if device != "cpu":
        raise BadConfig(
            f"{POCKETSPHINX} runs on the CPU only, not on {device!r}: use the device cpu, or a Whisper model"
        )
    _check_english(language)
    return PocketSphinx()


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
        library = need("faster_whisper", extra="asr", purpose=f"speech recognition with the Whisper model {model!r}")
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
            raise BadConfig(
                f"the speech recognizer {model!r} cannot be loaded: {reason}; without the hub, give the folder of a Whisper "
                f"model in CTranslate2's format, or {POCKETSPHINX}"
            ) from error
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
        # Noise makes Whisper repeat a word without end.
        return (segment for segment in segments if segment.compression_ratio <= MAX_COMPRESSION)


def _read_segment(segment: Any) -> Interval:
    """Return a segment of faster-whisper as an interval."""
    words = join_word_parts(Word(float(word.start), float(word.end), word.word) for word in segment.words or ())
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


class PocketSphinx:
    """PocketSphinx with the English model that its package contains, so that nothing is downloaded.

    It makes many more errors than Whisper. The text of a waveform does not depend on what was recognized before.

    Raises:
        MissingExtra: PocketSphinx is not installed.
    """

    name = f"asr:{POCKETSPHINX}"

    def __init__(self) -> None:
        library = need("pocketsphinx", extra="pocketsphinx", purpose="speech recognition with PocketSphinx")
        self._decoder = library.Decoder(samprate=SAMPLE_RATE, cmn="batch", loglevel="FATAL")

    def __call__(self, waveform: Waveform, language: str) -> str:
        return " ".join(word.text for word in self._find_words(waveform, language))

    def find_intervals(self, waveform: Waveform, language: str) -> list[Interval]:
        """Return the phrases of a waveform with the times of their words; see `WordRecognizer`."""
        return [
            Interval(words[0].start, words[-1].end, text=" ".join(word.text for word in words), words=tuple(words))
            for words in _divide(self._find_words(waveform, language))
        ]

    def _find_words(self, waveform: Waveform, language: str) -> list[Word]:
        """Return the words of a waveform. Raises `BadConfig` if the language is not English."""
        _check_english(language)
        if not waveform.size:
            return []
        self._decoder.reinit_feat()  # the features of a waveform depend on earlier ones otherwise
        self._decoder.start_utt()
        self._decoder.process_raw((np.clip(waveform, -1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
        self._decoder.end_utt()
        return [
            # "read(2)" is a word's second pronunciation.
            Word(
                token.start_frame / FRAMES_PER_SECOND,
                (token.end_frame + 1) / FRAMES_PER_SECOND,
                token.word.split("(")[0],
            )
            for token in self._decoder.seg() or ()
            if token.word[0] not in "<[+"  # pauses and noises: <sil>, [NOISE], ++NOISE++
        ]


def _check_english(language: str) -> None:
    if language.lower().split("-")[0] not in ("", "en"):
        raise BadConfig(f"{POCKETSPHINX} recognizes only English, not the language {language!r}: use a Whisper model")


def _divide(words: Iterable[Word]) -> Iterator[list[Word]]:
    """Yield the phrases of words, which are divided at pauses."""
    phrase = list[Word]()
    for word in words:
        if phrase and word.start - phrase[-1].end >= PHRASE_PAUSE:
            yield phrase
            phrase = []
        phrase.append(word)
    if phrase:
        yield phrase
