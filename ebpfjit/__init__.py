"""eBPF in user space: load, check, run, compile and inspect programs.

The public names, loaded when first used so that `import ebpfjit` stays cheap (PEP 562).
"""
