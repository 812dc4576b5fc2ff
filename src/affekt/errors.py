"""Everything that affekt raises on purpose. Each message names the value, what was expected and the cure."""


class AffektError(Exception):
    """The base of all our errors. `code` is short and stable: rows, logs and programs may rely on it."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class BadAudio(AffektError, ValueError):
    """A waveform or file that cannot be recognised. Codes: see `affekt.audio.read.CODES`."""

    code = "bad_audio"


class BadConfig(AffektError, ValueError):
    """A recipe, an option or a file of settings that does not say what we expect."""

    code = "bad_config"


class Diverged(BadConfig):
    """A training whose loss is no longer a number."""

    code = "diverged"


class BadCorpus(AffektError, ValueError):
    """A corpus folder that is not laid out as published, or lacks files."""

    code = "bad_corpus"


class BadBundle(AffektError, ValueError):
    """A folder that is not a trained bundle, or one that this version cannot read."""

    code = "bad_bundle"


class BadOutput(AffektError, ValueError):
    """A results file that cannot be written or continued."""

    code = "bad_output"


class UnknownName(AffektError, LookupError):
    """A name that a registry does not hold."""

    code = "unknown_name"


class MissingExtra(AffektError, ImportError):
    """An optional dependency that is not installed."""

    code = "missing_extra"
