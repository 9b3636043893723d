"""The reference interpreter: clear before fast, and the judge of the machine code."""

from ebpfjit.interpreter.decode import Watcher as Watcher
from ebpfjit.interpreter.machine import State as State
from ebpfjit.interpreter.machine import interpret as interpret
from ebpfjit.interpreter.steps import check_depth as check_depth
