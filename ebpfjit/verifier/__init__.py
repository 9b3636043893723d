"""The structural verifier under its public name: `ebpfjit.verifier.check`."""

from ebpfjit.analysis.verifier import MAX_INSTRUCTIONS, check

__all__ = ["MAX_INSTRUCTIONS", "check"]
