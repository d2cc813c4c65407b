"""The server over real TLS sockets: what clients meet, and what bad ones cannot do to it."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from drivers.tls import SERVER_NAME, client_context, open_authority
from httpapi import Listen, Serving, serve
from tests.httpapi.house import API, PASSWORD, USER, House

NOW_NS = 1_750_000_000_000_000_000


@pytest.fixture(autouse=True, params=["front", "relay"], ids=["daemon", "worker"])
def process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All bounds of HTTP hold in either."""
    monkeypatch.setattr(House, "served", property(lambda house: getattr(house, request.param)))


@asynccontextmanager
async def serving(house: House, directory: Path, **options: Any) -> AsyncIterator[tuple[Serving, ssl.SSLContext]]:
    import time

    authority = open_authority(directory / "pki", time.time_ns())
    listen = Listen(
        host="127.0.0.1",
        port=0,
        certificate=authority.server_certificate_path,
        key=authority.server_key_path,
        **options,
    )
    async with trio.open_nursery() as nursery:
        stop = trio.Event()
        told: Serving = await nursery.start(partial(serve, house.served, listen, stop=stop.wait))
        assert told.port > 0
        yield told, client_context(authority.certificate_pem)
        stop.set()


@asynccontextmanager
async def browser(told: Serving, trust: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=told.url, verify=trust, trust_env=False, timeout=10) as client:
        yield client


async def sign_in(client: httpx.AsyncClient) -> dict[str, str]:
    body = {"rubackup_database": "rubackup", "rubackup_user": USER, "password": PASSWORD}
    answer = await client.post(f"{API}/auth/login", json=body)
    assert answer.status_code == 200
    data = answer.json()["data"]
    client.cookies.clear()
    return {"Authorization": f"Bearer {data['access_token']}", "X-CSRF-TOKEN": data["csrf_token"]}


async def test_the_documented_walk_over_tls(house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rbmedia.access")
    async with serving(house, tmp_path) as (told, trust), browser(told, trust) as client:
        headers = await sign_in(client)
        listed = await client.get(f"{API}/pool_list/", headers=headers)
        assert listed.status_code == 200
        assert listed.http_version == "HTTP/1.1"
        assert [one["pool_name"] for one in listed.json()["data"]["items"]] == ["Default"]
        body = {"data": {"pool_name": "p", "pool_type": "File system", "media_server": "rubackup-server"}}
        made = await client.post(f"{API}/pool_list", json=body, headers=headers)
        assert made.status_code == 201
        ids = {"ids": [made.json()["data"]["id"]]}
        gone = await client.request("DELETE", f"{API}/pool_list", json=ids, headers=headers)
        assert gone.status_code == 200
        assert (await client.get(f"{API}/pool_list")).status_code == 401
        assert (await client.delete(f"{API}/auth/logout", headers=headers)).status_code == 200
        assert (await client.get(f"{API}/pool_list", headers=headers)).status_code == 401
        assert "server" not in listed.headers
    lines = [record.getMessage() for record in caplog.records if record.name == "rbmedia.access"]
    assert any("GET /api/v1/pool_list/ 1.1 200" in line for line in lines)
    assert len(lines) == 7, "one line per request"
    secrets = (PASSWORD, headers["Authorization"].split()[1], headers["X-CSRF-TOKEN"])
    assert not any(secret in caplog.text for secret in secrets)


async def test_an_oversize_body_gets_its_answer(house: House, tmp_path: Path) -> None:
    async with serving(house, tmp_path) as (told, trust), browser(told, trust) as client:
        headers = await sign_in(client)
        answer = await client.post(f"{API}/pool_list", content=b" " * (2 * 1024 * 1024), headers=headers)
        assert answer.status_code == 400
        assert answer.json()["is_error"]
        assert (await client.get(f"{API}/pool_list", headers=headers)).status_code == 200


async def tls_stream(told: Serving, trust: ssl.SSLContext) -> trio.SSLStream[trio.SocketStream]:
    plain = await trio.open_tcp_stream(told.host, told.port)
    stream = trio.SSLStream(plain, trust, server_hostname=SERVER_NAME, https_compatible=True)
    await stream.do_handshake()
    return stream


async def received(stream: Any) -> bytes:
    found = b""
    try:
        while part := await stream.receive_some(65536):
            found += part
    except trio.BrokenResourceError:
        pass
    return found


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x00\x01\x02 nonsense\r\n\r\n",
        b"GET /api/v1/pool_list HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        # Takes the whole of Hypercorn's own worker down: https://github.com/pgjones/hypercorn/issues/225
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: bKdPyn3u98cTfZJSh4TNeQ==\r\n\r\nx",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: !\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense that is no frame",
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\nHost: \xff\r\nConnection: close\r\n\r\n",
        b"GET /api/v1/pool_list?\xff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /api/v1/pool_list HTTP/1.0\r\n\r\n",
        b"GET /api/v1/pool_list HTTP/1.1\r\n\r\n",
    ],
    ids=range(13),
)
async def test_hostile_bytes_end_their_own_connection_only(house: House, tmp_path: Path, hostile: bytes) -> None:
    async with serving(house, tmp_path, keep_alive_seconds=0.5) as (told, trust), browser(told, trust) as client:
        headers = await sign_in(client)
        stream = await tls_stream(told, trust)
        await stream.send_all(hostile)
        with trio.fail_after(10):
            answer = await received(stream)
        assert b" 500 " not in answer.partition(b"\r\n")[0]
        await trio.aclose_forcefully(stream)
        assert (await client.get(f"{API}/pool_list", headers=headers)).status_code == 200


