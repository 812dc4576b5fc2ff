"""Layouts of folders of recordings: what the folders above a recording name, from the outermost to the innermost."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePath

from affekt.corpora.subsets import is_also_a_person_name, is_subset, resembles_subset
from affekt.errors import BadConfig, BadCorpus
from affekt.labels import fold_label
from affekt.registry import did_you_mean

Layout = tuple[str, ...]
"""The level of each folder: "emotion", "speaker", "split", "session", or "*" for a folder without meaning."""

LEVELS = ("emotion", "speaker", "split", "session", "*")
SYNONYMS = {"label": "emotion", "category": "emotion", "subset": "split"}
USUAL = "EMOTION/FILE or SPEAKER/EMOTION/FILE"
"""The layouts that are recognized without `layout`, both also inside or above a subset's folder."""
NOT_A_SPEAKER = re.compile(
    r"(fe)?males?|wom[ae]n|m[ae]n|girls?|boys?|children|adults?|"
    r"(data(set)?|corpus|audios?|wavs?|flac|mp3|clips?|files?|recordings?|samples?|sounds?|speech|songs?|raw|original|clean|"
    r"noisy|processed|augmented|split|folds?|parts?|batch|session|sess?|scene|take|set|chunk|group|hold[-_ ]?out|unseen)"
    r"[-_ ]?\d*|"
    r"low|medium|high|weak|strong|normal|acted|natural|spontaneous|"
    r"en|de|fr|es|it|nl|zh|ja|english|german|french|spanish|italian|dutch|mandarin|chinese|japanese|arabic|urdu|hindi|turkish",
    re.IGNORECASE,
)
"""Names of folders that are probably not speakers: genders, kinds of files, parts of a corpus, intensities, languages."""
AMBIGUOUS_NUMBER = re.compile(r"\d{1,2}")
"""Names that may be numbers of speakers or of emotions."""
MAX_EMOTIONS = 12
"""A level with more unknown names than this consists of speakers."""
SPEAKER_FIRST, EMOTION_FIRST = ("speaker", "emotion"), ("emotion", "speaker")


def parse_layout(text: str) -> Layout:
    """Parse a layout such as "speaker/emotion/split". Raises `BadConfig`."""
    levels = tuple(SYNONYMS.get(level, level) for level in text.strip().strip("/").lower().split("/"))
    if levels[-1] in ("file", "clip"):
        levels = levels[:-1]
    for level in levels:
        if level not in LEVELS:
            raise BadConfig(
                f"layout {text!r}: no level {level!r}{did_you_mean(level, LEVELS)}: expected names of folders from the "
                f"outermost to the innermost, separated by '/', of: {', '.join(LEVELS)}"
            )
    named = [level for level in levels if level != "*"]
    if "emotion" not in named or len(set(named)) < len(named):
        raise BadConfig(
            f"layout {text!r}: expected 'emotion', and each level at most once, as in emotion/speaker or "
            "speaker/emotion/split"
        )
    return levels


def read_levels(
    root: Path, paths: Sequence[PurePath], layout: str, is_emotion: Callable[[str], bool]
) -> tuple[str, list[Mapping[str, str]]]:
    """Return the layout of the recordings with both a speaker and an emotion ("" without any), and each recording's levels.

    Args:
        root: The folder, for error messages.
        paths: The recordings' paths, relative to the folder.
        layout: The layout, or "" to recognize it.
        is_emotion: Returns True for the name of a folder that is certainly an emotion.

    Raises:
        BadCorpus: A recording is not in the expected folders, or it is not clear what the folders name.
    """
    if layout:
        levels = parse_layout(layout)
        return "/".join(levels), [_given_levels(root, path, levels) for path in paths]
    splits, folders = [], []
    for path in paths:
        subset, others = _separate_subset(root, path)
        if len(others) not in (1, 2):
            raise BadCorpus(
                f"{path} in {root}: expected {USUAL}, as in happy/001.wav or anna/happy/001.wav; for other folders, state "
                "their layout, such as --layout session/speaker/emotion"
            )
        splits.append(subset)
        folders.append(others)
    _check_subsets(root, paths, splits)
    order = _order(
        root,
        {(names[0], names[1]) for names in folders if len(names) == 2},
        {names[0] for names in folders if len(names) == 1},
        is_emotion,
        split=any(splits),
    )
    _check_speakers(root, folders, order)
    levels_of = {1: ("emotion",), 2: order}
    read: list[Mapping[str, str]] = [
        {**dict(zip(levels_of[len(names)], names, strict=True)), "split": subset}
        for names, subset in zip(folders, splits, strict=True)
    ]
    return "/".join(order) if any(len(names) == 2 for names in folders) else "", read


def _given_levels(root: Path, path: PurePath, levels: Layout) -> Mapping[str, str]:
    """Return the levels of a recording in a layout that is given; a subset's folder may be left out of the layout."""
    folders = list(path.parts[:-1])
    if "split" not in levels and len(folders) == len(levels) + 1:
        subset, folders = _separate_subset(root, path)
        if subset:
            return {**dict(zip(levels, folders, strict=True)), "split": subset}
    if len(folders) != len(levels):
        raise BadCorpus(
            f"{path} in {root}: expected {'/'.join(level.upper() for level in levels)}/FILE, the layout that was given"
        )
    return {level: name for level, name in zip(levels, folders, strict=True) if level != "*"}


