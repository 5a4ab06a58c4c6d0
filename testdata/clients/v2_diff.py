#!/usr/bin/env python3
"""Compare the answers of two v2 servers, ours and etcd's, to the same random requests.

  v2_diff.py --seeds A..B [--kinds tree,watch,...] [--ours CMD] [--theirs CMD] [--minimise]

Each seed is one sequence of requests, sent to both servers in turn. Both are kept at the same
index, so that answers must agree byte for byte: status, headers, body. Left out are what differs
by nature (dates, raft indexes, the cluster's id), shown times beyond a tolerance, and the order of
lists that were not asked to be sorted. A difference is printed with the requests that led to it,
with --minimise cut down to those it needs. Exit status 1 if there was one.

What docs/compat.md names is not asked for, or is evened out where marked `compat.md`.
CMD is a server's command line with {dir}, {client} and {peer} for its directory and URLs.
Listens on loopback only, ends only the servers it started.
"""
import argparse, json, os, random, re, select, shutil, signal, socket, subprocess, sys, tempfile, time
from calendar import timegm

FLAGS = (" --enable-v2 --name default --data-dir {dir} --listen-client-urls {client} --advertise-client-urls {client}"
         " --listen-peer-urls {peer} --initial-advertise-peer-urls {peer} --initial-cluster default={peer}"
         " --logger zap --log-level error")
ETCD, QUORATE = "/usr/bin/etcd" + FLAGS, "target/release/quorate" + FLAGS
PATIENCE_S = 4.0            # how long the slower server may take to say what the other said
QUIET_S = 0.06              # how long both must be silent before their streams are compared


# ---------------------------------------------------------------- servers and HTTP
class Server:
    """A member of its own, in a directory of its own."""
    def __init__(self, name, command, port):
        self.name, self.port, self.dir = name, port, tempfile.mkdtemp(prefix="v2diff")
        url = "http://127.0.0.1:%d"
        line = command.format(dir=self.dir + "/d", client=url % port, peer=url % (port + 1))
        self.log = open(self.dir + "/log", "wb")
        self.process = subprocess.Popen(line.split(), stdout=self.log, stderr=self.log)
        self.keep = None
        for _ in range(100):
            time.sleep(0.1)
            if self.process.poll() is not None: raise SystemExit("%s ended: %s" % (name, open(self.dir + "/log").read()[-500:]))
            try:
                # etcd takes its last index of a start when it has found the cluster's version.
                if b"not_decided" not in Exchange(self, "GET", "/version").finish().body: break
            except OSError: pass
        time.sleep(0.4)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try: self.process.wait(10)
        except subprocess.TimeoutExpired: self.process.kill(); self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def ask(self, method, target, headers=(), body=None):
        """One exchange, on the connection that is kept for them while the server keeps it."""
        for fresh in (False, True):
            try:
                if self.keep is None or fresh: self.keep = connect(self)
                exchange = Exchange(self, method, target, headers, body, self.keep).finish()
            except (OSError, Cut):
                if self.keep is not None: self.keep.close()
                self.keep = None
                if fresh: raise
                continue
            if exchange.closes: self.keep.close(); self.keep = None
            return exchange

    def index(self): return int(self.ask("GET", "/v2/keys/").headers["x-etcd-index"])


class Cut(Exception):
    """The connection ended inside an answer."""


