"""The middle: a program as values in blocks, and the passes over it. OPTIMIZER in docs/architecture.md."""
