"""The middle: a program as values in blocks, and the passes over it. Section 4 of docs/architecture.md."""
