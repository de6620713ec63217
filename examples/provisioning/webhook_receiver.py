#!/usr/bin/env python3
"""A server that Tenure asks over HTTP: it lets a program make the environments, at once or later with a callback.

    WEBHOOK_SECRET=whsec_... webhook_receiver.py --port 9000 --program terraform_style.py [--later]

It needs nothing but Python. What is asked is signed (Standard Webhooks), and so is what it calls back. One question may
come more than once, with the same `webhook-id`: the program may be run again, or you remember what you answered. What
is asked of one environment is done in the order in which it came: a removal may be asked for amid the making.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Document = dict[str, Any]

TOLERANCE_SECONDS = 300
TRY_AGAIN, REFUSALS = 75, (64, 65)
CALLBACK_SECONDS = (0, 1, 5, 30)
SERVERS_FAULT = 500


class Server(ThreadingHTTPServer):
    """Knows who may ask, and lets what is asked of one environment be done one after the other."""

    def __init__(self, *, port: int, secret: str, program: list[str], is_later: bool) -> None:
        super().__init__(("127.0.0.1", port), Receiver)
        self.key = base64.b64decode(secret.removeprefix("whsec_"))
        self.program = program
        self.is_later = is_later
        self.closing = threading.Event()
        self._lines: dict[str, ThreadPoolExecutor] = {}

    def line(self, asked: Document) -> ThreadPoolExecutor:
        """Return where questions about an environment wait for each other."""
        return self._lines.setdefault(asked["environment"]["environmentId"], ThreadPoolExecutor(max_workers=1))

    def server_close(self) -> None:
        """End, and call nobody back any more."""
        self.closing.set()
        for line in self._lines.values():
            line.shutdown(cancel_futures=True)
        super().server_close()


class Receiver(BaseHTTPRequestHandler):
    """Answers one question."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Check who asks, then answer, or promise to."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.is_signed(body):
            self.answer(401)
            return
        asked = json.loads(body)
        if self.server.is_later and "callbackUrl" in asked:
            self.server.line(asked).submit(self.call_back, self.headers["webhook-id"], asked)
            self.answer(202)
            return
        document = self.server.line(asked).submit(self.work, asked).result()
        if "retry" in document:
            self.answer(503)
        else:
            self.answer(200, json.dumps(document).encode())

    def is_signed(self, body: bytes) -> bool:
        """Tell whether whoever asks has the secret, and has asked just now."""
        identity, seconds = self.headers["webhook-id"] or "", self.headers["webhook-timestamp"] or ""
        right = signature(self.server.key, identity, seconds, body)
        given = (self.headers["webhook-signature"] or "").split()
        is_right = any(hmac.compare_digest(each, right) for each in given)
        return is_right and abs(time.time() - int(seconds)) <= TOLERANCE_SECONDS

    def work(self, asked: Document) -> Document:
        """Run the program and return what it has answered."""
        ran = subprocess.run(self.server.program, input=json.dumps(asked), capture_output=True, text=True, check=False)
        if ran.returncode == 0:
            document: Document = json.loads(ran.stdout)
            return document
        if ran.returncode in REFUSALS:
            return {"refused": json.loads(ran.stdout)}
        said = ran.stderr.strip().rpartition("\n")[2] or f"exit code {ran.returncode}"
        return {"retry": {"detail": said[:500]}}

    def call_back(self, identity: str, asked: Document) -> None:
        """Do the work, then send what has come of it; where that does not arrive it is asked for again."""
        body = json.dumps(self.work(asked)).encode()
        for pause in CALLBACK_SECONDS:
            if self.server.closing.wait(pause):
                return
            seconds = str(int(time.time()))
            headers = {
                "Content-Type": "application/json",
                "webhook-id": identity,
                "webhook-timestamp": seconds,
                "webhook-signature": signature(self.server.key, identity, seconds, body),
            }
            if is_taken(urllib.request.Request(asked["callbackUrl"], body, headers)):
                return

    def answer(self, status: int, body: bytes = b"") -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def is_taken(request: urllib.request.Request) -> bool:
    """Send a callback, and tell whether that was the end of it."""
    try:
        with urllib.request.urlopen(request, timeout=30):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < SERVERS_FAULT  # otherwise nobody waits for it any more
    except OSError:
        return False


def signature(key: bytes, identity: str, seconds: str, body: bytes) -> str:
    """Sign a message as Standard Webhooks has it."""
    digest = hmac.new(key, f"{identity}.{seconds}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--program", nargs="+", required=True)
    parser.add_argument("--later", action="store_true")
    told = parser.parse_args()
    listening = Server(port=told.port, secret=os.environ["WEBHOOK_SECRET"], program=told.program, is_later=told.later)
    print(f"listening on {listening.server_address[1]}", file=sys.stderr)
    listening.serve_forever()