async def test_a_peer_that_speaks_no_tls_is_dropped(house: House, tmp_path: Path) -> None:
    async with serving(house, tmp_path, handshake_seconds=0.3) as (told, trust), browser(told, trust) as client:
        plain = await trio.open_tcp_stream(told.host, told.port)
        await plain.send_all(b"GET / HTTP/1.1\r\n\r\n")
        silent = await trio.open_tcp_stream(told.host, told.port)
        with trio.fail_after(10):
            await received(plain)
            await received(silent)
        assert (await sign_in(client))["X-CSRF-TOKEN"]


async def test_idle_connections_are_closed_and_excess_ones_refused(house: House, tmp_path: Path) -> None:
    async with serving(house, tmp_path, keep_alive_seconds=0.3, connections_max=2) as (told, trust):
        first, second = await tls_stream(told, trust), await tls_stream(told, trust)
        with pytest.raises(trio.BrokenResourceError):
            await tls_stream(told, trust)
        with trio.fail_after(10):
            await received(first)
            await received(second)
        async with browser(told, trust) as client:
            assert await sign_in(client)


async def test_the_place_of_a_peer_that_went_away_is_free_at_once(house: House, tmp_path: Path) -> None:
    """Not only when its idle time would have been over."""
    async with serving(house, tmp_path, connections_max=2, keep_alive_seconds=600) as (told, trust):
        for _ in range(6):
            with trio.fail_after(10):
                while (stream := await tls_stream_unless_refused(told, trust)) is None:
                    pass
                await stream.send_all(b"GET /api/v1/pool_list HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await stream.receive_some(65536)).startswith(b"HTTP/1.1 401 ")
                await stream.aclose()


async def tls_stream_unless_refused(told: Serving, trust: ssl.SSLContext) -> trio.SSLStream[trio.SocketStream] | None:
    try:
        return await tls_stream(told, trust)
    except trio.BrokenResourceError:
        return None


async def test_a_connection_is_closed_when_idle_after_its_requests_too(house: House, tmp_path: Path) -> None:
    async with serving(house, tmp_path, keep_alive_seconds=0.3) as (told, trust):
        stream = await tls_stream(told, trust)
        for _ in range(3):
            await stream.send_all(b"GET /api/v1/pool_list HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}}"):
                answer += await stream.receive_some(65536)
            assert answer.startswith(b"HTTP/1.1 401 ")
        with trio.fail_after(10):
            await received(stream)


async def test_stopping_lets_a_request_in_progress_end(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = type(house.services.views)
    row, begun, go_on = views.row, trio.Event(), trio.Event()

    async def slow(*arguments: Any, **options: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await row(*arguments, **options)

    answers: list[int] = []

    async def ask(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
        answers.append((await client.get(f"{API}/pool_list/1", headers=headers)).status_code)

    async with trio.open_nursery() as nursery:
        async with serving(house, tmp_path) as (told, trust):
            client = await nursery.start(_open_browser, told, trust)
            headers = await sign_in(client)
            monkeypatch.setattr(views, "row", slow)
            nursery.start_soon(ask, client, headers)
            await begun.wait()
            nursery.start_soon(_set_soon, go_on)
        with pytest.raises(OSError, match=r"refused|connect"):
            await trio.open_tcp_stream(told.host, told.port)
        nursery.cancel_scope.deadline = trio.current_time() + 5
        while not answers:
            await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert answers == [200]


async def _open_browser(told: Serving, trust: ssl.SSLContext, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    async with browser(told, trust) as client:
        task_status.started(client)
        await trio.sleep_forever()


async def _set_soon(event: trio.Event) -> None:
    await trio.testing.wait_all_tasks_blocked(0.05)
    event.set()


async def test_a_peer_that_reads_nothing_does_not_hold_the_stop(house: House, tmp_path: Path) -> None:
    async with serving(house, tmp_path, graceful_seconds=0.5, stalled_seconds=2.0) as (told, trust):
        stream = await tls_stream(told, trust)
        stream.transport_stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /api/v1/swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
        await stream.send_all(request * 8)
        await trio.testing.wait_all_tasks_blocked(0.2)
        ended = trio.current_time()
    assert trio.current_time() - ended < 10
    await trio.aclose_forcefully(stream)


async def test_a_peer_that_reads_nothing_loses_its_connection(house: House, tmp_path: Path) -> None:
    async with serving(house, tmp_path, stalled_seconds=0.3, connections_max=1) as (told, trust):
        stream = await tls_stream(told, trust)
        stream.transport_stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /api/v1/swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
        await stream.send_all(request * 8)
        # There is room for one connection: the next one is served as soon as the first is gone.
        with trio.fail_after(20):
            while True:
                async with browser(told, trust) as client:
                    try:
                        answer = await client.get(f"{API}/nothing")
                    except httpx.TransportError:
                        continue
                    assert answer.status_code == 404
                    break
    await trio.aclose_forcefully(stream)


async def test_a_taken_port_is_an_error_at_once(house: House, tmp_path: Path) -> None:
    async with serving(house, tmp_path) as (told, _):
        listen = Listen(
            host="127.0.0.1", port=told.port, certificate=tmp_path / "pki/server.pem", key=tmp_path / "pki/server.key"
        )
        with pytest.raises(OSError, match="in use"):
            await serve(house.served, listen)
