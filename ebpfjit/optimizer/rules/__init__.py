"""Rewrites over values: a module for each kind of thing that the machine does at once, or need not do."""
