"""How a live run goes, as the overlay, the page and the log show it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class OutputStatus:
    """One output: `trouble` says why it is not running, empty if it is."""

    name: str
    written: int
    dropped: int
    failures: int
    trouble: str


@dataclass(frozen=True)
class Status:
    """What the stage tells about once or twice a second.

    `camera` a line on the source's state, `connected` whether it gives pictures; `shown` and
    `wanted` pictures a second; `captured` those that came, `dropped` how many were too old
    when the stage had time; `latency` from capture to show, in milliseconds, as (p50, p95);
    `dreams` and `steps` a second; `lines` dreamed at now, `share` the part of the wanted
    quality that this machine can hold, of 1; `gate` how much of the dream the gate lets
    through, `movement` 0 to 1; `states` what toggles are on; `notices` the last few, newest
    last; `seconds` since the run began; `memory` in MiB.
    """

    camera: str = "opening"
    connected: bool = False
    size: tuple[int, int] = (0, 0)
    shown: float = 0.0
    wanted: float = 0.0
    captured: float = 0.0
    dropped: int = 0
    latency: tuple[float, float] = (0.0, 0.0)
    dreams: float = 0.0
    steps: float = 0.0
    lines: int = 0
    share: float = 1.0
    gate: float = 1.0
    movement: float = 0.0
    preset: str | None = None
    states: tuple[str, ...] = ()
    outputs: tuple[OutputStatus, ...] = ()
    notices: tuple[str, ...] = ()
    signals: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    memory: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
