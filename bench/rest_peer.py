"""What the HTTP server costs by itself: a Quart-Trio application that returns a constant, on Hypercorn's own trio worker, with TLS and access lines.

``python -m bench.rest_peer CERTIFICATE KEY FOLDER`` prints its address (the lines go to files in FOLDER, as the daemon's do) and serves ``GET`` and ``POST /bytes/<n>`` (a constant JSON text of n bytes) until standard
input ends.
"""

from __future__ import annotations

import gc
import logging
import socket
import sys
from pathlib import Path

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import Response, request
from quart_trio import QuartTrio

from rbmedia.companion import parent_gone
from rbmedia.logs import configure_logging

ACCESS_LINES = "%(h)s %(r)s %(s)s %(b)s %(D)sus"


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
    certificate, key, folder = sys.argv[1:]
    configure_logging(Path(folder), debug=False, console=False)
    bound = socket.create_server(("127.0.0.1", 0), backlog=256)
    config = Config()
    config.bind = [f"fd://{bound.fileno()}"]
    config.certfile, config.keyfile = certificate, key
    config.accesslog = logging.getLogger("rbmedia.access")
    config.access_log_format = ACCESS_LINES
    config.keep_alive_max_requests = 2**31
    gc.collect()
    gc.freeze()
    print(f"https://127.0.0.1:{bound.getsockname()[1]}", flush=True)
    await serve(application(), config, shutdown_trigger=parent_gone)


if __name__ == "__main__":
    trio.run(main)
