"""What can be known of a program before it runs: control flow, the rules it keeps, facts per pc."""
