"""Who may ask: the Host and Origin a request names, and its API key.

Knows no route. Read `keys.py` beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from freehold.errors import AuthenticationFailed
from freehold.serving.gateway.errors import HostNotAllowed
from freehold.serving.gateway.keys import ApiKey, KeyStore
from freehold.serving.gateway.settings import GatewaySettings
from freehold.serving.lifecycle import is_loopback

SUBPROTOCOL = "freehold.v1"
KEY_SUBPROTOCOL_PREFIX = "freehold-key."

# host or host:port; an IPv6 address in brackets
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")


class Guard:
    def __init__(self, settings: GatewaySettings, keys: KeyStore) -> None:
        self._keys = keys
        self._allowed = {name.lower().strip("[]") for name in settings.allowed_hosts}
        self._is_local = is_loopback(settings.host)
        if not self._is_local:
            self._allowed_any = not self._allowed
            self._allowed.add(settings.host.lower().strip("[]"))
        else:
            self._allowed_any = False

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Raises HostNotAllowed: a page elsewhere that renamed us to its own site (rebinding)."""
        match = _HOST.fullmatch(headers.get("host", ""))
        if match is None:
            raise HostNotAllowed("The Host header is missing or malformed.")
        name = match[1].lower().strip("[]")
        if self._allowed_any or name in self._allowed or is_loopback(name):
            return
        raise HostNotAllowed(
            "The Host header names another site; ask this gateway by its own address, or add the "
            "name to allowed_hosts."
        )

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Raises HostNotAllowed unless the page that asks was served by this very host."""
        origin = headers.get("origin")
        if origin is None:
            return
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or parts.netloc != headers.get("host"):
            raise HostNotAllowed("WebSockets are open only to this gateway's own page.")

    def check_key(self, headers: Mapping[str, str]) -> ApiKey:
        """The bearer's key. Raises AuthenticationFailed."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise AuthenticationFailed(
                "No API key was given; send it in the header 'Authorization: Bearer KEY'."
            )
        return self.verified(key.strip())

    def check_websocket_key(self, headers: Mapping[str, str], subprotocols: Sequence[str]) -> str:
        """The key itself, checked: a browser cannot set headers, so it offers it as subprotocol."""
        for offered in subprotocols:
            if offered.startswith(KEY_SUBPROTOCOL_PREFIX):
                key = offered.removeprefix(KEY_SUBPROTOCOL_PREFIX)
                self.verified(key)
                return key
        self.check_key(headers)
        return headers["authorization"].partition(" ")[2].strip()

    def verified(self, key: str) -> ApiKey:
        """Raises AuthenticationFailed for a key that is unknown or revoked."""
        found = self._keys.verify(key)
        if found is None:
            raise AuthenticationFailed("This API key is not known, or was revoked.")
        return found
