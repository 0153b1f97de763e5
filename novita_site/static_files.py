"""Static files under addresses that contain a hash, sent compressed, so that a browser requests each version once.

One hash of all files is a folder of each address: `/static/<hash>/admin/css/base.css`. Relative links inside the files
keep working, and a deployment needs no collectstatic. The dashboard's styles and modules are sent as one file each.
"""

import gzip
import mimetypes
import posixpath
import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from django.conf import settings
from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import StaticFilesStorage
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotModified
from whitenoise.middleware import WhiteNoiseMiddleware

from novita_site import bundles

GZIP_LEVEL: Final = 9
# Smaller files don't get smaller.
MIN_GZIP_BYTES: Final = 200
IMMUTABLE: Final = "public, max-age=31536000, immutable"
# An address with another hash belongs to another version, which another host may serve during an upgrade.
OTHER_VERSION: Final = "no-cache"
_COMPRESSED_TYPES: Final = ("text/", "application/json", "image/svg+xml")
_ADDRESS: Final = re.compile(r"([0-9a-f]{12})/(.+)")


@dataclass(frozen=True)
class File:
    """A file as it is sent; `gzipped` is None when compression saves nothing."""

    content: bytes
    gzipped: bytes | None
    content_type: str


class Storage(StaticFilesStorage):
    """Makes the addresses for the template tag `static`."""

    def url(self, name: str | None) -> str:
        return super().url(f"{find_version()}/{name}")


class Middleware(WhiteNoiseMiddleware):  # type: ignore[misc]  # WhiteNoise has no types
    """Serves addresses with a hash; WhiteNoise serves those without."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        address = request.path_info.removeprefix(self.static_prefix)
        match = _ADDRESS.fullmatch(address) if address != request.path_info else None
        file = find(match[2]) if match and request.method in {"GET", "HEAD"} else None
        # A page that is older than this version can't use what it loads later from it.
        if match and match[2] in bundles.LATER and match[1] != find_version():
            file = None
        if match is None or file is None:
            answer: HttpResponseBase = super().__call__(request)
            return answer
        return _answer(request, file, match[1])


def _answer(request: HttpRequest, file: File, version: str) -> HttpResponseBase:
    etag = f'"{find_version()}"'
    response: HttpResponse
    if request.headers.get("If-None-Match") == etag:
        response = HttpResponseNotModified()
    elif file.gzipped and "gzip" in request.headers.get("Accept-Encoding", ""):
        response = HttpResponse(file.gzipped, content_type=file.content_type)
        response["Content-Encoding"] = "gzip"
    else:
        response = HttpResponse(file.content, content_type=file.content_type)
    if response.content:
        response["Content-Length"] = str(len(response.content))
    if file.gzipped:
        response["Vary"] = "Accept-Encoding"
    response["ETag"] = etag
    response["Cache-Control"] = IMMUTABLE if version == find_version() and not settings.DEBUG else OTHER_VERSION
    return response


@cache
def find_version() -> str:
    """Return the hash of all static files: the same on every host that has the same files."""
    found = {path: storage.path(path) for finder in finders.get_finders() for path, storage in finder.list(None)}
    digest = sha256()
    for path in sorted(found):
        # A map of symbols is read by debuggers only.
        if not path.endswith(".map"):
            digest.update(f"{path}\0".encode() + Path(found[path]).read_bytes())
    return digest.hexdigest()[:12]


def find(name: str) -> File | None:
    """Return a static file or a bundle by its name; None for an unknown name."""
    return _load(name) if settings.DEBUG else _find_once(name)


def _load(name: str) -> File | None:
    content = bundles.build(name, read) if name in bundles.NAMES else read(name)
    if content is None:
        return None
    content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    gzipped = None
    if content_type.startswith(_COMPRESSED_TYPES) and len(content) >= MIN_GZIP_BYTES:
        gzipped = gzip.compress(content, GZIP_LEVEL, mtime=0)
        content_type += "; charset=utf-8"
    return File(content, gzipped, content_type)


@cache
def _find_known(name: str) -> File | None:
    return _load(name)


def _find_once(name: str) -> File | None:
    # Unknown names are not kept: anybody could fill the memory with them.
    return _find_known(name) if name in bundles.NAMES or read(name) is not None else None


def read(name: str) -> bytes | None:
    if posixpath.normpath(name) != name or name.startswith(("/", "..")):
        return None
    path = finders.find(name)
    return Path(path).read_bytes() if isinstance(path, str) and Path(path).is_file() else None
