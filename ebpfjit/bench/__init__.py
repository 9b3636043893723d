"""What ebpfjit costs: calls, batches, compiling, kernels against native code. `ebpfjit bench` shows it.

    Plan -> Steps of each benchmark -> results -> Section -> table, JSON, plot, RESULTS.md

Each comparison is between ways to do the same that take turns in one process.
"""
