"""What each release of Linux has, as facts: text that a person reads, and `lookup` takes apart."""
