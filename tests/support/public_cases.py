"""The public cases of bpf_conformance, where a checkout of it is here: they are not copied into this one."""

from __future__ import annotations

import os
from pathlib import Path

BESIDE = Path(__file__).resolve().parents[2].parent
FOLDERS = (
    Path(os.environ.get("EBPFJIT_CONFORMANCE", os.devnull)),
    BESIDE / "bpf_conformance" / "tests",
    BESIDE / "shared" / "conformance",
)
PATHS = next((found for folder in FOLDERS if (found := sorted(folder.glob("*.data")))), [])
WHY_NOT = (
    "the public cases are not here: git clone https://github.com/Alan-Jowett/bpf_conformance beside the"
    " checkout, or let EBPFJIT_CONFORMANCE name the folder of its .data files"
)
