"""What a running program touches: memory, helpers, and the record of one run."""
