"""An endpoint for webhooks, on a free port of loopback."""

import http.server
import json
import queue
import threading

arrived = queue.Queue()  # bodies and signatures, as they came
answers = queue.Queue()  # statuses to answer with; 200 when there is none


class Endpoint(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        arrived.put((body, self.headers["Stripe-Signature"]))
        self.send_response(answers.get() if not answers.empty() else 200)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
threading.Thread(target=server.serve_forever, daemon=True).start()
URL = f"http://127.0.0.1:{server.server_port}/webhooks"


def delivered(kind, about):
    """The first delivery of a kind that is about an object: its body and its signature."""
    while True:
        body, signature = arrived.get(timeout=10)
        told = json.loads(body)
        if told["type"] == kind and told["data"]["object"]["id"] == about:
            return body, signature
