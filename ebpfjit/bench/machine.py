"""Where something was measured: processor, system, Python, versions, compilers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

from ebpfjit.bench import native


def describe() -> dict[str, Any]:
    """Return what to say of this machine, as JSON has it."""
    return {
        "date": str(date.today()),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "ebpfjit": _version("ebpfjit"),
        "keystone": _version("keystone-engine"),
        "compilers": dict(native.compilers()),
    }


def machine_line() -> str:
    """Return the machine in one line."""
    found = describe()
    parts = [f"{found['cpus']} x {found['cpu']}", found["system"], found["python"]]
    return ", ".join([*parts, *found["compilers"].values()])


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = info.read_text().split("\n\n")[0].splitlines()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name, family, model = (fields.get(key, "?") for key in ("model name", "cpu family", "model"))
    return f"{name} (family {family}, model {model})"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
