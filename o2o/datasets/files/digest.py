"""SHA-256 of large files, computed once and remembered beside them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path


def sha256(path: Path, start: int = 0) -> str:
    """The SHA-256 of the file's bytes from `start` on, remembered while its size and time of change stay the same.

    Raises:
        OSError: if the file cannot be read.
    """
    status = path.stat()
    about = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "start": start}
    memory = path.with_name(path.name + ".sha256.json")
    with contextlib.suppress(OSError, ValueError):
        remembered = json.loads(memory.read_text())
        if isinstance(remembered, dict) and remembered == about | {"sha256": remembered.get("sha256")}:
            return str(remembered["sha256"])
    with path.open("rb") as file:
        file.seek(start)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # a read-only data directory costs a second hash, not the run
        partial = memory.with_name(f"{memory.name}.{os.getpid()}")
        partial.write_text(json.dumps(about | {"sha256": digest}))
        partial.replace(memory)
    return digest
