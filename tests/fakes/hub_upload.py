"""What writes to the hub of `hub.py`: repositories, branches, large files and commits, for tests.

Large files are kept by their SHA-256 in ROOT/objects, and reach it through a server of their own, which stands for the
hub's storage and must never see a token. A commit changes the files of a branch, all at once. ROOT/part holds the size of a
part, where large files are to come in parts; ROOT/private.json the names of private repositories.

Faults (see `hub.py`) are looked for at `upload/create`, `upload/ORG/NAME/branch`, `upload/ORG/NAME/preupload`,
`upload/ORG/NAME/batch`, `upload/ORG/NAME/verify`, `upload/ORG/NAME/complete`, `upload/ORG/NAME/commit`, and `put/OID`:

    status   answers `status`, with `message`, and does nothing     limit   answers 429 with Retry-After: `seconds`
    after    does it, and answers `status`                          cut     (put) takes `after` bytes, then hangs up
    hold     (put) takes `after` bytes, then nothing until ROOT/release is there

Every transfer gets a line in ROOT/requests.jsonl, with the bytes that were `received`.
"""

import base64
import hashlib
import json
import shutil
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE = (".safetensors", ".bin", ".parquet", ".pkl", ".pt", ".gz", ".zst", ".model", ".zip")
LFS = "application/vnd.git-lfs+json"


class Uploads:
    """Answers what writes, in the name of a hub."""

    def __init__(self, hub):
        self.hub = hub
        for name in ("objects", "parts"):
            (hub.root / name).mkdir(exist_ok=True)
        server = ThreadingHTTPServer(("127.0.0.1", 0), Storage)
        server.daemon_threads = True
        server.hub = hub
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.storage = f"http://localhost:{server.server_port}"

    def answer(self, handler, method, path, _query):
        """Answers a request that writes; whether it was one."""
        if method != "POST":
            return False
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
        if parts == ["api", "repos", "create"]:
            return self.guarded(handler, "upload/create", lambda: self.create(json.loads(body)))
        if parts[:1] == ["api"] and len(parts) == 6 and parts[4] in ("branch", "preupload", "commit"):
            kind, name, branch = parts[1], "/".join(parts[2:4]), parts[5]
            act = getattr(self, parts[4])
            return self.guarded(handler, f"upload/{name}/{parts[4]}", lambda: act(kind, name, branch, body))
        if len(parts) >= 4 and ".git" in path and parts[-2:] == ["objects", "batch"]:
            name = path.strip("/").split(".git/")[0].removeprefix("datasets/")
            assert handler.headers.get("Accept") == handler.headers.get("Content-Type") == LFS, "not by git-lfs"
            return self.guarded(handler, f"upload/{name}/batch", lambda: self.batch(name, json.loads(body)))
        if parts[:2] == ["upload", "verify"]:
            name = "/".join(parts[2:])
            return self.guarded(handler, f"upload/{name}/verify", lambda: self.verify(json.loads(body)))
        if parts[:2] == ["upload", "complete"]:
            name = "/".join(parts[2:])
            return self.guarded(handler, f"upload/{name}/complete", lambda: self.complete(json.loads(body)), False)
        return False

    def guarded(self, handler, place, act, with_token=True):
        """Does something unless a fault is due, or there is no token."""
        fault = self.hub.fault(place, "status", "limit", "after")
        if fault and fault["fault"] == "limit":
            handler.refuse(429, "Too many requests", headers={"Retry-After": fault["seconds"]})
        elif fault and fault["fault"] == "status":
            handler.reply(fault["status"], {"error": fault.get("message", "out of order")})
        elif with_token and not handler.token:
            handler.refuse(401, "Invalid username or password.")
        else:
            with self.hub.lock:
                status, said = act()
            if fault:
                status, said = fault["status"], {"error": "lost its way"}
            handler.reply(status, said)
        return True

    def create(self, asked):
        kind, name = asked["type"] + "s", f"{asked['organization']}/{asked['name']}"
        if self.hub.repo(kind, name):
            return 409, {"error": "You already created this repo"}
        here = self.hub.root / kind / name / "main"
        here.mkdir(parents=True)
        (here / ".gitattributes").write_text("".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LARGE))
        if asked["private"]:
            file = self.hub.root / "private.json"
            names = json.loads(file.read_text()) if file.exists() else []
            file.write_text(json.dumps(names + [name]))
        return 200, {"url": f"{self.hub.address}/{name}", "name": name}

    def branch(self, kind, name, branch, _body):
        here = self.hub.root / kind / name / branch
        if here.exists():
            return 409, {"error": "Reference already exists"}
        shutil.copytree(here.parent / "main", here)
        return 200, {"success": True}

    def preupload(self, _kind, _name, _branch, body):
        files = []
        for file in json.loads(body)["files"]:
            sample = base64.b64decode(file["sample"], validate=True)
            assert len(sample) == min(file["size"], 512), "not the first 512 bytes"
            mode = "lfs" if file["path"].endswith(LARGE) else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
        return 200, {"files": files}

    def batch(self, name, asked):
        assert asked["operation"] == "upload" and asked["hash_algo"] == "sha256", asked
        part = self.hub.root / "part"
        part = int(part.read_text()) if part.exists() else None
        objects = []
        for asked_of in asked["objects"]:
            oid, size = asked_of["oid"], asked_of["size"]
            said = {"oid": oid, "size": size, "authenticated": True}
            if not (self.hub.root / "objects" / oid).exists():
                upload = {"href": f"{self.storage}/{oid}?sign=whole", "header": {"X-Signed": "yes"}}
                if part is not None and size > part:
                    count = -(-size // part)
                    addresses = {f"{n:05}": f"{self.storage}/{oid}/{n}?sign=part" for n in range(1, count + 1)}
                    upload = {"href": f"{self.hub.address}/upload/complete/{name}?oid={oid}",
                              "header": {"chunk_size": str(part), **addresses}}
                said["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.address}/upload/verify/{name}"}}
            objects.append(said)
        return 200, {"transfer": "basic", "objects": objects}

    def complete(self, asked):
        oid, data = asked["oid"], b""
        for number, part in enumerate(asked["parts"], 1):
            piece = (self.hub.root / "parts" / f"{oid}.{number}").read_bytes()
            assert part == {"partNumber": number, "etag": tag(piece)}, part
            data += piece
        (self.hub.root / "objects" / oid).write_bytes(data)
        return 200, {}

    def verify(self, asked):
        file = self.hub.root / "objects" / asked["oid"]
        data = file.read_bytes() if file.exists() else b""
        if hashlib.sha256(data).hexdigest() != asked["oid"] or len(data) != asked["size"]:
            file.unlink(missing_ok=True)
            return 422, {"error": "this is not what it was said to be"}
        return 200, {}

    def commit(self, kind, name, branch, body):
        here = self.hub.root / kind / name / branch
        lines = [json.loads(line) for line in body.decode().splitlines()]
        assert lines[0]["key"] == "header" and lines[0]["value"]["summary"], lines[0]
        parent = lines[0]["value"].get("parentCommit")
        if parent and parent != self.hub.head(kind, name, branch):
            return 412, {"error": "A commit has happened since. Please refresh and try again."}
        changed = {}
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                assert value["encoding"] == "base64", value
                changed[value["path"]] = base64.b64decode(value["content"], validate=True)
            elif line["key"] == "lfsFile":
                file = self.hub.root / "objects" / value["oid"]
                if not file.exists() or file.stat().st_size != value["size"]:
                    return 400, {"error": f"{value['path']}: no such object"}
                changed[value["path"]] = file.read_bytes()
            else:
                assert line["key"] == "deletedFile", line
                changed[value["path"]] = None
        for path, data in changed.items():
            if data is None:
                (here / path).unlink()
            else:
                (here / path).parent.mkdir(parents=True, exist_ok=True)
                (here / path).write_bytes(data)
        commit = self.hub.head(kind, name, branch)
        return 200, {"success": True, "commitOid": commit, "commitUrl": f"{self.hub.address}/{name}/commit/{commit}"}