def connect(server):
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Exchange:
    """A request as raw bytes, and its answer as far as it was read."""
    def __init__(self, server, method, target, headers=(), body=None, sock=None):
        self.own = sock is None
        self.method, self.sock, self.rest, self.body, self.ended = method, sock or connect(server), b"", b"", False
        head = [b"%s %s HTTP/1.1" % (method.encode(), latin(target)), b"Host: 127.0.0.1:2379"]
        head += [b"%s: %s" % (name.encode(), latin(value)) for name, value in headers]
        if body is not None and not any(name.lower() in ("transfer-encoding", "content-length") for name, _ in headers):
            head.append(b"Content-Length: %d" % len(latin(body)))
        self.sock.sendall(b"\r\n".join(head) + b"\r\n\r\n" + latin(body or ""))
        self.sent = time.time()
        while b"\r\n\r\n" not in self.rest: self.more()
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        self.status, self.names, self.headers = int(lines[0].split()[1]), [], {}
        for line in lines[1:]:
            name, value = line.split(":", 1)
            self.names.append(name); self.headers[name.lower()] = value.strip()
        self.closes = self.headers.get("connection", "").lower() == "close"
        self.chunked = self.headers.get("transfer-encoding") == "chunked"
        if method == "HEAD" or self.status in (204, 304): self.left = 0
        else: self.left = None if self.chunked else int(self.headers.get("content-length", 1 << 60))
        self.parse()

    def more(self):
        data = self.sock.recv(1 << 16)
        if not data: raise Cut(self.rest)
        self.rest += data

    def parse(self):
        """Takes of what was read what belongs to the body."""
        while not self.ended:
            if not self.chunked or self.method == "HEAD":
                take = self.rest[:self.left]; self.rest = self.rest[len(take):]
                self.body += take; self.left -= len(take)
                self.ended = self.left == 0
                return
            if b"\r\n" not in self.rest: return
            size, rest = self.rest.split(b"\r\n", 1)
            size = int(size.split(b";")[0], 16)
            if len(rest) < size + 2: return
            self.body += rest[:size]; self.rest = rest[size + 2:]
            self.ended = size == 0

    def finish(self):
        while not self.ended:
            try: self.more()
            except Cut:
                if self.closes and self.left: self.ended = True; break
                raise
            self.parse()
        if self.own: self.sock.close()
        return self

    def poll(self):
        """Reads what there is; whether there was anything."""
        if self.ended or not select.select([self.sock], [], [], 0)[0]: return False
        try: self.more()
        except (Cut, OSError): self.ended = "cut"; return True
        self.parse()
        return True


def latin(text): return text if isinstance(text, bytes) else text.encode("latin-1")
def utf8(text): return text.encode("utf-8").decode("latin-1")


# ---------------------------------------------------------------- comparing
TIMED = re.compile(rb'"expiration":"([^"]*)"(,"ttl":(-?\d+))?')
PORT, MEMBER = re.compile(rb"127\.0\.0\.1:\d+"), re.compile(rb'("id":")[0-9a-f]+')
UNTOLD = {"date", "content-length", "transfer-encoding"}      # framing is a matter of the library
PRESENT = {"x-raft-index", "x-raft-term", "x-etcd-cluster-id"}


def seconds(text):
    whole, _, fraction = text.rstrip("Z").partition(".")
    return timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float("0." + (fraction or "0"))


def by_key(pairs):
    """An object of JSON with its nodes in order of key and all field names in theirs."""
    return [(name, sorted(value, key=lambda node: dict(node).get("key", "")) if name == "nodes" else value) for name, value in pairs]


def same_body(ours, theirs, is_sorted):
    """Why two bodies differ, or None."""
    ours, theirs = (MEMBER.sub(rb'\1', PORT.sub(b"127.0.0.1", body)) for body in (ours, theirs))
    if ours == theirs: return None
    times = [TIMED.findall(body) for body in (ours, theirs)]
    plain = [TIMED.sub(lambda m: b'"expiration":"","ttl":' if m.group(2) else b'"expiration":""', body) for body in (ours, theirs)]
    if not is_sorted and b'"nodes":' in theirs:
        if sorted(plain[0]) != sorted(plain[1]): return "body (bytes)"
        trees = []
        for body in (ours, theirs):
            try: trees.append(json.loads(body, object_pairs_hook=by_key))
            except ValueError: return "body is no JSON"
        plain = [TIMED.sub(b"", json.dumps(dict_like(tree)).encode()) for tree in trees]
        times = [sorted(found) for found in times]
    if plain[0] != plain[1]: return "body"
    for (a, _, ttl_a), (b, _, ttl_b) in zip(*times):
        if abs(seconds(a.decode()) - seconds(b.decode())) > 2: return "expiration"
        if abs(int(ttl_a or 0) - int(ttl_b or 0)) > 1: return "ttl"
    return None


def dict_like(value):
    """Ordered pairs without shown times, to be compared as text."""
    if isinstance(value, list): return [dict_like(item) for item in value]
    if isinstance(value, tuple): return [value[0], 0 if value[0] in ("ttl", "expiration") else dict_like(value[1])]
    return value


