"""A headless Chromium, spoken to in its DevTools protocol over two pipes: no package needed."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",  # in a container there is no user to become
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",  # nothing but the site
    "--remote-debugging-pipe",
]


def find() -> str | None:
    """Find a Chromium, or None; the variable CHROMIUM names one that lies elsewhere."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, PROGRAMS)), None)


class Chromium:
    """A running browser; `with Chromium(program) as browser` ends it.

    It reads our messages from its descriptor 3 and writes its own to 4, each ended by a zero.
    """

    def __init__(self, program: str) -> None:
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self.out = os.pipe()
        self.inp, theirs_out = os.pipe()
        # Moved out of the way of 3 and 4, which the child then fills.
        spare = [fcntl.fcntl(f, fcntl.F_DUPFD_CLOEXEC, 10) for f in (theirs_in, theirs_out)]
        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self.profile.name}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=lambda: (os.dup2(spare[0], 3), os.dup2(spare[1], 4)),
        )
        for f in (theirs_in, theirs_out, *spare):
            os.close(f)
        self.sent, self.rest, self.events = 0, b"", []

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.inp)
        os.close(self.out)
        self.profile.cleanup()

    def read(self, until: float) -> dict[str, Any]:
        """Wait for one message of the browser."""
        while b"\0" not in self.rest:
            if not select.select([self.inp], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            if not (data := os.read(self.inp, 1 << 20)):
                raise EOFError(f"the browser has ended, with status {self.process.wait()}")
            self.rest += data
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def call(self, method: str, session: str = "", wait: float = 60.0, **params: Any) -> Any:
        """Call a method, keep the events that come before its answer, return the answer."""
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": params}
        data = json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0"
        while data:
            data = data[os.write(self.out, data) :]
        until = time.monotonic() + wait
        while (answer := self.read(until)).get("id") != self.sent:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]


class Page:
    """One tab: goes to an address, runs scripts, remembers what went over the wire."""

    def __init__(self, browser: Chromium) -> None:
        self.browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of this tab."""
        return self.browser.call(method, self.session, **params)

    def look(self, width: int, theme: str, height: int = 900) -> None:
        """Set the size of the window, and prefer "light" or "dark"."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = [{"name": "prefers-color-scheme", "value": theme}]
        self.call("Emulation.setEmulatedMedia", features=scheme)

    def open(self, address: str, wait: float = 60.0) -> None:
        """Go to an address and wait until all it needs is loaded."""
        self.browser.events.clear()
        self.call("Page.navigate", url=address)
        self.until(lambda: self.heard("Page.loadEventFired"), wait)

    def until(self, condition: Callable[[], Any], wait: float = 60.0) -> None:
        """Listen until a condition holds."""
        end = time.monotonic() + wait
        while not condition():
            self.browser.events.append(self.browser.read(end))

    def heard(self, method: str) -> list[dict[str, Any]]:
        """List the events of a kind since the page was opened."""
        ours = (e for e in self.browser.events if e.get("sessionId") == self.session)
        return [e["params"] for e in ours if e.get("method") == method]

    def run(self, script: str) -> Any:
        """Evaluate an expression, wait for it where it is a promise, return its value."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            thrown = details.get("exception", {}).get("description", details["text"])
            raise RuntimeError(f"a script failed: {thrown}")
        return answer["result"].get("value")

    def complaints(self, origin: str) -> list[str]:
        """List errors on the console, failed requests, and requests to elsewhere."""
        asked = [e["request"]["url"] for e in self.heard("Network.requestWillBeSent")]
        found = [f"asks {u}" for u in asked if not u.startswith((origin, "data:", "blob:"))]
        answers = [e["response"] for e in self.heard("Network.responseReceived")]
        found += [f"{a['url']} answers {a['status']}" for a in answers if a["status"] >= 400]
        for e in self.heard("Runtime.exceptionThrown"):
            thrown = e["exceptionDetails"].get("exception", {}).get("description", "")
            found.append(f"throws {thrown or e['exceptionDetails']['text']}")
        entries = [e["entry"] for e in self.heard("Log.entryAdded")]
        found += [f"logs {e['text']}" for e in entries if e["level"] == "error"]
        calls = [e for e in self.heard("Runtime.consoleAPICalled") if e["type"] == "error"]
        return found + [f"prints {c['args'][0].get('value', '?')}" for c in calls if c["args"]]
