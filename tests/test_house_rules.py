"""The rules of the house, as a test: which room may know which, what pure rooms may touch, how long a module may get.

The reasons stand in docs/ARCHITECTURE.md ("The rooms") and in the design's law 6: whatever is not deterministic goes through a
port, so that simulation runs the same code under a virtual clock and from one seed.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ROOMS = ("rbmedia", "httpapi", "actors", "drivers", "eventlog", "rbcore")
"""From the top: a room may import rooms below it, never above."""

MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 80
LONG_MODULES: dict[str, str] = {}
"""Path -> why it may be longer."""
LONG_FUNCTIONS: dict[str, str] = {}
"""``path::name`` -> why it may be longer."""

IMPURE = frozenset(
    {
        "time.time",
        "time.time_ns",
        "time.monotonic",
        "time.monotonic_ns",
        "time.perf_counter",
        "time.perf_counter_ns",
        "time.sleep",
        "datetime.datetime.now",
        "datetime.datetime.utcnow",
        "datetime.datetime.today",
        "datetime.date.today",
        "random",
        "os.urandom",
        "os.getrandom",
        "secrets.token_bytes",
        "secrets.token_hex",
        "secrets.token_urlsafe",
        "secrets.choice",
        "secrets.randbelow",
        "uuid.uuid1",
        "uuid.uuid4",
        "threading",
        "multiprocessing",
        "concurrent",
        "asyncio",
        "open",
        "io.open",
        "os.open",
        "subprocess",
        "trio.to_thread",
        "trio.run_process",
    }
)
"""Dotted names, each with everything below it."""

WORLDLY = frozenset(
    {"os", "socket", "pathlib", "shutil", "tempfile", "trio", "select", "signal", "logging", "sqlite3", "lmdb", "httpx"}
)
"""Modules that the core has no use for, besides what is impure."""

MAY_TOUCH_THE_WORLD = ("rbmedia/", "drivers/", "eventlog/", "bench/", "tests/", "actors/agent/")
"""Drivers and the log store are the ports' implementations, the agent's file workers are one for the protected host's files,
and the command composes them all."""

EXCEPTIONS: dict[str, tuple[frozenset[str], str]] = {}
"""Path -> names it may use in spite of the rule, and why."""


def tracked(*suffixes: str) -> list[Path]:
    """Files under version control (those that git would add included), or all files of an unpacked archive."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        names = [name for name in listed.stdout.decode().split("\0") if name]
        paths = [ROOT / name for name in names]
    else:
        paths = [path for path in ROOT.rglob("*") if not any(part.startswith(".venv") for part in path.parts)]
    return sorted(path for path in paths if path.is_file() and (not suffixes or path.suffix in suffixes))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


SOURCES = tracked(".py")
PRODUCT = [path for path in SOURCES if relative(path).split("/")[0] in ROOMS]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(local name, dotted name) of every import in the module, however deep."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (
                    alias.asname or alias.name.split(".")[0],
                    alias.name if alias.asname else alias.name.split(".")[0],
                )
                yield ("", alias.name)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                yield (alias.asname or alias.name, f"{node.module}.{alias.name}")


def used_names(tree: ast.Module) -> set[str]:
    """Dotted names of what the module imports and of what it takes from that, aliases resolved; and the builtin ``open``."""
    aliases = {local: dotted for local, dotted in imported_names(tree) if local}
    used = {dotted for _, dotted in imported_names(tree)}
    for node in ast.walk(tree):
        parts: list[str] = []
        inner: ast.expr | ast.AST = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and (inner.id in aliases or inner.id == "open"):
            used.add(".".join([aliases.get(inner.id, inner.id), *reversed(parts)]))
    return used


def is_under(name: str, roots: frozenset[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:count]) in roots for count in range(1, len(parts) + 1))


@pytest.mark.parametrize("path", PRODUCT, ids=relative)
def test_imports_go_down_only(path: Path) -> None:
    room = relative(path).split("/")[0]
    above = {*ROOMS[: ROOMS.index(room)], "tests", "bench"}
    wrong = sorted({dotted for _, dotted in imported_names(parse(path)) if dotted.split(".")[0] in above})
    assert not wrong, f"{relative(path)} is in room {room} and reaches up for {wrong}"


