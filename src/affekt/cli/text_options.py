"""The options of affekt recognize that state what is said: --text, --transcript and --transcribe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.errors import BadConfig

if TYPE_CHECKING:
    from affekt.inference.recognizer import Recognizer
    from affekt.inference.transcript import TextSource

Text = Annotated[
    str | None,
    typer.Option(
        "--text",
        metavar="TEXT",
        help="What is said in the recording, of up to 8 s, for a model that needs words.",
        show_default=False,
    ),
]
TranscriptPath = Annotated[
    Path | None,
    typer.Option(
        "--transcript",
        metavar="FILE",
        help="A transcript with times: .srt, .vtt, .json of Whisper or WhisperX, .TextGrid, .eaf or a table.",
    ),
]
Transcribe = Annotated[
    bool, typer.Option("--transcribe", help="Recognize the words with Whisper, from the extra asr; see --asr.")
]
SpeechToText = Annotated[
    str,
    typer.Option(
        "--asr",
        metavar="FOLDER_OR_NAME",
        help="With --transcribe: a Whisper model in CTranslate2 format: a folder, one in AFFEKT_MODELS, or a name on the "
        "Hugging Face hub.",
    ),
]
Language = Annotated[
    str,
    typer.Option(
        "--language",
        metavar="CODE",
        help="With --transcribe: the language, such as en; default: it is detected.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class TextOptions:
    """The options, as given."""

    text: str | None
    transcript: Path | None
    transcribe: bool
    asr: str
    language: str

    def source(self, files: list[Path], recognizer: Recognizer, *, lenient: bool) -> TextSource | None:
        """Return the source of the words of these files; None without words.

        Raises:
            BadConfig: Several options exclude each other, one text is given for several files, or the model needs words and
                there are none.
        """
        given = [
            name
            for name, value in (
                ("--text", self.text),
                ("--transcript", self.transcript),
                ("--transcribe", self.transcribe),
            )
            if value
        ]
        if len(given) > 1:
            raise BadConfig(f"{' and '.join(given)} both state the words: use one of them")
        if given and given != ["--transcribe"] and len(files) != 1:
            raise BadConfig(f"{given[0]} states the words of one recording, but there are {len(files)} files")
        if not given:
            recognizer.check_text(str(files[0]) if len(files) == 1 else "each recording", None)
            return None
        return self._make_source(lenient)

    def _make_source(self, lenient: bool) -> TextSource:
        from affekt.inference.transcript import GIVEN, TextSource, Transcript

        if self.text:
            transcript = Transcript.of(self.text)
            return TextSource(GIVEN, lambda _: transcript, transcript.text)
        if self.transcript:
            from affekt.timeline.transcripts import read_intervals

            timed = Transcript(self.transcript.name, tuple(read_intervals(self.transcript)))
            return TextSource(timed.source, lambda _: timed)
        from affekt.asr import Whisper
        from affekt.workflows.transcribe_recording import transcribe_recording

        whisper = Whisper(self.asr)
        return TextSource(
            whisper.name,
            lambda path: transcribe_recording(path, whisper, language=self.language, lenient=lenient),
        )
