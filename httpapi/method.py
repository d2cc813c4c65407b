"""A documented method as a declaration: verb, path, who may, what it takes, what it answers, and the handler.

Routes, checks and OpenAPI follow from it (``application``, ``openapi``); records of declared resources get theirs from the
resource itself (``records``). A handler is small: it reads, or it submits one command.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace as replace_struct

from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.json_body import field_of, refuse
from httpapi.reading import Reading
from rbcore.errors import InvalidRequest

Handler = Callable[[Call], Awaitable[Answer]]
Reader = Callable[[Call, int | None], Reading]
"""The position that is looked at (None: now) is found out before: that alone may take waiting."""
Schema = dict[str, Any]

EVERYBODY = frozenset({"superuser", "supervisor", "maintainer", "administrator", "strategy_administrator"})
ANY_USER = frozenset({"any user"})
"""Whoever is signed in, also without a role. Not a role itself."""
MANAGERS = frozenset({"superuser", "supervisor"})


class Body(Protocol):
    """What a request body must look like."""

    @property
    def required(self) -> bool: ...

    def parse(self, document: dict[str, Any]) -> Any:
        """The value for the handler. Raises ``InvalidRequest`` naming the field."""

    def schema(self, components: dict[str, Schema]) -> Schema:
        """JSON Schema; named parts go into ``components``."""


class StructBody:
    """A body of its own shape, declared as a frozen msgspec struct that forbids unknown fields."""

    required = True

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        assert kind.__struct_config__.forbid_unknown_fields, f"{kind.__name__} must forbid unknown fields"
        self.kind = kind

    def parse(self, document: dict[str, Any]) -> Any:
        try:
            return msgspec.convert(document, self.kind)
        except msgspec.ValidationError as error:
            name, sentence = field_of(error)
            raise refuse(sentence, name) from error

    def schema(self, components: dict[str, Schema]) -> Schema:
        (reference,), named = msgspec.json.schema_components([self.kind], ref_template="#/components/schemas/{name}")
        components.update(named)
        return reference


class PartsBody(StructBody):
    """A struct in which objects stand whose fields are declared in the core: ``parts`` is their schema by key of ``data``.

    The core judges those objects; here they are any object, and OpenAPI shows their declaration.
    """

    def __init__(self, kind: type[msgspec.Struct], parts: Mapping[str, Schema]) -> None:
        super().__init__(kind)
        self.parts = parts

    def schema(self, components: dict[str, Schema]) -> Schema:
        reference = super().schema(components)
        data = components[self.kind.__name__]["properties"]["data"]["$ref"].rpartition("/")[2]
        components[data]["properties"] |= self.parts
        return reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A query parameter."""

    name: str
    description: str
    type: str = "string"
    """``string`` or ``integer``."""
    required: bool = False
    repeatable: bool = False
    minimum: int = 0
    maximum: int = 2**63 - 1
    values: tuple[str, ...] = ()
    default: Any = None
    synonym_of: str = ""
    """The name under which the handler gets it."""

    def read(self, text: str) -> Any:
        if self.type == "integer":
            return self._integer(text)
        if self.values and text not in self.values:
            raise self._refuse(f"Must be one of: {', '.join(self.values)}.")
        if "\0" in text:
            raise self._refuse("Must not contain the NUL character.")
        return text

    def _integer(self, text: str) -> int:
        digits = text.isascii() and text.isdecimal() and len(text) <= 19
        if not digits or not self.minimum <= int(text) <= self.maximum:
            raise self._refuse(f"Must be a whole number between {self.minimum} and {self.maximum}.")
        return int(text)

    def _refuse(self, sentence: str) -> InvalidRequest:
        return InvalidRequest("Bad request", errors={self.name: [sentence]})

    def schema(self) -> Schema:
        schema: Schema = {"type": self.type}
        if self.type == "integer":
            schema |= {"minimum": self.minimum, "maximum": self.maximum}
        if self.values:
            schema["enum"] = list(self.values)
        if self.default is not None:
            schema["default"] = self.default
        return {"type": "array", "items": schema} if self.repeatable else schema


AT = Parameter(
    name="at",
    description="Look at the past: a log position (`X-Log-Position` of an earlier answer) or an ISO 8601 time.",
)


def at_any_moment(method: Method) -> Method:
    """A GET takes ``at``, also where what it answers does not change with the log: there it only says where the answer stands."""
    if method.verb != "GET" or method.asks_devices:
        return method

    async def handle(call: Call) -> Answer:
        answer = await method.handle(call)
        if answer.position is None and "at" in call.query:
            return replace_struct(answer, position=await call.position_asked())
        return answer

    query = method.query if AT in method.query else (*method.query, AT)
    return replace(method, query=query, handle=handle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One verb on one path. Most of it is data that routes, checks and OpenAPI are made from; ``handle`` is the rest."""

    verb: str
    path: str
    """Below the root of the API, ``{id}`` for path parameters: ``/task_queue/{id}``."""
    group: str
    summary: str
    handle: Handler
    read: Reader | None = None
    """The first step of ``handle``, of a GET that needs nothing but the views for the second and changes nothing: what is to be read. Whoever has the
    views may then carry it out (``reading``)."""
    status: int = 200
    """Of success."""
    roles: frozenset[str] | None = EVERYBODY
    """Who may; None: no sign-in is needed."""
    body: Body | None = None
    query: tuple[Parameter, ...] = ()
    path_schemas: Mapping[str, Schema] = field(default_factory=dict)
    """Of path parameters that are not simply an id."""
    data: Schema = field(default_factory=lambda: {"type": "object"})
    """JSON Schema of ``data`` in the answer of success."""
    components: Mapping[str, Schema] = field(default_factory=dict)
    """Named schemas that ``data`` refers to."""
    refusals: Mapping[int, str] = field(default_factory=dict)
    """Documented status other than ``status`` -> text, beyond what every method may answer. 207 is among them."""
    message: str = ""
    """The manual's text for success."""
    description: str = ""
    request_example: Any = None
    response_example: Any = None
    addition: bool = False
    """Ours, not in the manual."""
    asks_devices: bool = False
    """Answers what hardware says at this moment, which the log does not know of any other: no ``at``."""

    @property
    def name(self) -> str:
        return f"{self.verb} {self.path}"

    @property
    def operation_id(self) -> str:
        words = self.path.replace("{", "by_").replace("}", "").strip("/").replace("/", "_")
        return f"{self.verb.lower()}_{words}"
