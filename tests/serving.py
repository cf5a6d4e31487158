"""A server on this machine that gives files as servers do: whole, in part, broken off, slowly, or not at all."""

import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Files by path; `asked` says what came in: (path, Range)."""

    def __init__(self):
        self.files, self.ways, self.asked = {}, {}, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def put(self, path, data, *ways):
        """Serve data at a path; the first request is answered the first way, and the last way goes on; its address."""
        self.files[path], self.ways[path] = data, [*ways]
        return f"http://127.0.0.1:{self.server.server_port}/{path}"

    def answer(self, request):
        path, part = request.path[1:], request.headers.get("Range")
        self.asked.append((path, part))
        ways, data = self.ways.get(path, []), self.files.get(path)
        way = (ways.pop(0) if len(ways) > 1 else ways[0]) if ways else "ranges"
        if data is None or isinstance(way, int):
            request.send_error(way if data is not None else 404)
            return
        if way.startswith("to:"):
            request.send_response(302)
            request.send_header("Location", way[3:])
            request.end_headers()
            return
        start = int(re.match(r"bytes=(\d+)-", part)[1]) if part and "no ranges" not in way else 0
        if start and start >= len(data):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start + (way == 'other part')}-{len(data) - 1}/{len(data)}")
        if "no length" not in way:
            request.send_header("Content-Length", str(len(data) - start))
        request.end_headers()
        data = data[start:]
        if way.startswith("cut"):
            data = data[: int(way[3:])]
        step = 1000 if way == "slow" else len(data) or 1
        for i in range(0, len(data), step):
            request.wfile.write(data[i : i + step])
            time.sleep(0.005 * (way == "slow"))
        if way.startswith("cut"):
            request.close_connection = True

    def close(self):
        self.server.shutdown()
        self.server.server_close()