READS_PAST_THE_CALL = {
    "httpapi/call.py": "it narrows every read to what the caller reaches",
    "httpapi/front.py": "it carries out readings, which a call has narrowed",
    "httpapi/rubackup/journals.py": "lines of one task, which it has looked up by the call before",
    "httpapi/rubackup/server.py": "whether the server is in service mode, which concerns everybody",
}
"""Path -> why it may read the views itself."""


def test_handlers_read_the_views_through_their_call() -> None:
    """``call.page`` and ``call.row`` know what the caller may see; ``services.views`` does not."""
    for path in tracked(".py"):
        if relative(path).startswith("httpapi/") and relative(path) not in READS_PAST_THE_CALL:
            tree = parse(path)
            harmless = {
                id(node.value)
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and node.attr in ("wait_for", "position_of")
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and node.attr == "views" and id(node) not in harmless:
                    raise AssertionError(f"{relative(path)}:{node.lineno} reads the views past the call")


@pytest.mark.parametrize(
    "path", [path for path in PRODUCT if not relative(path).startswith(MAY_TOUCH_THE_WORLD)], ids=relative
)
def test_what_is_not_deterministic_goes_through_a_port(path: Path) -> None:
    forbidden = IMPURE | WORLDLY if relative(path).startswith("rbcore/") else IMPURE
    allowed, _why = EXCEPTIONS.get(relative(path), (frozenset(), ""))
    wrong = sorted(
        name for name in used_names(parse(path)) if is_under(name, forbidden) and not is_under(name, allowed)
    )
    assert not wrong, f"{relative(path)} uses {wrong}; take it from rbcore.ports instead"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_modules_and_functions_stay_readable(path: Path) -> None:
    name = relative(path)
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MODULE_LINES_MAX or name in LONG_MODULES, (
        f"{name} has {lines} lines: which of its stories moves out?"
    )
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX or f"{name}::{node.name}" in LONG_FUNCTIONS, (
                f"{name}: {node.name} has {length} lines"
            )


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    text = ast.get_docstring(parse(path)) or ""
    least = 60 if path.name == "__init__.py" and path.parent.parent == ROOT else 20
    assert len(text) >= least, f"{relative(path)} needs a header: what belongs in it, and why it is there"


@pytest.mark.parametrize("path", PRODUCT, ids=relative)
def test_public_classes_are_documented_unless_their_fields_speak(path: Path) -> None:
    """A public class or function of more than a few lines has a docstring; messages and records may let their fields speak."""
    missing = []
    for node in parse(path).body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > 25 and not ast.get_docstring(node) and not (isinstance(node, ast.ClassDef) and _is_record(node)):
            missing.append(node.name)
    assert not missing, f"{relative(path)}: without a docstring: {missing}"


def _is_record(node: ast.ClassDef) -> bool:
    return all(isinstance(part, ast.AnnAssign | ast.Assign | ast.Expr) for part in node.body)


LEFT_FOR_LATER = tuple(
    "".join(parts) for parts in (("TO", "DO"), ("FIX", "ME"), ("XX", "X "), ("Not", "ImplementedError"))
)
FOREIGN = tuple(
    "".join(parts)
    for parts in (
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("/opt/", "pypi"),
        ("pypi", ".org"),
        ("python", "hosted"),
        ("extra-", "index"),
        ("--", "index-url"),
    )
)
"""Local paths of one machine, and names of package registries (written in halves, so that this file does not match)."""


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_is_left_for_later(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not [word for word in LEFT_FOR_LATER if word in text], relative(path)


@pytest.mark.parametrize("path", tracked(), ids=relative)
def test_no_local_paths_and_no_registries(path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    assert not [word for word in FOREIGN if word in text], relative(path)


def test_lock_files_pin_every_package_by_digest() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        entries = (ROOT / name).read_text().replace("\\\n", " ").splitlines()
        packages = [line for line in entries if line.strip() and not line.startswith("#")]
        assert packages
        for line in packages:
            assert "==" in line.split()[0], f"{name}: {line.split()[0]} is not pinned"
            assert "--hash=sha256:" in line, f"{name}: {line.split()[0]} has no digest"
