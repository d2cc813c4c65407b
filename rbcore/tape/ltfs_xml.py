"""XML as LTFS uses it, read without trust: no document type, no entities, UTF-8 declared, bounds on size, depth and number of elements.

Elements become small structs. What a caller knows how to build is built as soon as its end tag is read, so that an index of many files never
stands in memory as a tree of elements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

import msgspec

from rbcore.errors import Damaged, ProtocolViolation

HEADER: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
DEPTH_MAX: Final = 600
ELEMENTS_MAX: Final = 50_000_000
UNBUILT_MAX: Final = 1_000_000
"""Elements that stand in memory as elements: those of what is not built yet, and unknown ones, which are kept."""
FIRST_PRINTABLE: Final = 0x20


class Element(msgspec.Struct):
    """One element that was read. Readers take out of it what they know; what is left is unknown and kept."""

    name: str
    attributes: dict[str, str] = {}
    text: str = ""
    """All character data directly in the element, as it stands."""
    children: list[Element] = []
    built: list[Any] = []
    """What was built from children, in order."""

    def take(self, name: str, *, required: bool = True) -> Element | None:
        """The only child of that name, removed, so that what remains is unknown. Raises ``ProtocolViolation``: missing or there twice."""
        found = [child for child in self.children if child.name == name]
        if len(found) > 1 or (required and not found):
            raise ProtocolViolation(f"{name} stands {len(found)} times in {self.name}")
        if not found:
            return None
        self.children.remove(found[0])
        return found[0]

    def need(self, name: str) -> Element:
        """As ``take``; it must be there."""
        found = self.take(name)
        assert found is not None
        return found

    def word(self, name: str) -> str:
        """The text of a required child, without surrounding space."""
        return self.need(name).text.strip()


Builders = dict[str, Callable[[Element], Any]]


class _Reader:
    def __init__(self, builders: Builders, within: frozenset[str]) -> None:
        self._builders, self._within = builders, within
        self._stack: list[Element] = []
        self._texts: list[list[str]] = []
        self._foreign = 0
        """How many open elements are below one that is not ``within``: nothing is built there."""
        self._elements = 0
        self._unbuilt = 0
        """Elements since the last one that was built, and those that are open."""
        self._marks: list[int] = []
        """What ``_unbuilt`` was before each open element."""
        self._kept = 0
        """Unknown elements in what was built."""
        self.root: Element | None = None
        self.declared = False

    def declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is None or encoding.upper() != "UTF-8":
            raise ProtocolViolation(f"XML that does not declare UTF-8 but {encoding}")
        self.declared = True

    def refuse(self, *what: object) -> int:
        raise ProtocolViolation("XML with a document type or entities")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if len(self._stack) >= DEPTH_MAX or self._elements > ELEMENTS_MAX:
            raise ProtocolViolation(f"XML deeper than {DEPTH_MAX} or with more than {ELEMENTS_MAX} elements")
        if self._unbuilt + self._kept >= UNBUILT_MAX:
            raise ProtocolViolation(f"XML with more than {UNBUILT_MAX} elements that are not known")
        self._marks.append(self._unbuilt)
        self._unbuilt += 1
        if self._foreign or (self._stack and self._stack[-1].name not in self._within):
            self._foreign += 1
        self._stack.append(Element(name, attributes, "", [], []))
        self._texts.append([])

    def text(self, data: str) -> None:
        self._texts[-1].append(data)

    def end(self, name: str) -> None:
        element = self._stack.pop()
        element.text = "".join(self._texts.pop())
        mark = self._marks.pop()
        foreign = self._foreign > 0
        self._foreign -= foreign
        if not self._stack:
            self.root = element
        elif not foreign and name in self._builders:
            self._stack[-1].built.append(self._builders[name](element))
            self._unbuilt = mark
            self._kept += sum(map(_elements_of, element.children))
        else:
            self._stack[-1].children.append(element)


def parse_xml(
    data: bytes, *, root: str, bytes_max: int, builders: Builders | None = None, within: frozenset[str] = frozenset()
) -> Element:
    """The root element.

    ``builders``: makers by element name, for elements all of whose ancestors are ``within``.
    Raises ``Damaged`` when it is no XML, ``ProtocolViolation`` when it is XML that is not allowed or has another root.
    """
    if len(data) > bytes_max:
        raise ProtocolViolation(f"XML of {len(data)} bytes, more than {bytes_max}")
    reader = _Reader(builders or {}, within)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.XmlDeclHandler = reader.declaration
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.EntityDeclHandler = reader.refuse
    parser.ExternalEntityRefHandler = reader.refuse
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise Damaged(f"no XML: {error}") from None
    if not reader.declared or reader.root is None or reader.root.name != root:
        raise ProtocolViolation(f"XML without a declaration, or whose root is not {root}")
    return reader.root


def carries(text: str) -> bool:
    """Whether XML 1.0 hands this text through unchanged."""
    return all(
        FIRST_PRINTABLE <= ord(one) < 0xD800 or 0xE000 <= ord(one) <= 0xFFFD or ord(one) > 0xFFFF or one in "\t\n"
        for one in text
    )


def _elements_of(element: Element) -> int:
    return 1 + sum(map(_elements_of, element.children))


class XmlWriter:
    """Appends elements to a list of strings."""

    def __init__(self) -> None:
        self._out: list[str] = [HEADER]

    def open(self, name: str, **attributes: str) -> None:
        self._out.append(f"<{name}{self._attributes(attributes)}>")

    def close(self, name: str) -> None:
        self._out.append(f"</{name}>\n")

    def leaf(self, name: str, text: object, **attributes: str) -> None:
        self._out.append(f"<{name}{self._attributes(attributes)}>{escape(str(text))}</{name}>\n")

    def element(self, element: Element) -> None:
        """An element that was read, as it was (space between its children aside)."""
        self.open(element.name, **element.attributes)
        self._out.append(escape(element.text if not element.children else element.text.strip()))
        for child in element.children:
            self.element(child)
        self.close(element.name)

    @staticmethod
    def _attributes(attributes: dict[str, str]) -> str:
        return "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items())

    def encode(self) -> bytes:
        return "".join(self._out).encode()
