"""A page on this machine's own address, and news for it."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from sslax.errors import UserError, check_system
from sslax.report import page

ADDRESS = "127.0.0.1"
_HOSTS = {ADDRESS, "localhost"}


def make(
    render: Callable[[], str], news: Callable[[], dict[str, Any]], *, port: int = 0
) -> ThreadingHTTPServer:
    """A server of `/`, the page, and `/news`, JSON; nothing else of this machine can be read.

    Args:
        render: returns the page.
        news: returns what a live page asks for.
        port: of 127.0.0.1; 0 for one that is free.

    Returns:
        The server; `serve_forever` starts it, `server_port` is its port.

    Raises:
        UserError: the port is taken, or not allowed.
    """
    answers = {
        "/": ("text/html; charset=utf-8", render),
        "/news": ("application/json", lambda: page.as_json(news())),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # A page of the internet whose name leads here is not to read this one.
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
            if host not in _HOSTS:
                self.send_error(403, "Only this machine may ask")
            elif self.path not in answers:
                self.send_error(404)
            else:
                kind, answer = answers[self.path]
                try:
                    self._send(200, kind, answer())
                except UserError as error:
                    self._send(500, "text/plain; charset=utf-8", str(error))

        def _send(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing: the terminal keeps the address."""

    try:
        return ThreadingHTTPServer((ADDRESS, port), Handler)
    except OSError as error:
        check_system(error, f"--port={port} cannot be used")
        raise
