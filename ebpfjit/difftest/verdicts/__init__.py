"""Verdicts of Linux and of `ebpfjit.verifier`, held against each other; and what is accepted, run.

generate -> Sample -> linux.Judge      what Linux says, and of which class that is
-> compare          what our own verifier says, differences by kind
-> soundness        runs of what was accepted: it must not fault
"""
