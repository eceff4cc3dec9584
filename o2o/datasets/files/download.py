"""A published file, downloaded over HTTP however often the connection breaks, and never taken for another.

The file grows under a temporary name, which outlives a broken connection and the process, so that the next attempt goes
on where the last one stopped. It gets its name only when its SHA-256 is right.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import shutil
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from o2o.datasets.files.locking import exclusive
from o2o.errors import ConfigError

TIMEOUT_SECONDS = 30.0  # without a byte
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds between attempts; as many failures in a row are forgiven
PROGRESS_BYTES = 2**20  # received since the last failure, these end the row
BLOCK_BYTES = 2**18
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
PASSING_STATUSES = (408, 416, 425, 429, 500, 502, 503, 504)
HOPELESS = (socket.gaierror, ssl.SSLCertVerificationError, ConnectionRefusedError)


class _RefusedError(Exception):
    """Why a place does not have the file, in words for the user."""


class _BrokenError(Exception):
    """Why a connection ended too early, in words for the user; another attempt may go further."""


def download(urls: Sequence[str], path: Path, size: int, sha256: str) -> None:
    """Downloads the HDF5 file to `path` from the first of the places that has it.

    Of two processes that want the file, one downloads it and the other waits.

    Args:
        urls: where the file should be, in the order in which they are tried.
        path: where it appears, once complete and correct.
        size: its bytes, as published.
        sha256: as published.

    Raises:
        ConfigError: saying why not, and what to do. Nothing is left but, after a broken connection, a temporary file
            from which the next attempt goes on.
    """
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                [f"{url}: paths.mirrors (or O2O_MIRRORS) takes addresses that begin with http."]
            )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(path.with_name(path.name + ".lock"), "downloaded"):
            if not path.is_file():
                _download(urls, path, size, sha256)
    except OSError as error:
        raise ConfigError(
            [f"{path}: cannot be written ({error.strerror or error}). Name another directory with O2O_DATA."]
        ) from None


def _download(urls: Sequence[str], path: Path, size: int, sha256: str) -> None:
    partial = path.with_name(path.name + ".partial")
    free = shutil.disk_usage(path.parent).free + _size_of(partial)
    if free < size:
        raise ConfigError(
            [
                f"{path}: needs {_megabytes(size)}, but only {_megabytes(free)} are free there. "
                "Make room, or name another directory with O2O_DATA."
            ]
        )
    refusals: dict[str, str] = {}
    # First each place once: no waiting for one that is down while another may have the file. Then again those whose
    # failure may pass.
    turns = [(url, len(urls) == 1) for url in urls] + [(url, True) for url in urls if len(urls) > 1]
    while turns:
        url, patient = turns.pop(0)
        try:
            _fetch(url, partial, size, sha256, patient)
            partial.replace(path)
            return
        except _RefusedError as reason:
            turns = [turn for turn in turns if turn[0] != url]
            refusals[url] = str(reason)
        except _BrokenError as reason:
            refusals[url] = str(reason)
        except OSError:  # the disk's: the network's are told apart where they happen
            partial.unlink(missing_ok=True)
            raise
        if turns:
            print(f"{url}: {refusals[url]}; trying {turns[0][0]}", file=sys.stderr, flush=True)
    kept = f"{_megabytes(_size_of(partial))} are kept, and the same command goes on from there."
    lines = [
        f"{path.name} could not be downloaded.",
        *(f"  {url}: {reason}" for url, reason in refusals.items()),
        *([kept] if partial.exists() else []),
        f"Name a mirror with O2O_MIRRORS or paths.mirrors, or put the file there yourself: {path}",
        "Sets made by this project, dataset=regen-hopper-medium for one, need no download.",
    ]
    raise ConfigError(["\n".join(lines)])


def _fetch(url: str, partial: Path, size: int, sha256: str, patient: bool) -> None:
    """Completes the partial file from one place, and makes sure that it is the published one.

    Raises:
        _RefusedError: if the place does not have it.
        _BrokenError: if no connection gets further.
        OSError: if it cannot be written.
    """
    resumed = partial.exists()
    _complete(url, partial, size, patient)
    if resumed and not _is_published(partial, sha256):
        partial.unlink()  # it was begun from other bytes, perhaps
        _complete(url, partial, size, patient)
    if not _is_published(partial, sha256):
        partial.unlink()
        raise _RefusedError("its bytes do not have the published SHA-256: corrupted, or another file")


def _complete(url: str, partial: Path, size: int, patient: bool) -> None:
    """Appends to the partial file what is missing, in as many connections as it takes; raises as `_fetch`.

    Who is not `patient` gives up at the first failure, unless the place has sent something.
    """
    if not sys.stderr.isatty():
        print(f"downloading {_megabytes(size - _size_of(partial))} from {url}", file=sys.stderr, flush=True)
    with tqdm(total=size, desc=partial.stem, unit="B", unit_scale=True, disable=None) as bar:
        failures = 0
        while (before := _size_of(partial)) != size:
            try:
                _receive(url, partial, size, bar)
            except _BrokenError:
                gained = _size_of(partial) - before
                failures = 1 if gained >= PROGRESS_BYTES else failures + 1
                patient = patient or gained > 0
                if not patient or failures > len(WAITS):
                    raise
                time.sleep(WAITS[failures - 1])


def _receive(url: str, partial: Path, size: int, bar: Any) -> None:
    """Appends to the partial file what one connection gives."""
    have = _size_of(partial)
    with _answer(url, have if have < size else 0) as answer:
        if answer.status != 206:  # it has no ranges, and sends all from the beginning
            have = 0
        _check_announcement(answer, have, size)
        bar.n, bar.initial = have, have
        with partial.open("ab" if have else "wb", buffering=0) as file:
            while have <= size and (block := _block(answer, min(BLOCK_BYTES, size + 1 - have))):
                if have == 0 and not block.startswith(HDF5_SIGNATURE):
                    raise _RefusedError(f"not an HDF5 file, but one that begins with {ascii(block[:40])[1:]}")
                if file.write(block) < len(block):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                have += len(block)
                bar.update(len(block))
    if have > size:
        partial.unlink()
        raise _RefusedError(f"more than the {size} bytes that were published")
    if have < size:
        raise _BrokenError(f"the connection ended after {have} of {size} bytes")


def _answer(url: str, start: int) -> Any:
    """The server's answer to the request for everything from byte `start` on."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "o2o"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        request = urllib.request.Request(url, headers=headers)
        return urllib.request.build_opener().open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        kind = _BrokenError if error.code in PASSING_STATUSES else _RefusedError
        raise kind(f"HTTP {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        kind = _RefusedError if isinstance(cause, (*HOPELESS, ValueError)) else _BrokenError
        raise kind(str(cause) or type(cause).__name__) from None


def _block(answer: Any, size: int) -> bytes:
    try:
        # What is there: a block that is waited for is lost if the connection breaks.
        return answer.read1(size)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(str(error) or type(error).__name__) from None


def _check_announcement(answer: Any, have: int, size: int) -> None:
    """Checks that the server is about to send, by its own words, the file's bytes from `have` on."""
    if answer.status == 206:
        span = answer.headers.get("Content-Range", "")
        if not re.fullmatch(rf"bytes {have}-\d+/({size}|\*)", span.strip()):
            raise _RefusedError(f"it sends {span!r} for the bytes from {have} on of {size}")
    announced = answer.headers.get("Content-Length", str(size - have))
    if answer.status != 206 and announced != str(size):
        kind = answer.headers.get_content_type()
        raise _RefusedError(
            f"{announced} bytes of {kind} instead of the {size} that were published: another file, or "
            "a proxy's page"
        )


def _is_published(partial: Path, sha256: str) -> bool:
    with partial.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