def differences(ours, theirs, is_sorted):
    """What differs between two finished exchanges."""
    found = []
    if ours.status != theirs.status: found.append("status %d, etcd %d" % (ours.status, theirs.status))
    for name in sorted(set(ours.headers) | set(theirs.headers)):
        a, b = ours.headers.get(name), theirs.headers.get(name)
        if name in UNTOLD: continue
        if name in PRESENT: a, b = a is not None, b is not None
        if a != b: found.append("header %s: %r, etcd %r" % (name, a, b))
    case = [sorted(name for name in exchange.names if name.lower() not in UNTOLD) for exchange in (ours, theirs)]
    if not found and case[0] != case[1]: found.append("case of headers: %r, etcd %r" % tuple(case))
    wrong = same_body(ours.body, theirs.body, is_sorted)
    if wrong: found.append("%s: %r, etcd %r" % (wrong, ours.body[:400], theirs.body[:400]))
    return found


# ---------------------------------------------------------------- running a sequence
INDEX = re.compile(r"\{(now|mod)([+-]\d+)?(?: ([^}]*))?\}")


class Pair:
    """Two servers at the same index."""
    def __init__(self, ours, theirs, port):
        self.ours = Server("ours", ours, port)
        self.theirs = Server("etcd", theirs, port + 2)

    def stop(self): self.ours.stop(); self.theirs.stop()
    def both(self): return (self.ours, self.theirs)

    def level(self):
        """Empties both and brings the lower one up to the index of the other."""
        for server in self.both():
            listed = json.loads(server.ask("GET", "/v2/keys/").body)["node"].get("nodes", [])
            names = {utf8(node["key"]) for node in listed} | {"/" + name for name in HIDDEN_TOPS}
            for name in sorted(names): server.ask("DELETE", "/v2/keys" + quoted(name) + "?recursive=true")
        indexes = [server.index() for server in self.both()]
        if indexes[0] == indexes[1]: return
        # Some more for both, so that no watch of the past looks at what one of them has alone.
        for server, index in zip(self.both(), indexes):
            for _ in range(max(indexes) - index + 10): server.ask("PUT", "/v2/keys/_level")

    def resolve(self, text):
        """`{now-1}`: etcd's index less one; `{mod /a}`: the modified index of /a there."""
        def number(match):
            kind, offset, key = match.groups()
            if kind == "now": base = self.theirs.index()
            else: base = json.loads(self.theirs.ask("GET", "/v2/keys" + key).body).get("node", {}).get("modifiedIndex", 1)
            return str(max(0, base + int(offset or 0)))
        return INDEX.sub(number, text) if isinstance(text, str) else text

    def run(self, steps):
        """The differences that a sequence shows: (step, text)."""
        self.level()
        found, watches = [], {}
        for at, step in enumerate(steps):
            if "sleep" in step: time.sleep(step["sleep"]); continue
            target, body = self.resolve(step["target"]), self.resolve(step.get("body"))
            request = (step["method"], target, step.get("headers", ()), body)
            is_sorted = "sorted=true" in target
            if step.get("watch"):
                pair = [Exchange(server, *request) for server in self.both()]
                if pair[0].status == 200 == pair[1].status: watches[at] = pair
                for exchange in pair:
                    if exchange.status != 200: exchange.finish()
            else:
                pair = [server.ask(*request) for server in self.both()]
            told = [exchange.body for exchange in pair]
            if step.get("watch"): pair[0].body = pair[1].body = b""
            found += [(at, text) for text in differences(*pair, is_sorted)]
            if step.get("watch"): pair[0].body, pair[1].body = told
            if found: break
        if not found: found = self.compare_watches(steps, watches)
        for pair in watches.values():
            for exchange in pair: exchange.sock.close()
        return found

    def compare_watches(self, steps, watches):
        """Waits until all watches were told the same, or one server had its time."""
        def wrong():
            for at, (ours, theirs) in watches.items():
                is_stream = "stream=true" in steps[at]["target"]
                told = [once(exchange.body) if is_stream else exchange.body for exchange in (ours, theirs)]
                text = same_body(*told, True) or (ours.ended != theirs.ended and "end %r, etcd %r" % (ours.ended, theirs.ended))
                if text: yield at, "watch %s: %r, etcd %r" % (text, told[0][:1500], told[1][:1500])
        start = quiet = time.time()
        while True:
            if any([exchange.poll() for pair in watches.values() for exchange in pair]): quiet = time.time(); continue
            now = time.time()
            if now - quiet > QUIET_S and (now - start > PATIENCE_S or not any(wrong())): return list(wrong())
            time.sleep(0.005)


