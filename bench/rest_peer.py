"""What the HTTP server costs by itself: a Quart-Trio application that returns a constant, served as the daemon serves its own.

``python -m bench.rest_peer CERTIFICATE KEY`` prints its address and serves ``GET`` and ``POST /bytes/<n>`` (a constant JSON text of n bytes) until standard
input ends.
"""

from __future__ import annotations

import functools
import gc
import sys
from pathlib import Path

import trio
from quart import Response, request
from quart_trio import QuartTrio

from httpapi.server import Listen, Serving, serve
from rbmedia.companion import parent_gone


def application() -> QuartTrio:
    app = QuartTrio("rest_peer", static_folder=None, template_folder=None)
    texts: dict[int, bytes] = {}

    @app.route("/bytes/<int:size>", methods=["GET", "POST"])
    async def constant(size: int) -> Response:
        if request.method == "POST":
            await request.get_data()
        text = texts.setdefault(size, b'"' + b"x" * (size - 2) + b'"')
        return Response(text, 200, content_type="application/json")

    return app


async def main() -> None:
    certificate, key = map(Path, sys.argv[1:])
    listen = Listen(host="127.0.0.1", port=0, certificate=certificate, key=key)
    async with trio.open_nursery() as nursery:
        serving: Serving = await nursery.start(functools.partial(serve, application(), listen))
        gc.collect()
        gc.freeze()
        print(serving.url, flush=True)
        await parent_gone()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
