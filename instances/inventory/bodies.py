"""The answer to GET /api/instances as it is sent and kept: rendered from the rows, gzipped, and sealed."""

import gzip
import zlib
from collections.abc import Sequence
from typing import Final

from instances.instance import from_json
from instances.redis_client import FORMAT, ROWS_AT_ONCE

# Level 9 takes 13 ms for 1,000 instances in place of 4, once for each revision: 48 kB for each reader in place of 56.
SMALL_GZIP_LEVEL: Final = 9
SMALL_LISTING: Final = 5000
GZIP_LEVEL: Final = 5
# The listing of some 50,000 instances. A larger one is decompressed for each reader without gzip.
KEPT_PLAIN_BYTES: Final = 32 * 1024 * 1024


class Rendered:
    """The answer of one revision, for all readers of a process. The plain text is kept from its first use on."""

    def __init__(self, revision: int | None, gzipped: bytes) -> None:
        self.revision = revision
        self.gzipped = gzipped
        self._plain: bytes | None = None

    def get_plain(self) -> bytes:
        plain = self._plain or gzip.decompress(self.gzipped)
        if len(plain) <= KEPT_PLAIN_BYTES:
            self._plain = plain
        return plain


def render(shown: Sequence[bytes]) -> bytes:
    """Return the gzipped answer of a listing, from its rows in order."""
    # In parts: Python's other threads wait while a large text is joined.
    level = SMALL_GZIP_LEVEL if len(shown) <= SMALL_LISTING else GZIP_LEVEL
    # Without short matches, which pay in texts only.
    packer = zlib.compressobj(level, wbits=31, strategy=zlib.Z_FILTERED)
    parts = [packer.compress(b'{"instances":[')]
    for start in range(0, len(shown), ROWS_AT_ONCE):
        parts.append(packer.compress(b"," * (start > 0) + b",".join(shown[start : start + ROWS_AT_ONCE])))
    return b"".join([*parts, packer.compress(b'],"total":%d}' % len(shown)), packer.flush()])


# Identifies the fields of an instance in this version: an answer that another version rendered may lack one.
_FIELDS: Final = zlib.crc32(repr(sorted(from_json({"id": "-", "status": "-"}).to_json())).encode())


def seal(gzipped: bytes) -> bytes:
    """Prefix a rendered answer with its format and checksum, which reveal damage and other versions."""
    return b"%d %08x %08x " % (FORMAT, _FIELDS, zlib.crc32(gzipped)) + gzipped


def unseal(sealed: bytes) -> bytes | None:
    gzipped = sealed[len(seal(b"")) :]
    return gzipped if gzipped and sealed == seal(gzipped) else None
