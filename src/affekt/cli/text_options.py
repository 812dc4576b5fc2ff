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
    from affekt.inference.transcript import TextSource, Transcript

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
    bool, typer.Option("--transcribe", help="Recognize the words with a speech-to-text model; see --asr.")
]
SpeechToText = Annotated[
    str,
    typer.Option(
        "--asr",
        metavar="FOLDER_OR_NAME",
        help="With --transcribe: a Whisper model in CTranslate2 format (extra asr): a folder, one in AFFEKT_MODELS, or a "
        "name on the Hugging Face hub; or pocketsphinx (extra of that name; English only, less accurate, no download).",
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
        self,
        files: Sequence[Path],
        recognizer: Recognizer,
        *,
        output: Path | None,
        lenient: bool,
        is_timeline: bool,
    ) -> TextSource | None:
        """Return the source of the words of these files; None without words.

        Args:
            files: The files.
            recognizer: The recognizer.
            output: The results file, beside which recognized transcripts are kept.
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
        return self._transcribe(output, lenient) if self.transcribe else self._read(files)

    def _read(self, files: Sequence[Path]) -> TextSource:
        """Return the text or the transcript of a file."""
        from affekt.inference.transcript import GIVEN, TextSource, Transcript

        if self.text:
            transcript = Transcript.of(self.text)
            return TextSource(GIVEN, lambda _: transcript, transcript.text)
        from affekt.timeline.transcripts import read_intervals

        assert self.transcript
        intervals = read_intervals(self.transcript, file_id=str(files[0]), tiers=self.tiers or None)
        timed = Transcript(self.transcript.name, tuple(intervals))
        return TextSource(timed.source, lambda _: timed)

    def _transcribe(self, output: Path | None, lenient: bool) -> TextSource:
        """Return what recognizes the words, or finds them beside the results of an earlier run."""
        from affekt.asr import load_recognizer
        from affekt.inference.transcript import TextSource
        from affekt.workflows.transcribe_recording import transcribe_recording
        from affekt.workflows.transcripts_file import TranscriptsFile, transcripts_path

        speech_to_text = load_recognizer(self.asr, language=self.language)
        file = TranscriptsFile(transcripts_path(output), speech_to_text.name, self.language) if output else None

        def find(path: Path) -> Transcript:
            transcript = file.find(path) if file else None
            if transcript is None:
                transcript = transcribe_recording(path, speech_to_text, language=self.language, lenient=lenient)
                if file:
                    file.add(path, transcript)
            return transcript

        return TextSource(speech_to_text.name, find)
