"""The REST edge: a Quart-Trio application on declared methods, and the server for it.

Belongs here: routes, authentication, the envelope, checking of requests, OpenAPI; one sub-package per documented API. Does not
belong here: decisions (``rbcore``), SQL (``eventlog.views``), anything that waits for a device.

``method`` is what a method of an API is, ``records`` makes the methods of a declared resource, ``application`` turns
both into routes. ``docs/api.md`` tells the choices where the manual is silent.
"""

from httpapi.application import create_app
from httpapi.credentials import Credentials, VolumeCredentials
from httpapi.server import Listen, Serving, serve
from httpapi.services import Services, Settings
from httpapi.tokens import Tokens

__all__ = [
    "Credentials",
    "Listen",
    "Services",
    "Serving",
    "Settings",
    "Tokens",
    "VolumeCredentials",
    "create_app",
    "serve",
]
