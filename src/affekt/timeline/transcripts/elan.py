"""ELAN (.eaf): annotations in tiers, which may refer to others.

https://www.mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf describes the format.

A document type declaration is refused: ELAN writes none, and its entities could expand without bound or read files.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from affekt.errors import BadTranscript
from affekt.plural import quantity
from affekt.timeline.transcripts.entries import Entry, clean, read_text_file
from affekt.timeline.transcripts.tiers import choose_tiers, split_name

DECLARATION = re.compile(r"<!(?:DOCTYPE|ENTITY)\b")
Slots = dict[str, float | None]
"""Name of a time slot -> its seconds, None if it has none."""

logger = logging.getLogger(__name__)


@dataclass
class Annotation:
    """An annotation with the ends of its time, or the annotation that it refers to."""

    name: str
    text: str | None
    slots: tuple[str, str] | None = None
    parent: str | None = None
    times: tuple[float, float] | None = None
    """Start and end in seconds, once they are known."""


def read_elan(path: Path, *, tiers: Sequence[str] | None = None) -> Iterator[Entry]:
    """Yield the annotations of tiers, which by default are those that refer to no other tier.

    The participant of a tier, or of the one that it refers to, is the speaker, or else its name. Annotations that refer to
    others have their times; several that refer to the same one divide its time, as ELAN displays them.

    Raises:
        BadTranscript: The file is not of ELAN, or a tier does not exist.
    """
    root = _parse(path)
    elements = {tier.get("TIER_ID", ""): tier for tier in root.findall("TIER")}
    independent = [name for name, tier in elements.items() if not tier.get("PARENT_REF")]
    chosen = choose_tiers(path, independent if tiers is None else list(elements), tiers)
    if others := [name for name in elements if name not in chosen]:
        logger.info("%s: %s not read: %s", path, quantity(len(others), "tier"), ", ".join(map(repr, others)))
    annotations = {name: _annotations(path, name, tier) for name, tier in elements.items()}
    document = _Document(path, elements, annotations, _slots(path, root))
    for name in chosen:
        document.set_times(name)
        speaker = _speaker(elements, name)
        for annotation in annotations[name]:
            start, end = annotation.times or (0.0, 0.0)
            yield Entry(f"annotation {annotation.name} (tier {name!r})", start, end, speaker, annotation.text)


def _speaker(elements: dict[str, Element], name: str) -> str | None:
    """Return the participant of a tier or of those that it refers to, or else the name of the last of these."""
    visited: list[str] = []
    parent: str | None = name
    while parent in elements and parent not in visited:
        if participant := clean(elements[parent].get("PARTICIPANT")):
            return participant
        visited.append(parent)
        parent = elements[parent].get("PARENT_REF")
    return split_name(visited[-1])[0]


class _Document:
    """The annotations of a file, whose times are set tier by tier."""

    def __init__(
        self, path: Path, elements: dict[str, Element], annotations: dict[str, list[Annotation]], slots: Slots
    ) -> None:
        self._path, self._elements, self._annotations, self._slots = path, elements, annotations, slots
        self._known = {annotation.name: annotation for tier in annotations.values() for annotation in tier}
        self._done: set[str] = set()

    def set_times(self, name: str) -> None:
        """Set the times of a tier, after those of the tier that it refers to."""
        self._done.add(name)
        parent = self._elements[name].get("PARENT_REF")
        if parent in self._elements and parent not in self._done:
            self.set_times(parent)
        _align(self._path, self._annotations[name], self._slots)
        _refer(self._path, name, self._annotations[name], self._known)


def _parse(path: Path) -> Element:
    """Return the root of a file of ELAN with times in milliseconds."""
    text = read_text_file(path)
    if declaration := DECLARATION.search(text):
        line = text.count("\n", 0, declaration.start()) + 1
        raise BadTranscript(
            f"{path}, line {line}: has a document type declaration ({declaration[0]}), which ELAN never writes and "
            "which could read other files: remove it"
        )
    try:
        root = ElementTree.XML(text.lstrip("\ufeff"))
    except (ElementTree.ParseError, ValueError) as error:
        line = getattr(error, "position", (1, 0))[0]
        raise BadTranscript(f"{path}, line {line}, is not XML ({error}): expected a file that ELAN saved") from error
    if root.tag != "ANNOTATION_DOCUMENT":
        raise BadTranscript(
            f"{path} is XML with the root <{root.tag}>: expected <ANNOTATION_DOCUMENT>, a file that ELAN saved"
        )
    _check_times(path, root)
    return root


def _check_times(path: Path, root: Element) -> None:
    """Raise `BadTranscript` unless times are in milliseconds; warn of media files that do not begin at 0."""
    header = root.find("HEADER")
    if header is not None and (unit := header.get("TIME_UNITS", "milliseconds")) != "milliseconds":
        raise BadTranscript(f"{path} has times in {unit!r}: expected milliseconds; save it again with a current ELAN")
    for media in root.iter("MEDIA_DESCRIPTOR"):
        if (offset := media.get("TIME_ORIGIN", "0")) != "0":
            name = media.get("MEDIA_URL", "the media file")
            logger.warning("%s: times count from the start of %s, without its offset of %s ms", path, name, offset)


def _slots(path: Path, root: Element) -> Slots:
    slots: Slots = {}
    for slot in root.iterfind("TIME_ORDER/TIME_SLOT"):
        name, value = slot.get("TIME_SLOT_ID", ""), slot.get("TIME_VALUE")
        try:
            slots[name] = None if value is None else int(value) / 1000
        except (ValueError, OverflowError):
            raise BadTranscript(f"{path}, time slot {name}: {value!r}: expected milliseconds, a whole number") from None
    return slots


def _annotations(path: Path, tier: str, elements: Element) -> list[Annotation]:
    """Return the annotations of a tier, without times."""
    annotations = []
    for content in (child for element in elements.iterfind("ANNOTATION") for child in element):
        name, text = content.get("ANNOTATION_ID", ""), clean(content.findtext("ANNOTATION_VALUE"))
        first, second, parent = (content.get(key) for key in ("TIME_SLOT_REF1", "TIME_SLOT_REF2", "ANNOTATION_REF"))
        if not name or not ((first and second) or parent):
            raise BadTranscript(
                f"{path}, annotation {name or '?'} (tier {tier!r}): expected ANNOTATION_ID, and TIME_SLOT_REF1 and "
                "TIME_SLOT_REF2, or ANNOTATION_REF; save it again in ELAN"
            )
        annotations.append(Annotation(name, text, (first, second) if first and second else None, parent))
    return annotations


def _align(path: Path, annotations: Sequence[Annotation], slots: Slots) -> None:
    """Set the times of annotations with time slots. Consecutive ones between two known times divide the time evenly."""
    chain: list[Annotation] = []
    for annotation in annotations:
        if annotation.slots is None:
            continue
        if missing := [slot for slot in annotation.slots if slot not in slots]:
            raise BadTranscript(f"{path}, annotation {annotation.name}: there is no time slot {missing[0]!r}")
        if chain and chain[-1].slots and chain[-1].slots[1] != annotation.slots[0]:
            raise _no_time(path, chain[-1])
        chain.append(annotation)
        if (end := slots[annotation.slots[1]]) is None:
            continue
        start = slots[chain[0].slots[0]] if chain[0].slots else None
        if start is None:
            raise _no_time(path, chain[0])
        step = (end - start) / len(chain)
        for index, member in enumerate(chain):
            member.times = (start + index * step, end if member is annotation else start + (index + 1) * step)
        chain = []
    if chain:
        raise _no_time(path, chain[-1])


def _no_time(path: Path, annotation: Annotation) -> BadTranscript:
    return BadTranscript(
        f"{path}, annotation {annotation.name}: its time slots have no time, nor do their neighbors: give it a time "
        "in ELAN"
    )


def _refer(path: Path, tier: str, annotations: Sequence[Annotation], known: dict[str, Annotation]) -> None:
    """Set the times of annotations that refer to others; several that refer to the same one divide its time."""
    children: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        if annotation.times is None:
            children.setdefault(annotation.parent or "", []).append(annotation)
    for name, siblings in children.items():
        times = known[name].times if name in known else None
        if times is None:
            raise BadTranscript(
                f"{path}, annotation {siblings[0].name} (tier {tier!r}) refers to {name!r}, which has no time: repair "
                "it in ELAN"
            )
        step = (times[1] - times[0]) / len(siblings)
        for index, annotation in enumerate(siblings):
            annotation.times = (times[0] + index * step, times[0] + (index + 1) * step)
