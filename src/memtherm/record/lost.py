"""What damage took out of a record that goes on behind it."""

from __future__ import annotations

from dataclasses import dataclass

from memtherm.record.frames import NO_TARGET, Envelope, Kind
from memtherm.units import format_size


@dataclass(frozen=True, kw_only=True)
class Lost:
    """Bytes that are no frames, between two frames that are whole.

    Attributes:
        offset, end: bytes of the file, half-open.
        why: what was found there.
        nr_frames: by the numbers of the frames around; 0 where something was inserted.
        envelope: of the one frame that is lost, where it can be read.
        after_s: end of the last window before; 0 without any.
    """

    offset: int
    end: int
    why: str
    nr_frames: int
    envelope: Envelope | None
    after_s: float

    def may_hold(self, kind: Kind) -> bool:
        """Whether a frame of this kind may be among those that are lost."""
        if self.envelope is not None:
            return self.envelope.kind == kind
        return self.nr_frames > 0

    @property
    def target(self) -> int | None:
        """Whose mappings are lost; None: perhaps those of all."""
        return self.envelope.extra if self.envelope is not None and self.envelope.kind == Kind.MAPPINGS else None

    def sentence(self, *, begin_s: float, next_s: float | None) -> str:
        """Where, why and what.

        Args:
            begin_s: of the record.
            next_s: begin of the first window behind; None: there is none.
        """
        size = format_size(self.end - self.offset)
        where = f"its bytes {self.offset} to {self.end} ({size}) are damaged and left out: {self.why}"
        if self.nr_frames == 0:
            return f"{where}; no frame is missing"
        since_s, until_s = self.after_s or begin_s, next_s
        if self.envelope is not None and self.envelope.kind not in (Kind.SNAPSHOTS, Kind.HEADER):
            since_s, until_s = self.envelope.first_s, self.envelope.last_s
        span = f"from {_moment(since_s - begin_s)} " + (
            "on" if until_s is None else f"to {_moment(max(since_s, until_s) - begin_s)}"
        )
        return f"{where}; lost {'is' if self.nr_frames == 1 else 'are'} {self._what()}, {span}"

    def _what(self) -> str:
        if self.envelope is None:
            return "a frame of unknown content" if self.nr_frames == 1 else f"{self.nr_frames} frames"
        kind, count = self.envelope.kind, self.envelope.count
        if kind == Kind.SNAPSHOTS:
            return f"a frame of {count} snapshots"
        name = Kind(kind).name.lower() if kind in set(Kind) else "a kind that is not known"
        of_target = f" of target {self.envelope.extra}" if kind == Kind.MAPPINGS and self.target != NO_TARGET else ""
        return f"a frame of {name}{of_target}"


def _moment(time_s: float) -> str:
    return f"{max(0.0, time_s):.3f}s"
