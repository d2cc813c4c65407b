"""A real Chromium, driven over the DevTools protocol through a pipe: no driver program, no port, no WebSocket."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

PROGRAM = shutil.which("chromium") or ""
"""Debian's package ``chromium``; empty: it is not here."""
STEP_SECONDS = 60
"""For each thing that is waited for. A browser that starts on a busy machine is slow."""

_INHERIT = 'exec "${@:3}" 3<&"$1" 4>&"$2"'
"""The browser reads commands from descriptor 3 and writes to 4, whatever numbers they have here."""
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--remote-debugging-pipe",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)


class Page:
    """One tab. ``requested`` is every address that it asked for."""

    def __init__(self, commands: trio.lowlevel.FdStream) -> None:
        self._commands = commands
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._answered = trio.Condition()
        self._session = ""
        self.requested: list[str] = []
        self.complaints: list[str] = []
        """What the browser's console says in red: a policy that was broken, a script that failed."""

    async def listen(self, events: trio.lowlevel.FdStream) -> None:
        """Take what the browser says until it ends."""
        rest = b""
        async for part in events:
            *messages, rest = (rest + part).split(b"\0")
            for message in messages:
                await self._take(json.loads(message))

    async def _take(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requested.append(parameters["request"]["url"])
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.complaints.append(parameters["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(parameters["exceptionDetails"]))
            case None:
                async with self._answered:
                    self._answers[message["id"]] = message
                    self._answered.notify_all()

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        await self._commands.send_all(json.dumps(message).encode() + b"\0")
        with trio.fail_after(STEP_SECONDS):
            async with self._answered:
                while number not in self._answers:
                    await self._answered.wait()
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer)
        result: dict[str, Any] = answer["result"]
        return result

    async def attach(self) -> None:
        target = (await self.command("Target.createTarget", url="about:blank"))["targetId"]
        self._session = (await self.command("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        for domain in ("Network", "Log", "Runtime", "Page"):
            await self.command(f"{domain}.enable")

    async def evaluate(self, expression: str) -> Any:
        found = await self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, expression: str) -> Any:
        """The first true value of the expression, looked at anew whenever the document changes."""
        promise = f"""new Promise((resolve, reject) => {{
            const watch = new MutationObserver(() => look());
            const patience = setTimeout(() => {{ watch.disconnect(); reject(new Error("in vain")); }}, {STEP_SECONDS * 900});
            function look() {{
                const value = {expression};
                if (value) {{ watch.disconnect(); clearTimeout(patience); resolve(value.nodeType ? true : value); }}
            }}
            watch.observe(document, {{subtree: true, childList: true, attributes: true, characterData: true}});
            look();
        }})"""
        return await self.evaluate(promise)

    async def click(self, element: str) -> None:
        """``element``: an expression that gives one. It is waited for."""
        await self.until(element)
        await self.evaluate(f"({element}).click()")

    async def type(self, element: str, text: str) -> None:
        await self.until(element)
        await self.evaluate(f"({element}).focus()")
        await self.command("Input.insertText", text=text)


@asynccontextmanager
async def open_page(directory: Path, *flags: str) -> AsyncIterator[Page]:
    """A tab of a fresh browser whose profile is in ``directory``; the browser ends with it."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    command = ["bash", "-c", _INHERIT, "bash", str(theirs_in), str(theirs_out), PROGRAM]
    process = await trio.lowlevel.open_process(
        [*command, *_FLAGS, f"--user-data-dir={directory}", *flags, "about:blank"],
        pass_fds=(theirs_in, theirs_out),
        stderr=(directory.parent / "chromium.log").open("wb"),
    )
    os.close(theirs_in)
    os.close(theirs_out)
    commands, events = trio.lowlevel.FdStream(ours_out), trio.lowlevel.FdStream(ours_in)
    try:
        async with commands, events, trio.open_nursery() as nursery:
            page = Page(commands)
            nursery.start_soon(page.listen, events)
            await page.attach()
            yield page
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
