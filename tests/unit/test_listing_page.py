"""The page of a listing, in a browser: what belongs together is lit, nothing of a program becomes markup."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
import threading
import zlib
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import Listing, Program, load
from ebpfjit.assembler import assemble
from ebpfjit.listing.view import View
from ebpfjit.program import SourceLine

ROOT = Path(__file__).resolve().parents[2]
EVIL = "</script><script>parent.hacked=1</script><img src=x onerror=parent.hacked=2>"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

ASKING = """
<script>
const asked = %s, answers = {}, pages = %s;
async function ask(name) {
  const frame = document.createElement("iframe");
  frame.width = 1400; frame.height = 800;
  frame.style.colorScheme = name.startsWith("dark") ? "dark" : "light"; // what the page in it prefers
  frame.srcdoc = pages[name];
  document.body.append(frame);
  for (let round = 0; round < 3000; round++) {
    if (frame.contentDocument?.documentElement?.dataset.ready) break;
    await new Promise((done) => setTimeout(done, 10));
  }
  const page = frame.contentDocument, one = (selector) => page.querySelector(selector);
  const texts = (selector) => [...page.querySelectorAll(selector)].map((node) => node.textContent);
  const row = (list, text) =>
    [...page.querySelectorAll(`#${list} .row`)].find((node) => node.textContent.includes(text));
  const send = (node, type) =>
    node.dispatchEvent(new frame.contentWindow.Event(type, { bubbles: true }));
  const rest = () => new Promise((done) => setTimeout(done, 300));
  const key = (node, name) =>
    node.dispatchEvent(new frame.contentWindow.KeyboardEvent("keydown", { key: name }));
  const style = frame.contentWindow.getComputedStyle(page.body);
  const given = { page, one, texts, row, send, key, rest, style };
  const AsyncFunction = (async () => {}).constructor;
  return new AsyncFunction(...Object.keys(given), asked[name])(...Object.values(given));
}
(async () => {
  for (const name of Object.keys(asked)) {
    try { answers[name] = await ask(name); } catch (error) { answers[name] = String(error); }
  }
  answers.hacked = String(window.hacked);
  await fetch("/answers", { method: "POST", body: JSON.stringify(answers) });
})();
</script>
"""

FILTER = """
send(row("ebpf", "ldxb r3, [r1+0x0]"), "mouseover");
await rest();
const hot = { source: texts("#source .hot"), ebpf: texts("#ebpf .hot"), machine: texts("#machine .hot") };
send(row("source", "void *data ="), "mouseover");
const line = texts("#ebpf .hot");
send(row("ebpf", "jgt r3, r6"), "click");
const box = texts("svg .box.picked .at");
const search = one("#search");
search.value = "bpf_map_lookup_elem";
send(search, "input");
return { title: page.title, hot, line, box, found: one("#found").textContent, boxes: texts("svg .box").length,
  paths: page.querySelectorAll("svg path").length, checks: texts("#checks tr"), labels: texts("#legend td"),
  back: style.backgroundColor, remarks: texts("#remarks li") };
"""
HOSTILE = """
return { images: page.querySelectorAll("img").length, scripts: page.querySelectorAll("script").length,
  name: one("#name").textContent, ebpf: texts("#ebpf .row"), source: texts("#source .row") };