def once(body):
    """compat.md: etcd tells a stream on exactly the removed path twice."""
    lines = body.splitlines(True)
    return b"".join(line for at, line in enumerate(lines) if at == 0 or line != lines[at - 1])


def minimised(pair, steps, text):
    """The steps that a difference needs, by leaving out what it does not."""
    kind = text.split(":")[0]
    size = max(1, len(steps) // 2)
    while True:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size:]
            if any(found.split(":")[0] == kind for _, found in pair.run(fewer)): steps = fewer
            else: at += size
        if size == 1: return steps
        size //= 2


# ---------------------------------------------------------------- making sequences
# No name is the beginning of another: etcd takes a removed /d for the parent of /dx (compat.md).
NAMES = ("a", "b", "c", "_h", utf8("ü"), "x y")
HIDDEN_TOPS = ("_h",)
FORM = ("Content-Type", "application/x-www-form-urlencoded")
VALUES = ("", "1", "2", "2", "x y", utf8("é<&>"), "\xff\x00")
BOOLEANS = ("true", "false", "1", "0", "t", "F", "TRUE")
BAD_BOOLEANS = ("", "yes", "tRUE", "2", "+", "true%20", "%00", "null")
BAD_NUMBERS = ("", "-1", "+1", "1.5", "1e3", "0x10", "18446744073709551616", "%201", "1_000", "x", utf8("１"))
TTLS = ("", "0", "1", "100", "007", "7000000000", "8000000000")
FLAG_NAMES = ("recursive", "sorted", "wait", "dir", "quorum", "stream", "noValueOnSuccess", "prevExist", "refresh")
METHODS = ("GET", "GET", "PUT", "PUT", "PUT", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS", "FOO")
BODY_TYPES = (
    "application/x-www-form-urlencoded", "APPLICATION/x-www-form-urlencoded; charset=utf-8", "text/plain", "application/json",
    "multipart/form-data", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded;", "application/x-www-form-urlencoded; a",
    "application/x-www-form-urlencoded; a=b; a=c", "application/x-www-form-urlencoded; a=b; c", "application/x-www-form-urlencoded, x",
    "application/", "/x", "", " ", ";", "a b/c", "application/x-www-form-urlencoded; a=\"b", "application/x-www-form-urlencoded ;q=1",
    "application/x-www-form-urlencoded; charset=\"a\\\"b\"", "application/x-www-form-urlencoded; =b", "application/x-www-form-urlencoded; a*=utf-8''x",
    "application/x-www-form-urlencoded; a*0=x; a*1=y", "application/x-www-form-urlencoded;;", "application/x-www-form-urlencoded; a=b,c=d")
EXTRA_HEADERS = (
    ("Authorization", "Basic cm9vdDpwdw=="), ("Authorization", "x"), ("Accept", "text/html"), ("Accept-Encoding", "gzip"), ("Origin", "http://example.com"),
    ("X-HTTP-Method-Override", "DELETE"), ("If-None-Match", "*"), ("Range", "bytes=0-3"), ("Cookie", "a=b"), ("Access-Control-Request-Method", "PUT"))
PIECES = (
    "a", "b", "c", "_h", "", ".", "..", "...", "%2F", "%2f", "%2e%2e", "%2E", "%00", "a+b", "x%20y", "%25", "%zz", "%", "%4", "%ff",
    "%C3%A9", utf8("é"), "a;b", "a=b", "a&b", "a,b", "a:b", "@", "$", "~", "!", "'", "(", ")", "*", "%23", "%3F", "%22", "%3C", "%5C", "|",
    "[", "]", "^", "{}", "%7F", "%0A", "%09", "A", "keys", "00000000000000000001", "%E2%80%A8")
OTHER_PATHS = (
    "/", "/v2", "/v2/", "/v2/keysfoo", "/v2/stats", "/v2/stats/", "/v2/machines", "/v2/machines/", "/v2/machines/x", "/v2/members", "/v2/members/",
    "/v2/members/x", "/v2/members/leader", "/v2/members/leader/", "/v2/members/0", "/v2/members//", "/v2/leader", "/v2/admin", "/v1", "/v1/keys/a", "/v2/auth",
    "/keys", "/v2/KEYS/a", "/V2/keys/a", "/favicon.ico", "/version/", "/version/x", "/health/", "/healthz", "//", "/v2/keys/../keys", "/v2/../version",
    "/v2//machines", "/v2/./members", "*", "/?a=b", "/v2/keys?", "/v2/keys??", "/%76%32/keys/a", "/v2%2Fkeys/a", "/v2/%6beys/a")

# What they answer to a GET is never the same twice.
VARYING_PATHS = ("/v2/stats/self", "/v2/stats/leader", "/v2/stats/store", "/v2/stats/store/", "/v2/stats/x", "/version", "/health")


def quoted(path): return re.sub(r"[^A-Za-z0-9_/.-]", lambda m: "%%%02X" % ord(m.group(0)), path)


class Maker:
    """Sequences of one seed."""
    def __init__(self, seed): self.r = random.Random(seed)

    def path(self):
        depth = self.r.choice((0, 1, 1, 1, 1, 2, 2, 2, 3, 4))
        return "".join("/" + self.r.choice(NAMES[:3] if self.r.random() < 0.8 else NAMES) for _ in range(depth))

    def maybe(self, chance, pairs, name, value):
        if self.r.random() < chance: pairs.append((name, value))

    def write(self, path=None, ttl=0.1, ttls=("100", "5", "")):
        """A write as clients make them."""
        r, path = self.r, self.path() if path is None else path
        method = r.choice(("PUT", "PUT", "PUT", "PUT", "PUT", "POST", "DELETE", "DELETE"))
        pairs = []
        if method == "DELETE":
            self.maybe(0.4, pairs, "recursive", r.choice(BOOLEANS))
            self.maybe(0.3, pairs, "dir", r.choice(BOOLEANS))
        else:
            self.maybe(0.3, pairs, "dir", r.choice(BOOLEANS))
            self.maybe(0.3, pairs, "prevExist", r.choice(BOOLEANS))
            self.maybe(ttl, pairs, "ttl", r.choice(ttls))
            self.maybe(0.1, pairs, "noValueOnSuccess", r.choice(BOOLEANS))
            self.maybe(0.12, pairs, "refresh", r.choice(BOOLEANS))
        self.maybe(0.1, pairs, "prevValue", r.choice(VALUES[1:6]))
        self.maybe(0.15, pairs, "prevIndex", r.choice(("{mod %s}" % quoted(path), "{mod %s}" % quoted(path), "{now}", "0", "1", "{now+5}")))
        self.maybe(0.05, pairs, "unknown", "x")
        value = r.choice(VALUES)
        with_value = method != "DELETE" and not any(name == "refresh" for name, _ in pairs) and r.random() < 0.8
        return self.request(method, path, pairs, [("value", value)] if with_value else [])

    def request(self, method, path, query, form):
        if self.r.random() < 0.3 and method in ("PUT", "POST"): query, form = [], query + form
        step = {"method": method, "target": "/v2/keys" + quoted(path) + self.slash(), "headers": []}
        text = lambda pairs: "&".join(name + "=" + (value if "{" in value else quoted(value)) for name, value in pairs)
        if query: step["target"] += "?" + text(query)
        if form: step.update(headers=[FORM], body=text(form))
        return step

    def slash(self): return "/" if self.r.random() < 0.05 else ""

    def read(self, path=None):
        r, pairs = self.r, []
        self.maybe(0.5, pairs, "recursive", "true")
        self.maybe(0.5, pairs, "sorted", "true")
        self.maybe(0.15, pairs, "quorum", r.choice(BOOLEANS))
        path = r.choice(("", self.path())) if path is None else path
        return self.request(r.choice(("GET", "GET", "GET", "GET", "HEAD")), path, pairs, [])

    def whole(self): return {"method": "GET", "target": "/v2/keys/?recursive=true&sorted=true"}

    def watch(self, past=0.3):
        r, pairs = self.r, [("wait", "true")]
        self.maybe(0.5, pairs, "recursive", "true")
        if r.random() < past:
            pairs.append(("waitIndex", r.choice(("{now}", "{now-1}", "{now-3}", "{now-6}", "{now+1}", "{now+3}", "0"))))
        if r.random() < 0.05: pairs += [("quorum", "true"), ("sorted", "true")]
        # compat.md: a stream from the past falls silent in etcd.
        if not any("{now-" in value or value == "{now}" for _, value in pairs): self.maybe(0.4, pairs, "stream", "true")
        return dict(self.request("GET", r.choice(("", self.path(), self.path())), pairs, []), watch=True)

    # ---- kinds of sequences
    def tree(self):
        steps = []
        for _ in range(self.r.randint(3, 25)): steps += [self.write()] if self.r.random() < 0.75 else [self.read()]
        return steps + [self.whole()]

    def watches(self):
        steps = []
        for _ in range(self.r.randint(4, 25)): steps.append(self.watch() if self.r.random() < 0.35 else self.write(ttl=0.05))
        return steps + [self.whole()]

    def ttl(self):
        """What ends does so while nothing else happens, since etcd looks every half second."""
        r, steps = self.r, []
        for _ in range(r.randint(1, 3)):
            for _ in range(r.randint(2, 7)): steps.append(self.watch(past=0.1) if r.random() < 0.3 else self.write(ttl=0.6, ttls=("1", "100")))
            if r.random() < 0.3: steps.append(self.write(ttl=1, ttls=("0",)))
            steps.append({"sleep": 1.9})
            for _ in range(r.randint(0, 4)): steps.append(r.choice((self.read(), self.write(ttl=0.3, ttls=("100",)), self.watch(past=0.8))))
        return steps + [self.whole()]

    def parameters(self):
        r, steps = self.r, [self.write() for _ in range(3)]
        for _ in range(r.randint(1, 6)):
            pairs, method = [], r.choice(METHODS)
            for _ in range(r.randint(1, 4)):
                kind = r.random()
                if kind < 0.6: pair = (r.choice(FLAG_NAMES), r.choice(BOOLEANS + BAD_BOOLEANS))
                elif kind < 0.8: pair = (r.choice(("prevIndex", "waitIndex", "ttl")), r.choice(TTLS + BAD_NUMBERS))
                elif kind < 0.9: pair = ("prevValue", r.choice(("", "1", "2", "%zz")))
                else: pair = ("value", r.choice(("", "1", "a;b", "a+b", "%zz", "%4", "a%", "a=b", "%e9", utf8("é"), "%2", "%%", "%g", "%'")))
                pairs.append(pair)
            if method == "GET": pairs = [("wait", "false") if name == "wait" and value not in BAD_BOOLEANS else (name, value) for name, value in pairs]
            r.shuffle(pairs)
            joined = "&".join(r.choice((name + "=" + value, name + "=" + value, name if not value else name + "=" + value)) for name, value in pairs)
            joined = r.choice((joined, joined, joined, joined + "&", "&" + joined, joined + ";", joined.replace("&", "&&", 1), joined + "&=x", joined + "&="))
            step = {"method": method, "target": "/v2/keys" + quoted(self.path()) + self.slash(), "headers": []}
            if method not in ("HEAD", "OPTIONS") and r.random() < 0.5: step.update(headers=[FORM], body=joined)
            else: step["target"] += "?" + joined
            if "body" in step and r.random() < 0.3: step["target"] += "?" + r.choice(("value=q", "ttl=x", "dir=true", "recursive=no", "value=%zz", "a;b", "ttl=5"))
            steps += [step, self.read()]
        return steps + [self.whole()]

    def paths(self):
        r, steps = self.r, []
        for _ in range(r.randint(1, 6)):
            path = "/v2/keys/a" + "".join("/" + "".join(r.choice(PIECES) for _ in range(r.choice((1, 1, 2)))) for _ in range(r.randint(1, 4)))
            if r.random() < 0.1: path = "/v2/keys/a/" + "n" * r.choice((100, 255, 1000, 3000))
            if r.random() < 0.1: path += "/" * r.randint(1, 2)
            query = r.choice(("", "", "?value=v", "?value=v", "?", "?dir=true", "?recursive=true&sorted=true", "?a=%3Cb%3E", "?a=b?c", utf8("?value=é"), "?a='&b=(", "?value=a|b^c{d}`"))
            method = r.choice(METHODS[:-2] + ("PUT", "PUT"))
            steps.append({"method": method, "target": path + query})
            if method == "PUT": steps.append({"method": r.choice(("GET", "DELETE", "POST")), "target": path})
        return steps + [self.whole()]

    def bodies(self):
        r, steps = self.r, []
        for _ in range(r.randint(1, 5)):
            method = r.choice(("PUT", "PUT", "POST", "DELETE", "GET", "PATCH"))
            text = r.choice(("value=1", "value=1&value=2", "value=1&ttl=5", "dir=true", "value=a;b", "value=%zz", "{\"value\":1}", "", "=", "&&", "value", "value=" + "x" * 5000))
            headers = [("Content-Type", r.choice(BODY_TYPES[:4] + BODY_TYPES))] if r.random() < 0.9 else []
            if r.random() < 0.1: headers.append(("Content-Type", r.choice(BODY_TYPES)))
            if r.random() < 0.2:
                headers.append(("Transfer-Encoding", "chunked"))
                text = "".join("%x\r\n%s\r\n" % (len(piece), piece) for piece in (text[:3], text[3:]) if piece) + "0\r\n\r\n"
            if r.random() < 0.2: headers.append(r.choice(EXTRA_HEADERS))
            if r.random() < 0.1: headers.append(("Connection", r.choice(("close", "keep-alive", "Close"))))
            query = r.choice(("", "", "?value=q", "?ttl=x", "?%zz", "?a;b"))
            steps += [{"method": method, "target": "/v2/keys" + quoted(self.path()) + query, "headers": headers, "body": text}, self.read()]
        return steps + [self.whole()]

    def others(self):
        r = self.r
        steps = [{"method": r.choice(METHODS + ("GET",) * 6), "target": r.choice(OTHER_PATHS)} for _ in range(8)]
        steps += [{"method": r.choice(METHODS[2:]), "target": r.choice(VARYING_PATHS)} for _ in range(3)]
        # compat.md: members cannot be changed yet.
        changes = lambda step: re.match("/v2/members(/.|/?$)", step["target"]) and step["method"] in ("POST", "PUT", "DELETE")
        return [step for step in steps if not changes(step) or step["method"] != "POST" and step["target"].strip("/").endswith("members")]

    KINDS = {"tree": tree, "watch": watches, "parameters": parameters, "paths": paths, "bodies": bodies, "others": others, "ttl": ttl}

    def sequence(self, kinds):
        kind = self.r.choice(kinds)
        return kind, self.KINDS[kind](self)


# ---------------------------------------------------------------- main
def show(step):
    if "sleep" in step: return "sleep %s" % step["sleep"]
    rest = "".join(" [%s: %s]" % header for header in step.get("headers", ()))
    return "%s %s%s%s" % (step["method"], step["target"], rest, " %r" % step["body"][:200] if "body" in step else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1..200")
    parser.add_argument("--kinds", default=",".join(Maker.KINDS))
    parser.add_argument("--ours", default=QUORATE)
    parser.add_argument("--theirs", default=ETCD)
    parser.add_argument("--port", type=int, default=23790, help="the first of four")
    parser.add_argument("--minimise", action="store_true")
    asked = parser.parse_args()
    first, last = map(int, asked.seeds.split(".."))
    pair, wrong = Pair(asked.ours, asked.theirs, asked.port), 0
    try:
        for seed in range(first, last + 1):
            kind, steps = Maker(seed).sequence(asked.kinds.split(","))
            found = pair.run(steps)
            # A disk that stalls for seconds moves all times: what is about them must show again.
            if found and kind == "ttl": found = pair.run(steps)
            if not found: continue
            wrong += 1
            print("seed %d (%s): %s" % (seed, kind, found[0][1]))
            steps = steps[:found[0][0] + 1] if not found[0][1].startswith("watch") else steps
            if asked.minimise: steps = minimised(pair, steps, found[0][1])
            for step in steps: print("    " + show(step))
            sys.stdout.flush()
    finally: pair.stop()
    print("%d sequences, %d with differences" % (last - first + 1, wrong))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__": main()
