"""How a device is reached, and the client that speaks with the agent there.

connection  what every way has in common; this machine, or another Python on it
remote      a device behind another program's connection: its work folder, files and lock
ssh, adb    two such programs
client      asks an agent
results     what it answers
channel     calls over two byte streams
process     a child process at the other end
local       an agent in a fresh process on this machine
archive     the agent as one file
"""

from __future__ import annotations

from edgeopt.access.client import Agent, Progress
from edgeopt.access.connection import Connection
from edgeopt.access.results import Built, Energy, Facts, Machine, Memory, Opened, Throughput, Timing
from edgeopt.agent.condition import Condition, disturbances
from edgeopt.agent.runtimes import Layer, Port, RuntimeMemory
from edgeopt.agent.timer import Clock, Limits, Warmup

__all__ = [
    "Agent",
    "Built",
    "Clock",
    "Condition",
    "Connection",
    "Energy",
    "Facts",
    "Layer",
    "Limits",
    "Machine",
    "Memory",
    "Opened",
    "Port",
    "Progress",
    "RuntimeMemory",
    "Throughput",
    "Timing",
    "Warmup",
    "disturbances",
]
