"""What a run leaves behind: one JSON object a line, appended at once, so that a run cut short keeps what it has."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PASS, FAIL, NOT_RUN = "pass", "fail", "not run"

Record = dict[str, Any]


def append(path: Path, record: Record) -> None:
    """One line, in one write: it is there whole or not at all, whatever happens to the process next."""
    data = (json.dumps(record) + "\n").encode()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, data)
    finally:
        os.close(file)


def parse(data: bytes) -> Iterator[Record]:
    """The records of some complete lines."""
    for line in data.split(b"\n"):
        if line.strip():
            yield json.loads(line)


def read(path: Path) -> list[Record]:
    """Every complete record of a file; a last line without its end is left out."""
    data = path.read_bytes() if path.exists() else b""
    return list(parse(data[: data.rfind(b"\n") + 1]))


class Tail:
    """Reads on where it stopped: the records that another process appends to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0

    def new(self) -> list[Record]:
        """The complete records since the last call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self._at += end
        return list(parse(data[:end]))


def line(step: str, name: str, status: str, detail: str, seconds: float = 0.0) -> Record:
    """One line of the report: what was looked at, how it went, and the numbers or the reason."""
    return {"kind": "line", "step": step, "line": name, "status": status, "detail": detail, "seconds": seconds}


def is_line(record: Record) -> bool:
    return bool(record["kind"] == "line")
