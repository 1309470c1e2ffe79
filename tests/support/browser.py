# SPDX-License-Identifier: Apache-2.0
"""Pages in a headless Chromium: screenshot, PDF, console, requests that leave the machine, and a probe of the page's
layout.

One browser serves all tests of a process. Tests call `needs_browser()` first, which skips with the reason.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import socketserver
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple

import pytest

from tests.support import devtools

#: the browser's own traffic (updates, field trials); a page of ours naming one of these would still fail the static
#: checks
_OWN_HOSTS = re.compile(r"(^|\.)(google|googleapis|gvt1|gvt2|gstatic)\.com(:\d+)?$")
#: environment variable with the path of axe-core
AXE_VARIABLE = "VXM_AXE"
_browser: Optional[devtools.Browser] = None


def needs_browser() -> str:
    """Path of a Chromium; skips the test, with the reason, where there is none."""
    path = devtools.find_browser()
    if path is None:
        pytest.skip(f"no browser here: none of {', '.join(devtools.NAMES)} on PATH")
    return path


def _page(**ways: Any) -> devtools.Page:
    """A new page in the browser of this process, which is started when it is needed first."""
    global _browser
    if _browser is None or not _browser.alive:
        close()
        _browser = devtools.Browser(needs_browser())
    return devtools.Page(_browser, **ways)


def close() -> None:
    """End the browser of this process, if there is one."""
    global _browser
    if _browser is not None:
        _browser.close()
        _browser = None


def _address(page: Path) -> str:
    return Path(page).resolve().as_uri()


def screenshot(page: Path, target: Path, width: int = 1280, height: int = 2000, script: str = "0") -> Path:
    """A PNG of the top of the page, after a script has run in it."""
    with _page(width=width, height=height) as shown:
        shown.open(_address(page))
        shown.evaluate(script)
        Path(target).write_bytes(base64.b64decode(shown.call("Page.captureScreenshot", format="png")["data"]))
    return Path(target)


def print_pdf(page: Path, target: Path) -> Path:
    """The page as it prints."""
    with _page() as shown:
        shown.open(_address(page))
        made = shown.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        Path(target).write_bytes(base64.b64decode(made["data"]))
    return Path(target)


def console_messages(page: Path) -> List[str]:
    """Errors, warnings and refusals of the security policy that the page causes when it opens."""
    with _page() as shown:
        shown.open(_address(page))
        return shown.console()


def visit(pages: Iterable[Tuple[Path, str]], **ways: Any) -> List[Any]:
    """Open pages one after the other in one profile and evaluate an expression in each, which may be a promise.

    Parameters
    ----------
    pages : iterable of (Path, str) — a page and its expression; its value must fit into JSON.
    ways : see `tests.support.devtools.Page`.
    """
    found = []
    with _page(**ways) as shown:
        for page, expression in pages:
            shown.open(_address(page))
            found.append(shown.evaluate(expression, awaitPromise=True))
            assert shown.console() == []
    return found


def axe_script() -> str:
    """The checker axe-core, from the file that VXM_AXE names; skips the test, with the reason, where there is none."""
    needs_browser()
    path = os.environ.get(AXE_VARIABLE, "")
    if not path:
        pytest.skip(f"{AXE_VARIABLE} is not set: it names axe.min.js of the npm package axe-core")
    return Path(path).read_text(encoding="utf-8")


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
    reduced_motion: bool = False,
) -> Any:
    """Run `script` against the page in a frame of that width; returns what it returns.

    Parameters
    ----------
    script : str — body of a function of `d` (the document) and `w` (its window); its result must fit into JSON.
    as_printed : bool — the rules for print apply on screen. Style and script then differ from their hashes, so the
        policy is taken out.
    beside : bool — the frame's own file stands beside the page meanwhile, so that the page finds its pictures.
    reduced_motion : bool — the user of the browser wants less motion.
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
            with _page(reduced_motion=reduced_motion) as shown:
                shown.open(_address(holder))
                result = shown.evaluate('document.getElementById("result").textContent')
        finally:
            holder.unlink()
    assert result, "the probe left no result"
    answer = json.loads(result)
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
            with _page(proxy=f"http://127.0.0.1:{server.server_port}") as shown:
                shown.open(_address(page))
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