def tag(data):
    return f'"{hashlib.md5(data).hexdigest()}"'


class Storage(BaseHTTPRequestHandler):
    """Where large files are put."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_PUT(self):
        hub, status, received = self.server.hub, None, 0
        path, _, query = self.path.partition("?")
        oid, _, number = path.strip("/").partition("/")
        fault = hub.fault(f"put/{oid}", "status", "cut", "hold")
        length, pieces = int(self.headers["Content-Length"]), []
        try:
            if query != ("sign=part" if number else "sign=whole") or (not number and self.headers.get("X-Signed") != "yes"):
                fault = {"fault": "status", "status": 403}
            while received < length:
                if fault and fault["fault"] in ("cut", "hold") and received >= fault["after"]:
                    if fault["fault"] == "cut":
                        self.close_connection = True
                        return
                    while not (hub.root / "release").exists():
                        time.sleep(0.02)
                    fault = None
                until = fault["after"] if fault and fault["fault"] in ("cut", "hold") else length
                piece = self.rfile.read(min(length, until) - received if until > received else length - received)
                if not piece:
                    self.close_connection = True
                    return
                pieces.append(piece)
                received += len(piece)
            data = b"".join(pieces)
            status = fault["status"] if fault and fault["fault"] == "status" else 200
            if status == 200:
                target = hub.root / ("parts" if number else "objects") / (f"{oid}.{number}" if number else oid)
                work = target.with_suffix(f".{threading.get_ident()}")
                work.write_bytes(data)
                work.rename(target)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if status == 200:
                self.send_header("ETag", tag(data))
            self.end_headers()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            token = self.headers.get("Authorization")
            hub.log(server="upload", method="PUT", path=self.path, token=token, status=status, received=received)
