"""Headless Chromium over the DevTools protocol, by pipe and with the standard library only."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One page of a browser without network; a context manager.

    `messages` holds what the page wrote to the console, what it threw and what its policy blocked;
    `requests` the addresses it asked for.
    """

    def __init__(self, *flags, width=1200, height=900):
        self._flags = flags
        self.messages, self.requests, self._answers, self._next = [], [], {}, 0
        self._rest = b""
        self._profile = tempfile.mkdtemp(prefix="chromium")
        self._size = f"--window-size={width},{height}"

    def __enter__(self):
        read_command, self._to = os.pipe()
        self._from, write_answer = os.pipe()
        # The browser reads commands from descriptor 3 and writes answers to descriptor 4.
        shell = f'exec 3<&{read_command} 4>&{write_answer}; exec "$@"'
        command = [
            CHROMIUM,
            *FLAGS,
            *self._flags,
            self._size,
            f"--user-data-dir={self._profile}",
            "about:blank",
        ]
        self._process = subprocess.Popen(["bash", "-c", shell, "bash", *command], pass_fds=(read_command, write_answer),
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        os.close(read_command)
        os.close(write_answer)
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self._profile, ignore_errors=True)

    _session = None

    def call(self, method, **params):
        """Send a command and return its result."""
        self._next += 1
        message = {"id": self._next, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while self._next not in self._answers:
            self._read()
        answer = self._answers.pop(self._next)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, path):
        """Open a file and return the seconds until its load event."""
        start = time.monotonic()
        self.call("Page.navigate", url=Path(path).as_uri())
        while self.run("document.readyState + location.protocol") != "completefile:":
            time.sleep(0.02)
        return time.monotonic() - start

    def run(self, script):
        """Return what an expression gives; a promise is awaited."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"])
        return done["result"].get("value")

    def wait(self, script, seconds=60):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            if time.monotonic() > end:
                raise TimeoutError(script)
            time.sleep(0.1)

    def screenshot(self, path=None):
        """Return a PNG of what is seen; write it to `path` too."""
        png = base64.b64decode(self.call("Page.captureScreenshot")["data"])
        if path:
            Path(path).write_bytes(png)
        return png

    def mouse(self, kind, x, y, **more):
        """Send a mouse event: mousePressed, mouseReleased, mouseMoved, mouseWheel."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def _read(self):
        while b"\0" not in self._rest:
            chunk = os.read(self._from, 1 << 20)
            if not chunk:
                raise RuntimeError("the browser has gone")
            self._rest += chunk
        line, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(line)
        if "id" in message:
            self._answers[message["id"]] = message
        elif message["method"] == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        elif message["method"] in (
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
        ):
            self.messages.append(message["params"])
