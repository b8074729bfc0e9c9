"""The built web page, read once into memory and served from there.

Only paths found in the folder at start are known, so no path a client invents reaches the disk.
Knows nothing of what the page does: see web/. Read `app.py` next.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE_DIRECTORY = Path(__file__).parent / "page"

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_COMPRESSED_ALREADY = frozenset({".ico", ".png", ".woff2"})
_HASHED_NAME = re.compile(r"-[A-Za-z0-9_-]{8}\.[a-z0-9]+$")
_NOT_BUILT = (
    "Freehold's gateway is running, but its page has not been built.\n"
    "Build it with `make page` and start again. The API is at /v1.\n"
)


@dataclass(frozen=True, slots=True)
class PageFile:
    body: bytes
    compressed: bytes | None  # gzip, where it is smaller
    content_type: str
    cache_control: str
    etag: str

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", self.content_type.encode()),
            (b"cache-control", self.cache_control.encode()),
            (b"etag", self.etag.encode()),
            (b"vary", b"accept-encoding"),
            (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
            (b"cross-origin-opener-policy", b"same-origin"),
        ]

    def answer(self, headers: Mapping[str, str]) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        """Status, body and headers for a request with these headers."""
        if self.etag in headers.get("if-none-match", ""):
            return 304, b"", self.headers()
        encodings = {e.split(";")[0].strip() for e in headers.get("accept-encoding", "").split(",")}
        if self.compressed is not None and "gzip" in encodings:
            return 200, self.compressed, [*self.headers(), (b"content-encoding", b"gzip")]
        return 200, self.body, self.headers()


def load_page(directory: Path = PAGE_DIRECTORY) -> dict[str, PageFile]:
    """URL path → file; without a built page, `/` alone, which says how to build it."""
    if not (directory / "index.html").is_file():
        return {"/": _page_file(Path("not-built.txt"), _NOT_BUILT.encode())}
    files = {
        f"/{path.relative_to(directory).as_posix()}": _page_file(path, path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
    }
    files["/"] = files["/index.html"]
    return files


def _page_file(path: Path, body: bytes) -> PageFile:
    is_hashed = path.parent.name == "assets" and _HASHED_NAME.search(path.name) is not None
    compressed = None
    if path.suffix not in _COMPRESSED_ALREADY and len(body) > 1024:
        compressed = gzip.compress(body, mtime=0)
    return PageFile(
        body,
        compressed,
        _CONTENT_TYPES.get(path.suffix, "application/octet-stream"),
        "public, max-age=31536000, immutable" if is_hashed else "no-cache",
        f'"{hashlib.sha256(body).hexdigest()[:20]}"',
    )
