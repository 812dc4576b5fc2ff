"""The options of affekt recognize that state what is said: --text, --transcript and --transcribe."""

from __future__ import annotations

from collections.abc import Sequence
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
    """The options, as given, with --transcript and --tier, which timelines have too."""

    text: str | None
    transcript: Path | None
    tiers: Sequence[str] | None
    transcribe: bool
    asr: str
    language: str

    def source(
        self, files: Sequence[Path], recognizer: Recognizer, *, lenient: bool, is_timeline: bool
    ) -> TextSource | None:
        """Return the source of the words of these files; None without words.

        Args:
            files: The files.
            recognizer: The recognizer.
            lenient: Read as much as possible of a file that is damaged or cut off.
            is_timeline: Whether the files are divided into the sentences, which timelines do by themselves for a transcript.

        Raises:
            BadConfig: Options exclude each other, one text is given for several files, or the model needs words and there are
                none.
        """
        options = {"--text": self.text, "--transcript": self.transcript, "--transcribe": self.transcribe}
        given = [option for option, value in options.items() if value]
        if len(given) > 1:
            raise BadConfig(f"{' and '.join(given)} both state the words: use one of them")
        if given and not self.transcribe and len(files) != 1:
            raise BadConfig(f"{given[0]} states the words of one recording, but there are {len(files)} files")
        if is_timeline and self.text:
            raise BadConfig(
                "--text has no times, so a recording cannot be divided by it: give --transcript for a timeline"
            )
        if self.tiers and not self.transcript:
            raise BadConfig("--tier is for --transcript")
        if is_timeline and not self.transcribe:
            return None
        if not given:
            recognizer.check_text(str(files[0]) if len(files) == 1 else "each recording", None)
            return None
        return self._make_source(files, lenient)

    def _make_source(self, files: Sequence[Path], lenient: bool) -> TextSource:
        from affekt.inference.transcript import GIVEN, TextSource, Transcript

        if self.text:
            transcript = Transcript.of(self.text)
            return TextSource(GIVEN, lambda _: transcript, transcript.text)
        if self.transcript:
            from affekt.timeline.transcripts import read_intervals

            intervals = read_intervals(self.transcript, file_id=str(files[0]), tiers=self.tiers or None)
            timed = Transcript(self.transcript.name, tuple(intervals))
            return TextSource(timed.source, lambda _: timed)
        from affekt.asr import Whisper
        from affekt.workflows.transcribe_recording import transcribe_recording

        whisper = Whisper(self.asr)
        return TextSource(
            whisper.name,
            lambda path: transcribe_recording(path, whisper, language=self.language, lenient=lenient),
        )
