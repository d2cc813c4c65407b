"""Settings of the daemon and of the agent: a TOML file, then the environment, then the command line; the later one wins.

Every setting is declared once, as a field of :class:`Settings`, with its range and its meaning; docs/operations.md shows the table
that is made from these declarations. A value that cannot be used is a :class:`BadSetting` whose sentence names the key,
where the value came from, and what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRUE_WORDS = frozenset({"true", "yes", "on", "1"})
FALSE_WORDS = frozenset({"false", "no", "off", "0"})


class BadSetting(Exception):
    """A setting is unknown or its value is not allowed. The message is a whole sentence for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What is said about a setting besides its type and default."""

    says: str
    environment: str = ""
    minimum: int | None = None
    maximum: int | None = None
    unit: str = ""


def _setting(default: Any, says: str, **more: Any) -> Any:
    return dataclasses.field(default=default, metadata={"declared": Declared(says=says, **more)})


def default_home() -> Path:
    """``$XDG_DATA_HOME/rbmedia``, by default ``~/.local/share/rbmedia``."""
    base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(base) / "rbmedia"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, valid. Field names are the keys of the TOML file."""

    home: Path = _setting(  # noqa: RUF009 - a path is immutable
        Path(), "Everything the daemon keeps. Empty: `$XDG_DATA_HOME/rbmedia`.", environment="RBMEDIA_HOME"
    )
    host: str = _setting("localhost", "Address the API listens on, IP address or FQDN.", environment="APP_HOST")
    port: int = _setting(5656, "Port of the API. 0: any free one.", environment="APP_PORT", minimum=0, maximum=65535)
    server_host: str = _setting(
        "localhost", "Host of the daemon as agents and the command dial it.", environment="RB_SERVER_HOST"
    )
    agent_host: str = _setting("", "Address the agents' ports listen on. Empty: that of the API.")
    control_port: int = _setting(
        5657, "Port of the agents' control channel. 0: any free one.", minimum=0, maximum=65535
    )
    data_port: int = _setting(5658, "Port of the agents' data channel. 0: any free one.", minimum=0, maximum=65535)
    debug: bool = _setting(False, "Extended logging.", environment="DEBUG")
    superuser_password: str = _setting(
        "",
        "Password of the first superuser `rubackup`, used at the first start only. Empty: a random one, printed once.",
        environment="RBMEDIA_SUPERUSER_PASSWORD",
    )
    superuser_password_file: str = _setting(
        "", "A file with that password in its first line.", environment="RBMEDIA_SUPERUSER_PASSWORD_FILE"
    )
    log_map_gib: int = _setting(
        64,
        "Address space reserved for the event log; disk is used as events come.",
        minimum=1,
        maximum=65536,
        unit="GiB",
    )
    iscsi_targets: str = _setting(
        "",
        "Tape libraries behind iSCSI: targets as `iscsi://[user%password@]host[:port]/target`, separated by spaces. Drives and changers of "
        "this host (`/dev/sgN`) need no setting.",
        environment="RBMEDIA_ISCSI_TARGETS",
    )
    immutable_files: bool = _setting(
        True,
        "Whether the key `immutable_archives` may make archives immutable files, which nobody but the daemon removes. No: for homes that come and go.",
        environment="RBMEDIA_IMMUTABLE_FILES",
    )
    http_workers: int = _setting(
        0,
        "Processes that answer the API beside the daemon: they end TLS and HTTP, and read the views. 0: the daemon does it alone.",
        environment="RBMEDIA_HTTP_WORKERS",
        minimum=0,
        maximum=64,
    )
    stop_seconds: int = _setting(
        20, "How long an orderly stop may take before it is forced.", minimum=1, maximum=600, unit="seconds"
    )

    def __repr__(self) -> str:
        """Without what may hold a password: settings are logged."""
        shown = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        for secret in ("superuser_password", "iscsi_targets"):
            shown[secret] = "***" if shown[secret] else ""
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


