"""Contexts: what r1 points to when a program of a type starts, as BPF_PROG_TEST_RUN makes it."""
