# SPDX-License-Identifier: Apache-2.0
"""One headless Chromium for all tests of a process, driven over a pair of pipes; every page opens in a profile of its
own.

It speaks Chromium's DevTools protocol: JSON messages, each ended by a NUL byte, on file descriptors 3 and 4 of the
browser.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Any, Callable, Dict, List, Optional, Type

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_TIMEOUT_SECONDS = 120
_FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
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
    "--lang=en",
)


def find_browser() -> Optional[str]:
    """Path of a Chromium, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """A running Chromium; `close` ends it."""

    def __init__(self, path: str) -> None:
        self._profile = tempfile.mkdtemp(prefix="browser-")
        self.log_path = os.path.join(self._profile, "stderr.txt")
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()

        def connect() -> None:
            # Moved out of the way first: one of them may be 3 or 4 itself.
            reads, writes = os.dup(to_browser), os.dup(from_browser)
            spare = [os.dup(reads) for _ in range(3)]
            os.dup2(spare[-1], 3)
            os.dup2(writes, 4)

        with open(self.log_path, "wb") as log:
            self._process = subprocess.Popen(
                [path, *_FLAGS, f"--user-data-dir={self._profile}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                preexec_fn=connect,
                pass_fds=(3, 4),
            )
        os.close(to_browser)
        os.close(from_browser)
        self._number, self._rest = 0, b""
        self._events: List[Dict[str, Any]] = []

    def call(self, method: str, session: Optional[str] = None, **parameters: Any) -> Dict[str, Any]:
        """Send a command and wait for its result; what the browser reports meanwhile is kept for `take_event`."""
        self._number += 1
        message: Dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        number, deadline = self._number, time.monotonic() + _TIMEOUT_SECONDS
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._events.append(answer)

    def take_event(self, wanted: Callable[[Dict[str, Any]], bool], what: str) -> Dict[str, Any]:
        """The first event that is wanted, now or later; the others stay."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while True:
            for event in self._events:
                if wanted(event):
                    self._events.remove(event)
                    return event
            self._events.append(self._receive(deadline, what))

    def events_of(self, session: str) -> List[Dict[str, Any]]:
        """Take everything that was reported of one page."""
        found = [event for event in self._events if event.get("sessionId") == session]
        self._events = [event for event in self._events if event.get("sessionId") != session]
        return found

    def _receive(self, deadline: float, what: str) -> Dict[str, Any]:
        while b"\0" not in self._rest:
            ready = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))[0]
            read = os.read(self._in, 1 << 20) if ready else b""
            assert read, f"the browser {'ended' if ready else 'does not answer'} ({what}): {self._log()[-2000:]}"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message.decode("utf-8"))

    def _log(self) -> str:
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the browser and remove its profile."""
        os.close(self._out)
        os.close(self._in)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)


class Page:
    """A page in a profile of its own; a context manager, which forgets the profile at its end.

    Parameters
    ----------
    proxy : str or None — all traffic goes to this address, that to this machine included.
    width, height : int — pixels of the window.
    reduced_motion, dark : bool — the page is told that its user wants less motion, or a dark page.
    """

    def __init__(
        self,
        browser: Browser,
        proxy: Optional[str] = None,
        width: int = 1280,
        height: int = 2000,
        reduced_motion: bool = False,
        dark: bool = False,
    ) -> None:
        self._browser = browser
        ways = {"proxyServer": proxy, "proxyBypassList": "<-loopback>"} if proxy else {}
        self._context = browser.call("Target.createBrowserContext", **ways)["browserContextId"]
        target = browser.call("Target.createTarget", url="about:blank", browserContextId=self._context)["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        wishes = [
            {"name": "prefers-reduced-motion", "value": "reduce" if reduced_motion else ""},
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
        ]
        self.call("Emulation.setEmulatedMedia", features=wishes)

    def __enter__(self) -> Page:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], where: Optional[TracebackType]
    ) -> None:
        if self._browser.alive:
            self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)
            self._browser.events_of(self._session)

    def call(self, method: str, **parameters: Any) -> Dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def open(self, address: str) -> None:
        """Go to an address and wait until it is loaded, with its pictures and frames, and has drawn itself."""
        failed = self.call("Page.navigate", url=address).get("errorText")
        assert not failed, f"{address}: {failed}"
        self._browser.take_event(self._is_loaded, f"loading {address}")
        drawn = "new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))"
        self.evaluate(drawn, awaitPromise=True)

    def _is_loaded(self, event: Dict[str, Any]) -> bool:
        return event.get("sessionId") == self._session and event["method"] == "Page.loadEventFired"

    def evaluate(self, expression: str, **ways: Any) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, **ways)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def console(self) -> List[str]:
        """What the page has written to the console since it was opened: its own words, errors that nothing caught, and
        what the browser says of it, such as refusals of its policy.
        """
        said = []
        for event in self._browser.events_of(self._session):
            about = event.get("params", {})
            if event["method"] == "Runtime.consoleAPICalled":
                said.append(" ".join(str(one.get("value", one.get("description"))) for one in about["args"]))
            elif event["method"] == "Runtime.exceptionThrown":
                details = about["exceptionDetails"]
                said.append(details.get("exception", {}).get("description", details["text"]))
            elif event["method"] == "Log.entryAdded":
                said.append(about["entry"]["text"])
        return said
