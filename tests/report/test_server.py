"""The server: a page and news, for this machine alone."""

import http.client
import json
import threading

import pytest

from sslax.errors import UserError
from sslax.report import server


@pytest.fixture
def ask():
    """`(path, host) -> (status, text)`, of a server whose page is an error from the second time."""
    pages = iter(["<p>one"])

    def render():
        for text in pages:
            return text
        raise UserError("a holds no run.")

    with server.make(render, lambda: {"status": "</script>"}) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def get(path, host="127.0.0.1:1"):
            connection = http.client.HTTPConnection("127.0.0.1", serving.server_port, timeout=20)
            connection.request("GET", path, headers={"Host": host})
            with connection.getresponse() as response:
                status, text = response.status, response.read().decode()
            connection.close()
            return status, text

        get.port = serving.server_port
        yield get
        serving.shutdown()
        thread.join()


def test_the_page_and_its_news(ask):
    assert ask("/") == (200, "<p>one")
    assert ask("/") == (500, "a holds no run.")
    status, text = ask("/news", host="localhost:8000")
    assert status == 200 and json.loads(text) == {"status": "</script>"} and "<" not in text


def test_nobody_else_is_answered(ask):
    assert ask("/", host="evil.example")[0] == 403
    assert ask("/", host="")[0] == 403
    assert ask("/../../etc/passwd")[0] == ask("/report.html")[0] == 404


def test_a_port_that_is_taken_is_named(ask):
    with pytest.raises(UserError, match=f"--port={ask.port} cannot be used: Address already in"):
        server.make(str, dict, port=ask.port)
