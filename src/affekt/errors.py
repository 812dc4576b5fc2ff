"""All errors that affekt raises deliberately. A message states what is wrong, what was expected and what to do."""


class AffektError(Exception):
    """The base class of all errors of affekt. `code` is a short identifier that does not change between versions."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class BadAudio(AffektError, ValueError):
    """Audio that cannot be read or is unusable. Codes: see `affekt.audio.read.CODES`."""

    code = "bad_audio"


class BadConfig(AffektError, ValueError):
    """An invalid recipe, option or settings file."""

    code = "bad_config"


class TooFewClips(BadConfig):
    """Too few clips with speech to learn a profile from."""


class Diverged(BadConfig):
    """A training run whose loss is not finite."""

    code = "diverged"


class BadCorpus(AffektError, ValueError):
    """A corpus that does not have its published layout, or lacks files."""

    code = "bad_corpus"


class BadTranscript(AffektError, ValueError):
    """A transcript, diarization or table of intervals that cannot be read, or whose times are impossible."""

    code = "bad_transcript"


class BadBundle(AffektError, ValueError):
    """A folder that is not a bundle, or is one that this version cannot read."""

    code = "bad_bundle"


class BadOutput(AffektError, ValueError):
    """An output file or folder that cannot be written or continued."""

    code = "bad_output"


class UnknownName(AffektError, LookupError):
    """A name that is not in a registry."""

    code = "unknown_name"


class MissingExtra(AffektError, ImportError):
    """An optional dependency that is not installed."""

    code = "missing_extra"


class ServiceError(AffektError):
    """A service that refuses a request, or does not answer. `status` is the status of HTTP, if there is one."""

    code = "service_error"

    def __init__(self, message: str, *, code: str | None = None, status: int | None = None) -> None:
        super().__init__(message, code=code)
        self.status = status
