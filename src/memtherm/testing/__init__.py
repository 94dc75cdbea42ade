"""Public fakes for programs and tests: no clock, no process, no privilege."""

from memtherm.testing.actor import RecordingActor
from memtherm.testing.clock import VirtualClock
from memtherm.testing.probe import ScriptedProbe

__all__ = ["RecordingActor", "ScriptedProbe", "VirtualClock"]