"""
LARGE = """
const search = one("#search");
search.value = "9990";
key(search, "Enter");
return { picked: texts("#ebpf .picked"), drawn: page.querySelectorAll(".row").length };
"""
REFUSED = """
return { state: one("#state").textContent, bad: one("#state").className, machine: one("#machine").hidden };
"""


DARK = "return { back: style.backgroundColor };"


def _hostile() -> Listing:
    lines = {0: SourceLine(EVIL, 1, 0, EVIL), 1: SourceLine(EVIL, 2, 0, "")}
    code = assemble("call f\nexit\nf: mov r0, 7\nexit")
    return Program(code, name=EVIL, section=EVIL, symbols={2: EVIL}, lines=lines).listing()


def _large() -> Listing:
    """Return the listing of 10,000 slots: a real one, ten times, as compiling that many takes seconds."""
    rounds = "".join(
        f"ldxb r3, [r1+{n % 60}]\nadd r0, r3\nxor r0, {n * 7919 % 9973}\njgt r0, {n * 31}, l{n}\n"
        f"stxw [r10-{4 * (n % 50) + 4}], r0\nl{n}: mul r3, {n % 9 + 2}\nadd r0, r3\nlsh r0, 1\n"
        for n in range(40)
    )
    view = Program.from_assembly(f"mov r0, 0\n{rounds}exit", name="large").listing().view
    copies = [_moved(view, number * view.slots) for number in range(-(-10_000 // view.slots))]
    steps, blocks, pieces = (
        tuple(x for copy in copies for x in getattr(copy, kind)) for kind in ("steps", "blocks", "pieces")
    )
    return Listing(replace(view, steps=steps, blocks=blocks, pieces=pieces))


def _moved(view: View, by: int) -> View:
    """Return a view as if its program stood so many slots further."""
    steps = tuple(
        replace(step, pc=step.pc + by, block=step.block + by, targets=tuple(t + by for t in step.targets),
                text=re.sub(r"pc (\d+)", lambda found: f"pc {int(found[1]) + by}", step.text))
        for step in view.steps
    )  # fmt: skip
    blocks = tuple(
        replace(block, pc=block.pc + by, ways=tuple((way + by, kind) for way, kind in block.ways))
        for block in view.blocks
    )
    pieces = tuple(
        replace(
            piece,
            pc=None if piece.pc is None else piece.pc + by,
            lines=tuple(replace(line, offset=line.offset + 40 * by) for line in piece.lines),
        )
        for piece in view.pieces
    )
    return replace(view, steps=steps, blocks=blocks, pieces=pieces)


def _in_browser(tmp_path: Path, pages: dict[str, str], asked: dict[str, str]) -> dict[str, Any]:
    """Ask each page what there is to see in it: in one that has them in frames, and tells what they say."""
    if BROWSER is None:
        pytest.skip("no chromium is installed: the page is not looked at in a browser")
    values = [json.dumps(each).replace("<", "\\u003c") for each in (asked, pages)]
    served = f'<!DOCTYPE html><meta charset="utf-8"><body><img src="/wait">{ASKING % tuple(values)}</body>'
    with _Server(served) as server:
        done = subprocess.run(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu",
             f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"http://127.0.0.1:{server.server_port}/"],
            capture_output=True, timeout=120, check=False, text=True,
        )  # fmt: skip
    assert server.answers, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(server.answers)
    assert [text for name, text in found.items() if name != "hacked" and isinstance(text, str)] == []
    return found


class _Server(ThreadingHTTPServer):
    """Serves one page, and an image in it that is not there before the page has posted its answers.

    So the browser, which ends once all is loaded, waits for these.
    """

    def __init__(self, page: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.page, self.answers, self.is_answered = page.encode(), b"", threading.Event()

    def __enter__(self) -> _Server:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.is_answered.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        if self.path == "/wait":
            self.server.is_answered.wait(100)
        body = self.server.page if self.path == "/" else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.server.answers = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.is_answered.set()
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


def test_pages_in_a_browser(tmp_path: Path) -> None:
    program = load(ROOT / "examples" / "packets" / "xdp_port_filter.o").program("port_filter")
    pages = {
        "filter": program.listing().html(),
        "hostile": _hostile().html(),
        "large": _large().html(),
        "refused": Program.from_assembly("mov r0, 1\nja +5").listing().html(),
    }
    pages["dark"] = pages["refused"]
    assert len(pages["large"].encode()) < 2_000_000
    asked = {"filter": FILTER, "hostile": HOSTILE, "large": LARGE, "refused": REFUSED, "dark": DARK}
    seen = _in_browser(tmp_path, pages, asked)
    found = seen["filter"]
    assert found["title"] == "program port_filter (xdp, 47 slots, section 'xdp')"
    assert found["hot"]["source"] == ["30struct udphdr *ports = (void *)ip + ip->ihl * 4;"]
    assert [text[:4] for text in found["hot"]["ebpf"]] == ["16ld"]
    assert any("movzx edx, byte ptr [rdi]" in text for text in found["hot"]["machine"])
    assert found["line"] == ["1ldxw r7, [r1+0x0]no check: argument"]
    assert found["box"] == ["pc 14 to 22"]
    assert int(found["found"].split()[0]) >= 2
    assert (found["boxes"], found["paths"] > 20) == (10, True)
    assert len(found["checks"]) == 12
    assert any("checked" in text for text in found["checks"])
    assert "b_N" in found["labels"]
    assert found["remarks"][0].startswith("optimised code")
    hostile = seen["hostile"]
    assert (seen["hacked"], hostile["images"], hostile["scripts"], hostile["name"]) == (
        "undefined",
        0,
        2,
        EVIL,
    )
    assert f"{EVIL}:" in hostile["ebpf"]
    assert f"1{EVIL}" in hostile["source"]
    large = seen["large"]
    assert [text[:4] for text in large["picked"]] == ["9990"]
    assert large["drawn"] < 400
    refused = seen["refused"]
    assert refused["state"].startswith("no machine code: pc 1: ja: jump at pc 7")
    assert (refused["bad"], refused["machine"]) == ("bad", True)
    assert seen["dark"]["back"] != found["back"]


def test_a_page_stands_alone() -> None:
    listing = _hostile()
    page = listing.html()
    elsewhere = r"""(src|href)\s*=|url\(|@import|https?://(?!www\.w3\.org/2000/svg")"""
    assert not re.search(elsewhere, page.partition("</title>")[2])
    assert "default-src &#x27;none&#x27;" in page
    assert EVIL not in page
    assert html.escape(EVIL) in page  # the title
    data = re.search(r'id="data">([^<]*)<', page)
    assert data is not None
    assert json.loads(zlib.decompress(base64.b64decode(data[1]))) == json.loads(listing.json())
    frame = listing._repr_html_()
    assert frame.startswith('<iframe sandbox="allow-scripts" ')
    inside = re.search(r'srcdoc="([^"]*)"', frame)
    assert inside is not None
    assert html.unescape(inside[1]) == page
