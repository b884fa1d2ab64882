"""A server on this machine that speaks the chat protocol and can be told to fail."""

import json
import socket
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Chat:
    """What the server does. `reply` makes the model's text out of the messages; `faults` are used up one a request.

    A fault is a status, ("status", message), or one of cut (the connection ends without an answer), half (in its middle),
    garbage (no JSON), silent (nothing for a second), drip (a byte now and then), elsewhere (a redirect).
    """

    def __init__(self, reply):
        self.reply, self.faults = reply, []
        self.requests, self.headers = [], []
        self.usage = True
        self.url = ""
        self.lock = threading.Lock()


@contextmanager
def chat_server(reply=lambda messages: "fine"):
    chat = Chat(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with chat.lock:
                chat.requests.append(body)
                chat.headers.append(dict(self.headers))
                fault = chat.faults.pop(0) if chat.faults else None
            if fault is None:
                self.say(200, completion(chat, body))
            else:
                self.fail(fault, body)

        do_GET = do_POST

        def fail(self, fault, body):
            if fault == "cut":
                self.connection.shutdown(socket.SHUT_RDWR)
            elif fault == "half":
                self.say(200, completion(chat, body), cut=20)
            elif fault == "garbage":
                self.say(200, b"<html>busy</html>")
            elif fault == "silent":
                time.sleep(1)
            elif fault == "drip":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                for _ in range(10):
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.1)
            elif fault == "elsewhere":
                self.send_response(307)
                self.send_header("Location", chat.url + "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif isinstance(fault, dict):
                self.say(200, json.dumps(fault).encode())
            else:
                status, message = fault if isinstance(fault, tuple) else (fault, "it is so")
                self.say(status, json.dumps({"error": {"message": message}}).encode())

        def say(self, status, body, cut=None):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if status == 429:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(body[:cut])

        def handle(self):
            with suppress(OSError):  # of a client that has gone
                super().handle()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    chat.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(chat, body):
    said = chat.reply(body["messages"])
    message = said if isinstance(said, dict) else {"role": "assistant", "content": said}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    if chat.usage:
        answer["usage"] = {"prompt_tokens": 10, "completion_tokens": 5}
    return json.dumps(answer).encode()
