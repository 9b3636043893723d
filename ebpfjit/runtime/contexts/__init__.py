"""Contexts: what r1 points to for programs of each type, and the packet behind it."""