@dataclass(frozen=True, slots=True)
class Home:
    """The layout of the home folder."""

    path: Path

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def views(self) -> Path:
        return self.path / "views"

    @property
    def secrets(self) -> Path:
        return self.path / "secrets"

    @property
    def pki(self) -> Path:
        return self.path / "pki"

    @property
    def default_pool(self) -> Path:
        return self.path / "pools" / "default"

    @property
    def kept_of_tape(self) -> Path:
        """Manifests of archives on cartridges: a cache (``actors.tape.kept``)."""
        return self.path / "kept-of-tape"

    @property
    def agent(self) -> Path:
        return self.path / "agent"

    @property
    def messages(self) -> Path:
        """Log files for people (the event log is ``log/``)."""
        return self.path / "messages"

    @property
    def daemon_file(self) -> Path:
        """Where a running daemon can be reached (``rbmedia.endpoint``)."""
        return self.path / "daemon.json"

    @property
    def run(self) -> Path:
        """Sockets of a running daemon, for its own user alone."""
        return self.path / "run"

    @property
    def local_data(self) -> Path:
        """The Unix socket for bulk of this host's agent (``drivers.local_stream``)."""
        return self.run / "data.sock"

    @property
    def ca_certificate(self) -> Path:
        return self.pki / "ca.pem"

    @property
    def configuration(self) -> Path:
        return self.path / "rbmedia.toml"

    def make(self) -> None:
        """Create what is missing. Secrets and keys are for the owner's eyes only."""
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.secrets, self.pki, self.agent, self.log, self.run):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        for folder in (self.views, self.default_pool, self.messages, self.kept_of_tape):
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)


def load_settings(
    *,
    configuration: Path | None = None,
    environment: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from the three places. ``options`` that are None were not given.

    Without ``configuration`` the file ``rbmedia.toml`` of the home is read when it is there. Raises :class:`BadSetting`.
    """
    environment = os.environ if environment is None else environment
    given = {name: value for name, value in (options or {}).items() if value is not None}
    named = given.get("home") or environment.get("RBMEDIA_HOME") or default_home()
    home = Path(_checked("home", named, "the command line")).expanduser().absolute()
    values = _from_file(configuration, required=True) if configuration else _from_file(Home(home).configuration)
    values.update(_from_environment(environment))
    values.update({name: (value, "the command line") for name, value in given.items()})
    if "home" not in values or not str(values["home"][0]):
        values["home"] = (str(home), "the default")
    checked = {name: _checked(name, value, origin) for name, (value, origin) in values.items()}
    checked["home"] = checked["home"].expanduser().absolute()
    return Settings(**checked)


def declared(name: str) -> Declared:
    """The declaration of a setting; KeyError when there is none."""
    return _DECLARATIONS[name].metadata["declared"]  # type: ignore[no-any-return]


_DECLARATIONS = {one.name: one for one in dataclasses.fields(Settings)}
SETTING_NAMES = tuple(_DECLARATIONS)


def _from_file(path: Path, *, required: bool = False) -> dict[str, tuple[Any, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if required:
            raise BadSetting(f"The configuration file {path} does not exist.") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"The configuration file {path} cannot be read: {error}.") from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSetting(f"The configuration file {path} is not TOML: {error}.") from None
    return {name: (value, str(path)) for name, value in table.items()}


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for name in SETTING_NAMES:
        variable = declared(name).environment
        if variable and environment.get(variable, "") != "":
            found[name] = (environment[variable], f"the environment ({variable})")
    return found


def _checked(name: str, value: Any, origin: str) -> Any:
    if name not in _DECLARATIONS:
        near = difflib.get_close_matches(name, SETTING_NAMES, 1)
        hint = f" Did you mean {near[0]}?" if near else f" There are: {', '.join(SETTING_NAMES)}."
        raise BadSetting(f"There is no setting {name} ({origin}).{hint}")
    kind = _DECLARATIONS[name].type
    if kind == "int":
        return _integer(name, value, origin)
    if kind == "bool":
        return _boolean(name, value, origin)
    if not isinstance(value, str | Path):
        raise BadSetting(f"{name} must be a text, not {value!r} ({origin}).")
    if "\0" in str(value):
        raise BadSetting(f"{name} must not contain a NUL character ({origin}).")
    return Path(value) if kind == "Path" else str(value)


def _integer(name: str, value: Any, origin: str) -> int:
    rule = declared(name)
    allowed = f"a whole number from {rule.minimum} to {rule.maximum}" + (f" {rule.unit}" if rule.unit else "")
    text = str(value).strip()
    if isinstance(value, bool) or not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 20:
        raise BadSetting(f"{name} must be {allowed}, not {value!r} ({origin}).")
    number = int(text)
    assert rule.minimum is not None
    assert rule.maximum is not None
    if not rule.minimum <= number <= rule.maximum:
        raise BadSetting(f"{name} must be {allowed}, not {number} ({origin}).")
    return number


def _boolean(name: str, value: Any, origin: str) -> bool:
    word = str(value).strip().lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise BadSetting(f"{name} must be true or false, not {value!r} ({origin}).")