def _separate_subset(root: Path, path: PurePath) -> tuple[str, list[str]]:
    """Return the name of the subset among a recording's folders, or "", and its other folders."""
    folders = path.parts[:-1]
    subsets = [name for name in folders if is_subset(name)]
    if len(subsets) > 1:
        raise BadCorpus(
            f"{path} in {root}: both {subsets[0]!r} and {subsets[1]!r} are names of subsets; {_ask('split/speaker/emotion')}"
        )
    if not subsets and (similar := [name for name in folders if resembles_subset(name)]):
        raise BadCorpus(
            f"{path} in {root}: is {similar[0]!r} a subset? If so, rename it to train, validation or test, or keep only one "
            f"such folder; if not, {_ask('speaker/emotion')}"
        )
    return subsets[0] if subsets else "", [name for name in folders if name not in subsets]


def _check_subsets(root: Path, paths: Sequence[PurePath], splits: Sequence[str]) -> None:
    """Raise `BadCorpus` if the only subset is called "dev" or "val", like a person, and other folders are in no subset."""
    words = {subset for subset in splits if subset}
    if words and not all(splits) and all(map(is_also_a_person_name, words)):
        word, path = min(words), paths[list(splits).index("")]
        raise BadCorpus(
            f"{root}: is {word!r} a subset or a speaker? {path} is in no subset; "
            f"{_ask('split/emotion', 'speaker/emotion', 'emotion/speaker')}"
        )


def _check_speakers(root: Path, folders: Sequence[Sequence[str]], order: Layout) -> None:
    """Raise `BadCorpus` if folders that would be speakers are named after something else, such as a gender or a part."""
    index = order.index("speaker")
    speakers = {names[index] for names in folders if len(names) == 2}
    for name in sorted(speakers):
        if NOT_A_SPEAKER.fullmatch(name.strip()):
            others = [
                "/".join((order[0], level) if index else (level, order[1])) for level in ("*", "session", "split")
            ]
            raise BadCorpus(
                f"{root}: is {name!r} a speaker, or a session, a subset or a folder without meaning? "
                f"{_ask('/'.join(order), *others)}"
            )


def _order(
    root: Path,
    pairs: Collection[tuple[str, str]],
    emotions: Collection[str],
    is_emotion: Callable[[str], bool],
    *,
    split: bool,
) -> Layout:
    """Return whether two nested folders are a speaker and an emotion, or an emotion and a speaker.

    Args:
        root: The folder, for error messages.
        pairs: The names of the outer and the inner folder.
        emotions: The names of folders that are not nested, which are emotions.
        is_emotion: Returns True for a folder's name that is certainly an emotion.
        split: Whether there are subsets' folders too, for error messages.

    Raises:
        BadCorpus: The names do not tell which of the two it is.
    """
    if not pairs:
        return SPEAKER_FIRST
    outer, inner = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
    fractions = [sum(name in emotions or is_emotion(name) for name in names) / len(names) for names in (outer, inner)]
    if any(fractions):
        if fractions[1] >= 2 * fractions[0]:
            return SPEAKER_FIRST
        if fractions[0] >= 2 * fractions[1]:
            return EMOTION_FIRST
    elif (order := _order_of_unknown_names(pairs, outer, inner)) is not None:
        return order
    shown = [", ".join(sorted(names)[:4]) + (", ..." if len(names) > 4 else "") for names in (outer, inner)]
    kinds = ("emotion/speaker", "speaker/emotion")
    raise BadCorpus(
        f"{root}: the names of the folders do not tell which are emotions and which are speakers ({shown[0]} contain "
        f"{shown[1]}); {_ask(*kinds, *(['speaker/emotion/split'] if split else []))}"
    )


def _order_of_unknown_names(
    pairs: Collection[tuple[str, str]], outer: Collection[str], inner: Collection[str]
) -> Layout | None:
    """Return the order of nested folders of which none is a known emotion; None if it is not clear."""
    has_digits = [
        [any(map(str.isdigit, name)) and not AMBIGUOUS_NUMBER.fullmatch(name) for name in names]
        for names in (outer, inner)
    ]
    if all(has_digits[0]) and not _any_digits(inner):  # spk01, 0011: emotions have no numbers
        return SPEAKER_FIRST
    if all(has_digits[1]) and not _any_digits(outer):
        return EMOTION_FIRST
    # Several speakers have the same emotions. Many names that never repeat below another folder are therefore speakers.
    if len({fold_label(name) for name in inner}) == len(pairs) > max(MAX_EMOTIONS, len(outer)):
        return EMOTION_FIRST
    return None


def _any_digits(names: Collection[str]) -> bool:
    return any(map(str.isdigit, "".join(names)))


def _ask(*layouts: str) -> str:
    quoted = [f"'{layout}'" if "*" in layout else layout for layout in layouts]
    return f"state the layout: {' or '.join(f'--layout {layout}' for layout in quoted)} (in a recipe, layout = ...)"
