"""A Chromium that is spoken to: pages run in real time, with workers, and answer questions (the DevTools protocol)."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe"
)


class Tab:
    """One page. `console` collects what it writes, exceptions included, and `requests` what it asks for."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = reading, writing
        self.rest, self.last = b"", 0
        self.console: list[str] = []
        self.requests: list[str] = []
        self.session: str | None = None

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command's result; events that arrive meanwhile are kept."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            answer = self.receive(deadline - time.monotonic())
            if answer is not None and answer.get("id") == self.last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])
        raise TimeoutError(f"Chromium did not answer {method} within a minute")

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next message, or None if none comes in time."""
        while b"\0" not in self.rest:
            if not select.select([self.reading], [], [], max(0.0, seconds))[0]:
                return None
            part = os.read(self.reading, 1 << 20)
            if not part:
                raise RuntimeError("Chromium has gone")
            self.rest += part
        line, _, self.rest = self.rest.partition(b"\0")
        message = dict(json.loads(line))
        event, about = message.get("method"), message.get("params", {})
        if event == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(a.get("value", a.get("description"))) for a in about["args"]))
        elif event == "Runtime.exceptionThrown":
            self.console.append(
                about["exceptionDetails"].get("exception", {}).get("description", "exception")
            )
        elif event == "Log.entryAdded":
            self.console.append(about["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        return message

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", {}).get("description", expression))
        return found["result"].get("value")

    def wait(self, expression: str, seconds: float = 30.0) -> None:
        """Until the expression is true.

        Raises:
            TimeoutError: it stayed false.
        """
        deadline = time.monotonic() + seconds
        while not self.ask(f"Boolean({expression})"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds:g} s: {expression}; console: {self.console}")
            self.receive(0.05)

    def pause(self, seconds: float) -> None:
        """Lets the page run."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.receive(left)

    def key(self, key: str, text: str = "") -> None:
        """Presses a key on whatever has the focus."""
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def size(self, width: int, height: int, *, dark: bool = False, scale: float = 1) -> None:
        """Size of the window in CSS pixels, and which colours its user prefers."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=width < 500,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """A PNG of the whole page."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def open_page(url: str) -> Iterator[Tab]:
    """A tab that shows `url`, in a browser without a history that ends with it."""
    from_page, to_us = os.pipe()
    from_us, to_page = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        line = f'exec "{CHROMIUM}" {FLAGS} --user-data-dir={profile} about:blank 3<&{from_us} 4>&{to_us}'
        browser = subprocess.Popen(
            ["bash", "-c", line],
            pass_fds=(from_us, to_us),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(from_us), os.close(to_us)
        tab = Tab(from_page, to_page)
        try:
            targets = tab.send("Target.getTargets")["targetInfos"]
            page = next(target["targetId"] for target in targets if target["type"] == "page")
            tab.session = tab.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
            for domain in ("Runtime", "Log", "Network", "Page"):
                tab.send(f"{domain}.enable")
            tab.send("Page.navigate", url=url)
            tab.wait("document.readyState === 'complete' && location.href !== 'about:blank'")
            yield tab
        finally:
            browser.terminate()
            browser.wait(20)
            os.close(from_page), os.close(to_page)
