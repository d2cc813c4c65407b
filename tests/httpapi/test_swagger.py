"""Swagger UI as its reader uses it, in a real browser: authorise, try a method out, see what it answers. Without the internet."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.httpapi.chromium import PROGRAM, open_page
from tests.httpapi.house import API, House
from tests.httpapi.stories import queued
from tests.httpapi.test_server import serving

pytestmark = pytest.mark.skipif(
    not PROGRAM, reason="NO BROWSER: Debian's package chromium is not installed; nobody looked at Swagger UI"
)


def trusted(certificate: Path) -> str:
    """The flag with which the browser takes this one certificate."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return f"--ignore-certificate-errors-spki-list={base64.b64encode(digest).decode()}"


def scheme(name: str, what: str) -> str:
    """An element of the dialog, in the part that is about the security scheme."""
    part = f'[...document.querySelectorAll(".auth-container")].find(one => one.querySelector("h4").innerText.startsWith("{name}"))'
    return f'({part})?.querySelector("{what}")'


@pytest.mark.slow
async def test_the_documented_walk_in_a_browser(house: House, tmp_path: Path) -> None:
    await house.add_client()
    task = await queued(house)
    headers = house.headers
    async with (
        serving(house, tmp_path) as (told, _),
        open_page(tmp_path / "profile", trusted(tmp_path / "pki" / "server.pem")) as page,
    ):
        await page.command("Page.navigate", url=f"{told.url}{API}/")
        await page.click('document.querySelector(".btn.authorize")')
        for name, secret in (
            ("bearer", headers["Authorization"].removeprefix("Bearer ")),
            ("csrf", headers["X-CSRF-TOKEN"]),
        ):
            await page.type(scheme(name, "input"), secret)
            await page.click(scheme(name, "button.authorize"))
            await page.until(f'{scheme(name, "button")}?.innerText === "Logout"')
        await page.click('document.querySelector(".btn-done")')
        await page.click('document.querySelector("#operations-tag-Task_Queue")')
        operation = "document.querySelector('[id$=\"-get_task_queue\"]')"
        await page.click(f'{operation}?.querySelector(".opblock-summary-control")')
        await page.click(f'{operation}?.querySelector(".try-out__btn")')
        await page.click(f'{operation}?.querySelector(".execute")')
        status = await page.until(
            f'{operation}?.querySelector(".live-responses-table .response .response-col_status")?.innerText'
        )
        body = await page.until(f'{operation}?.querySelector(".live-responses-table .highlight-code")?.innerText')
    assert status.split()[0] == "200"
    assert f'"id": {task}' in body
    assert f"{told.url}{API}/task_queue" in [one.partition("?")[0] for one in page.requested]
    elsewhere = [one for one in page.requested if not one.startswith((f"{told.url}/", "data:", "blob:"))]
    assert not elsewhere, "no request leaves the host"
    assert not page.complaints
