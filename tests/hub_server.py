"""A hub on the loopback interface: takes repositories and commits, and remembers what it was sent."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """`repositories` are the files of each by name, `private` those that were made so, `tokens` what it was shown."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.tokens: set[str] = set()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    timeout = 5  # seconds that a connection may say nothing

    def do_GET(self):
        self._note()
        if self.path.startswith("/api/whoami"):
            self._answer({"name": "somebody", "type": "user", "orgs": [], "auth": {}})
        else:
            self._answer({"error": "there is none"}, 404)

    def do_POST(self):
        self._note()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'somebody'}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            if asked.get("private") or asked.get("visibility") == "private":
                self.server.private.add(name)
            self._answer({"url": f"{self.server.url}/{name}", "name": name})
        elif "/preupload/" in self.path:
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for file in json.loads(body)["files"]]  # fmt: skip
            self._answer({"files": files})
        elif "/commit/" in self.path:
            name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in body.splitlines():
                value = json.loads(line)
                if value["key"] == "file":
                    file = value["value"]
                    self.server.repositories[name][file["path"]] = base64.b64decode(file["content"])
            url = f"{self.server.url}/{name}/commit/0123abc"
            self._answer({"commitUrl": url, "commitOid": "0123abc", "success": True})
        elif self.path.startswith("/api/validate-yaml"):
            self._answer({"errors": [], "warnings": []})
        else:
            self._answer({"error": "there is none"}, 404)

    def _note(self):
        self.server.tokens.add(str(self.headers.get("Authorization")))

    def _answer(self, value, code=200):
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words):
        pass
