"""A reader of wandb's `.wandb` files: LevelDB's log format around protobuf records.

wandb has one too (`wandb leet inspect --json`), which takes a second to start; a test compares the two.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

FILE_HEADER, BLOCK, RECORD_HEADER = 7, 32_768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_records(path: Path) -> list[Record]:
    """All whole records; what a kill tore off the end is left out."""
    content = path.read_bytes()
    records, part, place = [], b"", FILE_HEADER
    while place + RECORD_HEADER <= len(content):
        room = BLOCK - place % BLOCK
        if room < RECORD_HEADER:  # a block's last bytes are padding
            place += room
            continue
        checksum, length, kind = struct.unpack("<IHB", content[place : place + RECORD_HEADER])
        data = content[place + RECORD_HEADER : place + RECORD_HEADER + length]
        if len(data) < length:
            break
        assert zlib.crc32(bytes([kind]) + data) == checksum, f"{path}: damaged at byte {place}"
        part = data if kind in (FULL, FIRST) else part + data
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(part)
            records.append(record)
        place += RECORD_HEADER + length
    return records


def history(records: list[Record]) -> list[dict[str, Any]]:
    """The logged rows, without what wandb adds."""
    rows = [values(record.history.item) for record in records if record.HasField("history")]
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]


def summary(records: list[Record]) -> dict[str, Any]:
    """The summary as it was in the end."""
    found: dict[str, Any] = {}
    for record in records:
        if record.HasField("summary"):
            found |= values(record.summary.update)
    return found


def values(items: Any) -> dict[str, Any]:
    """A dictionary from wandb's items, whose keys are in one of two fields; NaN stays a word, equal to itself."""
    return {
        item.key or ".".join(item.nested_key): json.loads(item.value_json, parse_constant=str)
        for item in items
    }
