# SPDX-License-Identifier: Apache-2.0
"""Pages in a headless Chromium: screenshot, PDF, console, requests that leave the machine, and a probe of the page's
layout.

Only the command line of the browser is used, no driver. Tests call `needs_browser()` first, which skips with the
reason.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import socketserver
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_TIMEOUT_SECONDS = 120
_QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-extensions",
    "--metrics-recording-only",
    "--disable-features=OptimizationHints,Translate,MediaRouter",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--lang=en",
)
#: the browser's own traffic (updates, field trials); a page of ours naming one of these would still fail the static
#: checks
_OWN_HOSTS = re.compile(r"(^|\.)(google|googleapis|gvt1|gvt2|gstatic)\.com(:\d+)?$")


def find_browser() -> Optional[str]:
    """Path of a Chromium, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def needs_browser() -> str:
    """Path of a Chromium; skips the test, with the reason, where there is none."""
    path = find_browser()
    if path is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)} on PATH")
    return path


@dataclass(frozen=True)
class Visit:
    """What a headless run gave: its standard output and the console messages of the page."""

    output: str
    console: List[str]


def visit(page: Path, *flags: str) -> Visit:
    """Open a file with extra browser flags in a profile of its own, which is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="browser-") as profile:
        command = [needs_browser(), *_QUIET, f"--user-data-dir={profile}", *flags, Path(page).resolve().as_uri()]
        ran = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False)
    noise = ran.stderr.decode("utf-8", "replace")
    assert ran.returncode == 0, f"{command[0]} ended with {ran.returncode}: {noise[-2000:]}"
    return Visit(ran.stdout.decode("utf-8", "replace"), [line for line in noise.splitlines() if ":CONSOLE" in line])


def screenshot(page: Path, target: Path, width: int = 1280, height: int = 2000) -> Path:
    """A PNG of the page. The browser's own window is at least 500 wide, so narrower pages stand in a frame of that
    width.
    """
    if width >= 500:
        visit(page, f"--screenshot={target}", f"--window-size={width},{height}")
        return Path(target)
    with tempfile.TemporaryDirectory(prefix="frame-") as folder:
        holder = Path(folder) / "holder.html"
        source = html.escape(Path(page).read_text(encoding="utf-8"), quote=True)
        holder.write_text(
            f'<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">'
            f'<iframe width="{width}" height="{height}" style="border:0" srcdoc="{source}"></iframe>',
            encoding="utf-8",
        )
        visit(holder, f"--screenshot={target}", f"--window-size=500,{height}")
    return Path(target)


def print_pdf(page: Path, target: Path) -> Path:
    """The page as it prints."""
    visit(page, f"--print-to-pdf={target}", "--no-pdf-header-footer")
    return Path(target)


def console_messages(page: Path) -> List[str]:
    """Errors, warnings and refusals of the security policy that the page causes when it opens."""
    return visit(page, "--dump-dom").console


_OVERFLOW = """
var wide = Array.prototype.filter.call(d.querySelectorAll("body *"), function (e) {
  var box = e.getBoundingClientRect();
  return box.right > w.innerWidth + 1 && box.width > 0 && !e.closest(".scroll, .scroll *");
}).map(function (e) { return e.tagName + "." + e.getAttribute("class"); });
return {scroll: d.documentElement.scrollWidth, inner: w.innerWidth, wide: wide};
"""


def probe(
    page: Path,
    script: str,
    width: int = 1280,
    height: int = 1600,
    as_printed: bool = False,
    beside: bool = False,
    flags: Iterable[str] = (),
) -> Any:
    """Run `script` against the page in a frame of that width; returns what it returns.

    Parameters
    ----------
    script : str — body of a function of `d` (the document) and `w` (its window); its result must fit into JSON.
    as_printed : bool — the rules for print apply on screen. Style and script then differ from their hashes, so the
        policy is taken out.
    beside : bool — the frame's own file stands beside the page meanwhile, so that the page finds its pictures.
    flags : further flags of the browser.
    """
    text = Path(page).read_text(encoding="utf-8")
    if as_printed:
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace(
            "@media print", "@media all"
        )
    source = html.escape(text, quote=True)
    harness = f"""<!DOCTYPE html><meta charset="utf-8"><body>
<iframe id="f" width="{width}" height="{height}" style="border:0" srcdoc="{source}"></iframe><pre id="result"></pre><script>
window.onload = function () {{
  var frame = document.getElementById("f"), out;
  try {{
    out = {{value: (function (d, w) {{ {script} }})(frame.contentDocument, frame.contentWindow)}};
  }} catch (error) {{ out = {{error: String(error)}}; }}
  document.getElementById("result").textContent = JSON.stringify(out);
}};
</script>"""
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        holder = (Path(page).parent if beside else Path(folder)) / "probe.html"
        holder.write_text(harness, encoding="utf-8")
        try:
            dom = visit(holder, "--dump-dom", "--virtual-time-budget=4000", *flags).output
        finally:
            holder.unlink()
    found = re.search(r'<pre id="result">(.*?)</pre>', dom, re.S)
    assert found and found.group(1), f"the probe left no result: {dom[-500:]}"
    answer = json.loads(html.unescape(found.group(1)))
    assert "error" not in answer, answer["error"]
    return answer.get("value")


def overflow(page: Path, width: int, as_printed: bool = False) -> Dict[str, Any]:
    """`scroll` and `inner` width of the page at a width, and the elements (outside boxes that scroll) that stick
    out.
    """
    return probe(page, _OVERFLOW, width, as_printed=as_printed)


def assert_fits(page: Path, widths: Iterable[int] = (375, 768, 1280)) -> None:
    """Nothing sticks out of the page sideways at any of the widths."""
    for width in widths:
        found = overflow(page, width)
        assert found["inner"] == width, found
        assert found["scroll"] <= found["inner"] and not found["wide"], f"at {width} px: {found}"


class _Recorder(BaseHTTPRequestHandler):
    """A proxy that answers nothing and remembers what it was asked for."""

    seen: List[str] = []

    def _note(self) -> None:
        self.seen.append(self.path)
        self.send_error(404)

    do_GET = do_POST = do_HEAD = do_CONNECT = do_OPTIONS = _note  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""


class _Proxy(socketserver.ThreadingMixIn, HTTPServer):
    daemon_threads = True


def requests_of(page: Path) -> List[str]:
    """Addresses the page asks the network for: all traffic goes to a proxy here, which records and refuses it."""
    seen: List[str] = []
    with _Proxy(("127.0.0.1", 0), type("Recorder", (_Recorder,), {"seen": seen})) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            visit(
                page,
                "--dump-dom",
                f"--proxy-server=http://127.0.0.1:{server.server_port}",
                "--proxy-bypass-list=<-loopback>",
            )
        finally:
            server.shutdown()
            thread.join()
    return [address for address in seen if not _OWN_HOSTS.search(re.sub(r"^\w+://", "", address).split("/")[0])]


_EXTERNAL = re.compile(
    r"""(?:https?:|ftp:|wss?:)//|url\(|@import|(?:src|href|srcset|action|poster|background)\s*=\s*["']?(?!data:|\#|["'])""",
    re.I,
)


def external_references(text: str) -> List[str]:
    """Places in a page's markup and style (not in its visible text) that name something outside it."""
    markup = "".join(re.findall(r"<[^>]*>|(?<=<style>).*?(?=</style>)", text, re.S))
    return [markup[max(0, found.start() - 40) : found.end() + 60] for found in _EXTERNAL.finditer(markup)]
