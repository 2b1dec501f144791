"""A hub on this machine, for tests: `python hub.py ROOT [--port N] [--page N]` prints its address and serves until it is killed.

ROOT holds repositories as directories, one for each branch:

    ROOT/models/ORG/NAME/BRANCH/...       ROOT/datasets/ORG/NAME/BRANCH/...

The commit of a branch is a digest of its files, so that a test moves a branch by changing a file. Every commit that was
seen stays in ROOT/history, and is served from there. Large files (by their ending, see `LARGE`) are known by SHA-256 and
come from a second server, which stands for the hub's storage and must never see a token; others come from the hub itself.

ROOT/faults.json, read again whenever it changed: a list of what is to go wrong.

    {"at": "resolve/acme/tiny/*.safetensors", "fault": "cut", "after": 1000, "times": 1}

`at` is a pattern on `api/KIND/ORG/NAME`, `resolve/ORG/NAME/PATH` or `storage/ORG/NAME/PATH`: a large file's transfer is
`storage/...`, a small one's `resolve/...`. `times` is how often (always, where it is left out). Faults:

    cut      ends the transfer after `after` bytes         flip    changes one bit of byte `byte` of the file
    hold     sends `after` bytes, then nothing until ROOT/release is there
    slow     waits `seconds` after every `chunk` bytes     status  answers `status`, with `message`
    gated    refuses all but those with `token`            token   answers 401 to all but those with `token`
    limit    answers 429 with Retry-After: `seconds`       missing answers 404 with `code` (RepoNotFound, EntryNotFound, ...)

ROOT/moved.json, {"old/name": "new/name"}, are repositories that were renamed. ROOT/requests.jsonl gets a line for every
request: server, method, path, token, range, status, and the bytes of the body that were sent. It is written before the end
of the answer is, so that whoever has an answer finds its request there.

`hub_upload.py` beside this file, if it is there, answers what writes: its `Uploads(hub)` is asked with
`answer(handler, method, path, query)` for every POST, PUT and DELETE, and for each GET that is unknown here, and says
whether it did.
"""

import argparse
import fnmatch
import hashlib
import json
import shutil
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LARGE = (".safetensors", ".bin", ".parquet", ".pkl", ".pt", ".gz", ".zst", ".model", ".zip")
KINDS = ("models", "datasets")


def is_large(path):
    return path.endswith(LARGE)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def blob_id(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def pointer(data):
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(data)}\nsize {len(data)}\n".encode()


class Hub:
    """Repositories, faults and the log."""

    def __init__(self, root, page=1000):
        self.root, self.page = Path(root), page
        self.lock = threading.RLock()
        self.faults, self.faults_text = [], None
        self.address = self.storage = None

    def repo(self, kind, name):
        """The directory of a repository, None where there is none."""
        found = self.root / kind / name
        return found if found.is_dir() and not name.startswith(".") and ".." not in name.split("/") else None

    def branches(self, kind, name):
        return sorted(entry.name for entry in self.repo(kind, name).iterdir() if entry.is_dir())

    def head(self, kind, name, branch):
        """The commit of a branch; its files are kept under it."""
        with self.lock:
            here = self.repo(kind, name) / branch
            files = files_of(here)
            listing = "".join(f"{path}\0{sha256((here / path).read_bytes())}\n" for path in files)
            commit = hashlib.sha1(f"{kind}/{name}\n{listing}".encode()).hexdigest()
            kept = self.root / "history" / kind / name / commit
            if not kept.exists():
                shutil.copytree(here, kept)
            return commit

    def commit(self, kind, name, revision):
        """The commit that a revision names, None where it names none."""
        if (self.root / "history" / kind / name / revision).is_dir():
            return revision
        branches = {branch.replace("%2F", "/"): branch for branch in self.branches(kind, name)}
        if revision in branches:
            return self.head(kind, name, branches[revision])
        heads = {self.head(kind, name, branch) for branch in self.branches(kind, name)}
        matches = [commit for commit in heads if len(revision) >= 7 and commit.startswith(revision)]
        return matches[0] if len(matches) == 1 else None

    def tree(self, kind, name, commit):
        """The directory that holds the files of a commit."""
        return self.root / "history" / kind / name / commit

    def fault(self, place, *kinds):
        """The first fault of these kinds that is due at a place, counted as used."""
        with self.lock:
            file = self.root / "faults.json"
            text = file.read_text() if file.exists() else "[]"
            if text != self.faults_text:
                self.faults, self.faults_text = json.loads(text), text
            for fault in self.faults:
                if fault["fault"] in kinds and fault.get("times", 1) > 0 and fnmatch.fnmatch(place, fault["at"]):
                    if "times" in fault:
                        fault["times"] -= 1
                    return fault
        return None

    def is_private(self, name):
        file = self.root / "private.json"
        return file.exists() and name in json.loads(file.read_text())

    def moved(self, name):
        file = self.root / "moved.json"
        return json.loads(file.read_text()).get(name) if file.exists() else None

    def log(self, **entry):
        with self.lock, (self.root / "requests.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")


