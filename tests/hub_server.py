"""A Hugging Face Hub on this machine: what downloads ask of it, and no more."""

import hashlib
import http.server
import json
import time


def sha(text):
    return hashlib.sha1(text.encode()).hexdigest()


class Hub(http.server.ThreadingHTTPServer):
    """The part of the Hub's interface that downloads use, on this machine."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = {}  # (id, revision): {path: bytes}
        self.fetched = []  # paths downloaded
        self.requests = 0
        self.slow = None  # what the path starts with whose answer drips
        self.refusal = None  # (status, error code, what the path starts with)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, hub_id, files, revision="main"):
        self.repositories[hub_id, revision] = files
        self.repositories[hub_id, sha(hub_id + revision)] = files


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET" and self._drips():
            for byte in body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.1)
                if not self._drips():
                    break
        elif self.command == "GET":
            self.wfile.write(body)

    def _drips(self):
        return self.server.slow and self.path.startswith(self.server.slow)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub = self.server
        hub.requests += 1
        path = self.path.partition("?")[0]
        if hub.refusal and path.startswith(hub.refusal[2]):
            status, code, _ = hub.refusal
            return self.reply(status, X_Error_Code=code, X_Error_Message="refused")
        match path.strip("/").split("/"):
            case ["api", "models", owner, name]:
                what, revision, rest = "info", "main", []
            case ["api", "models", owner, name, "revision", revision]:
                what, rest = "info", []
            case ["api", "models", owner, name, "tree", revision, *rest]:
                what = "tree"
            case [owner, name, "resolve", revision, *rest]:
                what = "file"
            case _:
                return self.reply(404)
        hub_id = f"{owner}/{name}"
        if (hub_id, revision) not in hub.repositories:
            known = any(hub_id == other for other, _ in hub.repositories)
            code = "RevisionNotFound" if known else "RepoNotFound"
            return self.reply(404, X_Error_Code=code)
        files = hub.repositories[hub_id, revision]
        commit = revision if len(revision) == 40 else sha(hub_id + revision)
        if what == "info":
            siblings = [{"rfilename": path} for path in files]
            data = {"id": hub_id, "sha": commit, "siblings": siblings}
            return self.reply(200, json.dumps(data).encode())
        if what == "tree":
            data = [
                {"type": "file", "path": p, "size": len(b), "oid": sha(p + str(b))}
                for p, b in files.items()
            ]
            return self.reply(200, json.dumps(data).encode())
        path = "/".join(rest)
        if path not in files:
            return self.reply(404, X_Error_Code="EntryNotFound")
        if self.command == "GET":
            hub.fetched.append(path)
        tag = f'"{sha(path + str(files[path]))}"'
        return self.reply(200, files[path], ETag=tag, X_Repo_Commit=commit)