def files_of(directory):
    """Paths of all files below a directory, sorted."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def entry(path, data):
    """What the hub's listing of a tree says of a file."""
    said = {"type": "file", "oid": blob_id(data), "size": len(data), "path": path}
    if is_large(path):
        said["oid"] = blob_id(pointer(data))
        said["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": len(pointer(data))}
    return said


class Handler(BaseHTTPRequestHandler):
    """What both servers do alike."""

    protocol_version = "HTTP/1.1"
    server_name = "hub"

    def log_message(self, *_):
        pass

    @property
    def hub(self):
        return self.server.hub

    @property
    def token(self):
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def begin(self):
        self.sent, self.answered, self.is_logged = 0, None, False
        parts = urllib.parse.urlsplit(self.path)
        return parts.path, dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))

    def do_GET(self):
        path, query = self.begin()
        try:
            self.answer(path, query)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.log_once(self.sent)

    do_HEAD = do_GET

    def log_once(self, sent):
        if not self.is_logged:
            self.is_logged = True
            self.hub.log(server=self.server_name, method=self.command, path=self.path, token=self.token,
                         range=self.headers.get("Range"), status=self.answered, sent=sent)

    def head(self, status, headers, sent=None):
        """The head of an answer; `sent` is how long its body will be, where nothing can come between."""
        self.answered = status
        if sent is not None or headers.get("Content-Length") == 0:
            self.log_once(sent or 0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def reply(self, status, body, headers=None):
        """A small answer: JSON, or bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        sent = 0 if self.command == "HEAD" else len(data)
        self.head(status, {"Content-Type": kind, "Content-Length": len(data), **(headers or {})}, sent)
        if self.command != "HEAD":
            self.wfile.write(data)
            self.sent += len(data)

    def refuse(self, status, message, code=None, headers=None):
        coded = {"X-Error-Code": code} if code else {}
        self.reply(status, {"error": message}, {"X-Error-Message": message, **coded, **(headers or {})})

    def is_refused(self, place):
        """Answers with the fault that is due, if there is one."""
        for kind in ("status", "limit", "missing"):
            fault = self.hub.fault(place, kind)
            if fault is None:
                continue
            if kind == "status":
                self.refuse(fault["status"], fault.get("message", "out of order"))
            elif kind == "limit":
                self.refuse(429, "Too many requests", headers={"Retry-After": fault["seconds"]})
            else:
                self.refuse(404, "not found", fault["code"])
            return True
        for kind in ("gated", "token"):
            with_token = self.hub.fault(place, kind)
            if with_token is None or (self.token and self.token == with_token.get("token")):
                continue
            if kind == "gated":
                self.refuse(403 if self.token else 401, "Access to this repository is restricted.", "GatedRepo")
            else:
                self.refuse(401, "Invalid credentials in Authorization header")
            return True
        return False

    def send_file(self, place, data, headers):
        """A file or a range of it, with the fault that is due."""
        start, end = 0, len(data)
        asked = self.headers.get("Range")
        if asked:
            first, last = asked.removeprefix("bytes=").split("-")
            start, end = int(first), min(int(last) + 1, end) if last else end
            if start >= len(data):
                self.head(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": 0})
                return
            headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
        head = (206 if asked else 200, {"Content-Type": "application/octet-stream", "Content-Length": end - start,
                                        "Accept-Ranges": "bytes", **headers})
        if self.command == "HEAD":
            self.head(*head, 0)
            return
        flip = self.hub.fault(place, "flip")
        if flip:
            data = bytearray(data)
            data[flip.get("byte", 0)] ^= 1
        body, fault = bytes(data[start:end]), self.hub.fault(place, "cut", "hold", "slow")
        kind = fault["fault"] if fault else None
        # With the others it shows later how much was sent.
        self.head(*head, len(body) if kind is None else fault["after"] if kind == "cut" else None)
        if kind is None:
            self.send_piece(body)
        elif kind == "slow":
            for at in range(0, len(body), fault["chunk"]):
                self.send_piece(body[at:at + fault["chunk"]])
                time.sleep(fault["seconds"])
        else:
            self.send_piece(body[:fault["after"]])
            if kind == "cut":
                self.close_connection = True
                return
            while not (self.hub.root / "release").exists():
                time.sleep(0.02)
            self.log_once(len(body))
            self.send_piece(body[fault["after"]:])

    def send_piece(self, piece):
        self.wfile.write(piece)
        self.wfile.flush()
        self.sent += len(piece)


class Storage(Handler):
    """Where large files come from."""

    server_name = "storage"

    def answer(self, path, _query):
        _, kind, rest = path.split("/", 2)
        name, commit, file = (urllib.parse.unquote(part) for part in rest.split(":", 2))
        data = (self.hub.tree(kind, name, commit) / file).read_bytes()
        place = f"storage/{name}/{file}"
        if not self.is_refused(place):
            self.send_file(place, data, {"ETag": f'"{sha256(data)}"'})


class Front(Handler):
    """The hub itself."""

    def answer(self, path, query):
        parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
        if parts[:1] == ["api"] and parts[1:2] and parts[1] in KINDS:
            self.answer_api(parts[1], parts[2:], query)
        elif parts[:2] == ["api", "resolve-cache"]:
            kind, rest = parts[2], parts[3:]
            at = next(index for index, part in enumerate(rest) if len(part) == 40)
            self.answer_small(kind, "/".join(rest[:at]), rest[at], "/".join(rest[at + 1:]))
        elif "resolve" in parts:
            kind = parts[0] if parts[0] in KINDS else "models"
            rest = parts[1:] if parts[0] in KINDS else parts
            at = rest.index("resolve")
            self.answer_resolve(kind, "/".join(rest[:at]), rest[at + 1], "/".join(rest[at + 2:]))
        elif not self.is_upload(path, query):
            self.refuse(404, "no such page")

    def is_upload(self, path, query):
        return self.server.uploads is not None and self.server.uploads.answer(self, self.command, path, query)

    def do_POST(self):
        path, query = self.begin()
        try:
            if not self.is_upload(path, query):
                self.refuse(404, "no such page")
                self.close_connection = True
        finally:
            self.log_once(self.sent)

    do_PUT = do_DELETE = do_POST

    def find(self, place, kind, name, revision, tail):
        """The commit that is asked for; None after an answer that says why there is none."""
        if self.is_refused(place):
            return None
        new = self.hub.moved(name)
        if new:
            self.head(307, {"Location": self.path.replace(name, new, 1), "Content-Length": 0})
            return None
        if self.hub.repo(kind, name) is None:
            if self.token:
                self.refuse(404, "Repository not found", "RepoNotFound")
            else:
                self.refuse(401, "Invalid username or password.")
            return None
        commit = self.hub.commit(kind, name, revision)
        if commit is None:
            self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        elif tail is not None and not (self.hub.tree(kind, name, commit) / tail).is_file():
            self.refuse(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit})
            return None
        return commit

    def answer_api(self, kind, parts, query):
        at = next((index for index, part in enumerate(parts) if part in ("revision", "tree", "refs")), len(parts))
        name, what, rest = "/".join(parts[:at]), "".join(parts[at:at + 1]), parts[at + 1:]
        commit = self.find(f"api/{kind}/{name}", kind, name, rest[0] if rest else "main", None)
        if commit is None:
            return
        tree = self.hub.tree(kind, name, commit)
        if what == "refs":
            branches = [{"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": self.hub.head(kind, name, branch)}
                        for branch in self.hub.branches(kind, name)]
            self.reply(200, {"branches": branches, "tags": [], "converts": []})
        elif what == "tree":
            below = "/".join(rest[1:])
            self.answer_tree(tree, below, query)
        elif what in ("", "revision"):
            siblings = [{"rfilename": path} for path in files_of(tree)]
            self.reply(200, {"id": name, "modelId": name, "sha": commit, "private": self.hub.is_private(name), "gated": False,
                             "disabled": False, "tags": [], "siblings": siblings})

    def answer_tree(self, tree, below, query):
        entries, directories = [], set()
        for path in files_of(tree):
            if below and not path.startswith(below + "/"):
                continue
            inner = path[len(below) + 1:] if below else path
            parents = [str(parent) for parent in Path(inner).parents if str(parent) != "."]
            directories.update(parents if query.get("recursive") in ("true", "True", "1") else parents[-1:])
            if not parents or query.get("recursive") in ("true", "True", "1"):
                entries.append(entry(path, (tree / path).read_bytes()))
        prefix = below + "/" if below else ""
        entries = [{"type": "directory", "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0,
                    "path": prefix + name} for name in sorted(directories)] + entries
        start = int(query.get("cursor", 0))
        page = min(int(query.get("limit", self.hub.page)), self.hub.page)
        headers = {}
        if start + page < len(entries):
            asked = {**query, "cursor": start + page}
            place = self.path.split("?")[0]
            headers["Link"] = f'<{self.hub.address}{place}?{urllib.parse.urlencode(asked)}>; rel="next"'
        self.reply(200, entries[start:start + page], headers)

    def answer_resolve(self, kind, name, revision, path):
        place = f"resolve/{name}/{path}"
        commit = self.find(place, kind, name, revision, path)
        if commit is None:
            return
        data = (self.hub.tree(kind, name, commit) / path).read_bytes()
        common = {"X-Repo-Commit": commit, "X-Linked-Size": len(data), "Content-Length": 0}
        quoted = urllib.parse.quote(path)
        if is_large(path):
            there = f"{self.hub.storage}/{kind}/{urllib.parse.quote(name, safe='')}:{commit}:{urllib.parse.quote(path, safe='')}"
            self.head(302, {"Location": there, "X-Linked-ETag": f'"{sha256(data)}"',
                            "ETag": f'"{blob_id(pointer(data))}"', **common})
        else:
            self.head(307, {"Location": f"/api/resolve-cache/{kind}/{name}/{commit}/{quoted}",
                            "X-Linked-ETag": f'"{blob_id(data)}"', "ETag": f'"{blob_id(data)}"', **common})

    def answer_small(self, kind, name, commit, path):
        data = (self.hub.tree(kind, name, commit) / path).read_bytes()
        self.send_file(f"resolve/{name}/{path}", data, {"ETag": f'"{blob_id(data)}"', "X-Repo-Commit": commit})


def uploads_of(hub):
    try:
        import hub_upload
    except ModuleNotFoundError as error:
        if error.name != "hub_upload":
            raise
        return None
    return hub_upload.Uploads(hub)


class Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """A client that is gone is what some tests are about."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*_)


def serve(handler, hub, port):
    server = Server(("127.0.0.1", port), handler)
    server.daemon_threads = True
    server.hub, server.uploads = hub, None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--page", type=int, default=1000)
    arguments = parser.parse_args()
    hub = Hub(arguments.root, arguments.page)
    storage, front = serve(Storage, hub, 0), serve(Front, hub, arguments.port)
    # Another name of the same machine: what is sent there goes to another host.
    hub.storage = f"http://localhost:{storage.server_port}"
    hub.address = f"http://127.0.0.1:{front.server_port}"
    front.uploads = uploads_of(hub)
    print(hub.address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
