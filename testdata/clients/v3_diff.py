"""Asks two servers the same random things over gRPC and compares every answer, whole.

  v3_diff.py --server BIN [--oracle /usr/bin/etcd] [--seed N] [--rounds N] [--steps N]

A round is a seed: both servers start fresh, get the same sequence of calls (KV, leases, watches,
members, health; half of it odd), and must agree on code, message and answer. Ids of cluster and
member, and the term, only have to be present alike. `--seed S --rounds 1` repeats a round.

The oracle is etcd 3.4 and the target is 3.7.1. Where these differ (spec/v3-api.md) the oracle is
not asked (unknown sort targets, negative starts of watches, progress requests: golden scripts show
those), or the difference is counted with its reason: see `tolerated`. After a difference the round
ends, for from then on the servers may hold different things.
"""

import argparse
import random
import sys
import threading
import time

from google.protobuf import json_format, text_format

import v3_wire
from v3_wire import Server, rpc

KEYS = [b"\0", b"\0\0", b"/d/a", b"a", b"a\0", b"aa", b"ab", b"b", b"c", b"\xff", b"\xff\xff"]
ENDS = KEYS + [b"\0", b"\0", b"d", b"zz"]
VALUES = [b"", b"0", b"1", b"zz", b"v" * 40, b"\0"]
LEASES = [1, 2, 3, -4, 5]
HUGE = 2**63 - 1
# Long enough to never end during a run.
LONG_TTL = 100_000
BARRIER_S = 10.0
QUIET_S = 0.25


class Maker:
    """Makes requests. `revision` is the present one, as the last answer showed."""

    def __init__(self, chance):
        self.chance = chance
        self.revision = 1
        self.watchers = 0

    def often(self, probability):
        return self.chance.random() < probability

    def key(self):
        return b"" if self.often(0.03) else self.chance.choice(KEYS)

    def end(self):
        return self.chance.choice(ENDS) if self.often(0.6) else b""

    def at(self):
        """A revision: mostly now, sometimes the past, the future or nonsense."""
        kind = self.chance.random()
        if kind < 0.6:
            return 0
        if kind < 0.9:
            return max(0, self.revision + self.chance.randint(-12, 1))
        return self.chance.choice([-1, -2, -HUGE - 1, 1, self.revision + 1, HUGE])

    def bound(self):
        return self.at() if self.often(0.1) else 0

    def range(self):
        choose, often = self.chance.choice, self.often
        request = rpc.RangeRequest(
            key=self.key(), range_end=self.end(), revision=self.at(),
            limit=choose([0, 0, 0, 1, 2, 5, 100, -1, HUGE, -HUGE - 1]),
            serializable=often(0.3), keys_only=often(0.15), count_only=often(0.1),
            min_mod_revision=self.bound(), max_mod_revision=self.bound(),
            min_create_revision=self.bound(), max_create_revision=self.bound())
        if often(0.3):
            request.sort_order, request.sort_target = choose([0, 1, 2]), choose([0, 1, 2, 3, 4])
        return request

    def put(self):
        often = self.often
        ignore_value = often(0.08)
        ignore_lease = often(0.08)
        return rpc.PutRequest(
            key=self.key(), prev_kv=often(0.3), ignore_value=ignore_value,
            value=b"" if ignore_value and often(0.8) else self.chance.choice(VALUES),
            ignore_lease=ignore_lease,
            lease=self.chance.choice(LEASES) if often(0.1 if ignore_lease else 0.25) else 0)

    def delete(self):
        return rpc.DeleteRangeRequest(key=self.key(), range_end=self.end(), prev_kv=self.often(0.3))

    def compare(self):
        choose = self.chance.choice
        compare = rpc.Compare(
            result=choose([0, 1, 2, 3]) if self.often(0.95) else 9,
            target=choose([0, 1, 2, 3, 4]) if self.often(0.95) else 9,
            key=self.key(), range_end=self.end() if self.often(0.4) else b"")
        union = ["version", "create_revision", "mod_revision", "value", "lease"]
        fits = compare.target < 5 and self.often(0.85)
        field = union[compare.target] if fits else choose(union + [None])
        if field == "value":
            compare.value = choose(VALUES)
        elif field is not None:
            setattr(compare, field, choose([0, 1, 2, -1, 3, self.revision, self.revision - 3]))
        return compare

    def operation(self, depth):
        kind = self.chance.random()
        if kind < 0.35:
            return rpc.RequestOp(request_put=self.put())
        if kind < 0.6:
            return rpc.RequestOp(request_range=self.range())
        if kind < 0.75:
            return rpc.RequestOp(request_delete_range=self.delete())
        if kind < 0.98 and depth < 4:
            return rpc.RequestOp(request_txn=self.txn(depth + 1))
        return rpc.RequestOp() if self.often(0.2) else rpc.RequestOp(request_range=self.range())

    def txn(self, depth=0):
        count = lambda most: self.chance.randint(0, most)
        return rpc.TxnRequest(
            compare=[self.compare() for _ in range(count(2))],
            success=[self.operation(depth) for _ in range(count(3))],
            failure=[self.operation(depth) for _ in range(count(3))])

    def seldom_overlapping_txn(self):
        """A txn that seldom writes a key twice: after that nothing more can be compared."""
        txn = self.txn()
        while overlaps_unseen(txn) and self.often(0.98):
            txn = self.txn()
        return txn

    def wide_txn(self):
        """Around 128 operations, in one level or two."""
        # Deletes, for more than 12 keys are sorted as it happens where they are equal.
        deletes = lambda n: [
            rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=b"c"))] * n
        inner = rpc.TxnRequest(success=deletes(self.chance.choice([0, 1, 126, 127, 128])))
        ops = deletes(self.chance.choice([0, 1, 127, 128, 129]))
        if self.often(0.6):
            ops = [rpc.RequestOp(request_range=rpc.RangeRequest(key=b"a"))] * (len(ops) % 3)
            ops.append(rpc.RequestOp(request_txn=inner))
        many = [rpc.Compare(key=b"a")] * self.chance.choice([0, 0, 127, 128, 129])
        return rpc.TxnRequest(compare=many, success=ops)

    def large_put(self):
        """Around max-request-bytes and the receive limit; between them lies a known fuzz of 2."""
        size = self.chance.choice([1572864 - 40, 1572864 - 10, 1572864, 2097152 - 10, 2097152 - 5,
                                   2097152 - 4, 2097152 + 1, 2200000])
        return rpc.PutRequest(key=b"b", value=bytes(size))

    def grant(self):
        id_ = self.chance.choice(LEASES)
        ttl = LONG_TTL + 1000 * id_ if self.often(0.9) else self.chance.choice(
            [9_000_000_000 - id_, 9_000_000_001, HUGE])
        return rpc.LeaseGrantRequest(ID=id_, TTL=ttl)

    def lease(self):
        return self.chance.choice(LEASES + [0, 404, -HUGE - 1])

    def watch(self):
        start = 0 if self.often(0.5) else max(0, self.revision + self.chance.randint(-15, 3))
        return rpc.WatchCreateRequest(
            key=self.key(), range_end=self.end(), start_revision=start, prev_kv=self.often(0.4),
            filters=self.chance.choice([[], [], [], [0], [1], [0, 1], [7], [1, 1]]),
            watch_id=self.watch_id(), fragment=self.often(0.3))

    def watch_id(self):
        """Mostly the server's choice, else one that the server will not come to by counting."""
        self.watchers += 1
        return self.chance.choice([0, 0, 1000 + self.watchers, -1000 - self.watchers])


# What a step calls, and how often.
def unary_steps(maker):
    return [
        (24, "KV/Put", maker.put),
        (22, "KV/Range", maker.range),
        (8, "KV/DeleteRange", maker.delete),
        (26, "KV/Txn", maker.seldom_overlapping_txn),
        (1, "KV/Txn", maker.wide_txn),
        (1, "KV/Put", maker.large_put),
        (3, "KV/Compact", lambda: rpc.CompactionRequest(revision=maker.at(), physical=True)),
        (5, "Lease/LeaseGrant", maker.grant),
        (3, "Lease/LeaseRevoke", lambda: rpc.LeaseRevokeRequest(ID=maker.lease())),
        (3, "Lease/LeaseTimeToLive",
         lambda: rpc.LeaseTimeToLiveRequest(ID=maker.lease(), keys=maker.often(0.7))),
        (1, "Lease/LeaseLeases", lambda: rpc.LeaseLeasesRequest()),
        (1, "Cluster/MemberList", lambda: rpc.MemberListRequest()),
        (1, "Maintenance/Status", lambda: rpc.StatusRequest()),
        (1, "Health/Check",
         lambda: v3_wire.health.HealthCheckRequest(service=maker.chance.choice(["", "x"]))),
    ]


METADATA = [(), (), (), (), (("hasleader", "true"),), (("hasleader", "no"),),
            (("client-api-version", "3.7"),), (("x-y", "z"),)]


def plain(message):
    """An answer as a dict, without what differs from run to run."""
    answer = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return scrub(answer)


def scrub(value):
    if isinstance(value, list):
        return [scrub(each) for each in value]
    if isinstance(value, dict):
        return {name: "*" if name in ("cluster_id", "member_id", "raft_term") else scrub(each)
                for name, each in value.items()}
    return value


def normal(name, answer):
    """An answer without what no client may rely on."""
    answer = plain(answer)
    if name == "Lease/LeaseTimeToLive":
        answer["keys"] = sorted(answer.get("keys", []))
        # Whole seconds left: the servers were asked at different moments.
        if int(answer.get("TTL", 0)) > 100:
            answer["TTL"] = (int(answer["TTL"]) + 500) // 1000
    if name == "Cluster/MemberList":
        for member in answer["members"]:
            member.update(ID="*", peerURLs=len(member["peerURLs"]),
                          clientURLs=len(member["clientURLs"]))
    if name == "Maintenance/Status":
        return {"header": answer["header"], "fields": "leader" in answer and "raftTerm" in answer}
    return answer


def is_crash(request):
    """3.4 and 3.5 die of a sort target that they do not know."""
    return request.sort_target not in range(5) or request.sort_order not in range(3)


def ranges_of(request):
    if isinstance(request, rpc.RangeRequest):
        yield request
    if isinstance(request, rpc.TxnRequest):
        for op in list(request.success) + list(request.failure):
            yield from ranges_of(getattr(op, op.WhichOneof("request") or "", None))


STATE_REFUSALS = {
    "etcdserver: mvcc: required revision has been compacted",
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: requested lease not found", "etcdserver: key not found",
}


def tolerated(name, request, ours, theirs):
    """Why a difference is one between the oracle and 3.7.1; None if it is not."""
    if any(each.limit > 0 and each.sort_order == 0 and each.sort_target != 0
           for each in ranges_of(request)):
        return "order NONE with a target and a limit: 3.4 cuts before it sorts"
    if all(text.startswith("grpc: error unmarshalling request: ") for text in (ours[1], theirs[1])):
        return "bytes that are no message: each says in its words why"
    if name == "KV/Txn" and {ours[1], theirs[1]} <= STATE_REFUSALS:
        return "two reasons to refuse a txn: 3.4 looks at puts first, 3.7 in order"
    if name == "KV/Txn" and ours[1] == "etcdserver: duplicate key given in txn request" \
            and overlaps_unseen(request):
        return "a put within a delete that etcd overlooks"
    return None


def overlaps_unseen(request):
    """Whether a txn deletes `from a key on`, or deletes in one nested txn what an earlier one put.

    etcd takes the end `\\0` for the key `\\0` when it looks for puts within deletes, and holds a
    nested txn's deletes against no puts of earlier ones; then it writes one key twice in a
    revision. One revision of a key has one version here, so these are refused like the others.
    """
    ops = list(request.success) + list(request.failure)
    kinds = [op.WhichOneof("request") for op in ops]
    if any(op.request_delete_range.range_end == b"\0" for op in ops):
        return True
    if kinds.count("request_txn") >= 2:
        return True
    return any(overlaps_unseen(op.request_txn) for op in ops if op.HasField("request_txn"))


class Watching:
    """A Watch stream of one server, with all it has sent."""

    def __init__(self, server):
        self.waiting = []
        self.ready = threading.Condition()
        self.closed = False
        self.responses = []
        self.error = None
        self.call = server.stream("Watch/Watch", self.requests())
        threading.Thread(target=self.read, daemon=True).start()

    def requests(self):
        while True:
            with self.ready:
                self.ready.wait_for(lambda: self.waiting or self.closed)
                if not self.waiting:
                    return
                request = self.waiting.pop(0)
            yield request

    def send(self, **union):
        with self.ready:
            self.waiting.append(rpc.WatchRequest(**union))
            self.ready.notify_all()

    def read(self):
        try:
            for response in self.call:
                self.responses.append((time.monotonic(), response))
        except v3_wire.grpc.RpcError as error:
            self.error = f"{error.code().name}: {error.details()}"

    def controls(self):
        return sum(each.created or each.canceled for _, each in list(self.responses))

    def settle(self):
        """Waits until nothing more comes."""
        last = -1
        while len(self.responses) != last:
            last = len(self.responses)
            time.sleep(QUIET_S)

    def close(self):
        with self.ready:
            self.closed = True
            self.ready.notify_all()
        self.call.cancel()

    def by_watcher(self):
        """For each watcher, control responses and events in order, however they were grouped."""
        told = {}
        for _, response in self.responses:
            seen = told.setdefault(response.watch_id, [])
            if response.created or response.canceled:
                control = plain(response)
                control.pop("events", None)
                seen.append(control)
            seen.extend(plain(event) for event in response.events)
        return told

    def broken_promises(self):
        """What no answer may show, whatever the other server says."""
        last = {}
        for _, response in self.responses:
            revisions = [event.kv.mod_revision for event in response.events]
            if revisions != sorted(revisions):
                yield f"unordered events {revisions}"
            if revisions and revisions[0] < last.get(response.watch_id, 0):
                yield f"watcher {response.watch_id} went back to {revisions[0]}"
            if revisions and revisions[-1] > response.header.revision:
                yield f"header {response.header.revision} behind event {revisions[-1]}"
            if revisions:
                # A revision comes whole, so the next response starts after it.
                whole = 0 if response.fragment else 1
                last[response.watch_id] = revisions[-1] + whole


class Round:
    """One seed on two fresh servers."""

    def __init__(self, seed, steps, servers):
        self.seed, self.steps, self.servers = seed, steps, servers
        self.maker = Maker(random.Random(seed))
        self.watching = [Watching(server) for server in servers]
        self.ids = set()
        self.differences = []
        self.tolerated = {}
        self.calls = 0
        # Where compactions were: a watch that starts there is shown no deletes of it by 3.4.
        self.compacted = set()

    def run(self):
        steps = unary_steps(self.maker)
        weights = [weight for weight, _, _ in steps]
        for step in range(self.steps):
            kind = self.maker.chance.random()
            if kind < 0.06:
                self.watch_step(step)
            elif kind < 0.08:
                self.keep_alive(step)
            else:
                _, name, make = self.maker.chance.choices(steps, weights)[0]
                self.unary(step, name, make())
            if self.differences:
                break
        self.end_watches()

    def differ(self, step, what, ours, theirs):
        self.differences.append(
            f"seed {self.seed} step {step}: {what}\n    ours:   {ours}\n    oracle: {theirs}")

    def unary(self, step, name, request):
        metadata = self.maker.chance.choice(METADATA)
        sent = request
        if self.maker.often(0.03) and request.ByteSize() < 4096:
            # A message twice in one: scalars are replaced, repeated fields go on.
            sent = request.SerializeToString() * 2
            request.MergeFrom(type(request).FromString(request.SerializeToString()))
        if self.maker.often(0.04) and name.startswith("KV/") and request.ByteSize() < 4096:
            sent = self.garbled(request)
            try:
                request = type(request).FromString(sent)
            except v3_wire.DecodeError:
                return self.undecodable(step, name, sent)
            if name == "KV/Compact" or any(map(is_crash, ranges_of(request))):
                return None
        if self.watching and name == "KV/Compact":
            # What stood before an event is looked up when it is sent.
            for each in self.watching:
                each.settle()
        answers = [server.call(name, sent, metadata) for server in self.servers]
        self.calls += 1
        shown = [(code, text, answer and normal(name, answer)) for code, text, answer in answers]
        header = answers[0][2] is not None and getattr(answers[0][2], "header", None)
        if header and header.revision:
            self.maker.revision = header.revision
        if name == "KV/Compact" and answers[0][2]:
            self.compacted.add(str(request.revision))
        if shown[0] != shown[1]:
            reason = tolerated(name, request, *shown)
            if reason is None:
                short = text_format.MessageToString(request, as_one_line=True)[:1500]
                return self.differ(step, f"{name} {short} {metadata}", *shown)
            self.tolerated[reason] = self.tolerated.get(reason, 0) + 1
            if "OK" in (shown[0][0], shown[1][0]):
                # Only one of them wrote: from here on they are two stores.
                raise Diverged
        return None

    def garbled(self, request):
        """A message with a few bytes changed, lost or doubled."""
        sent = bytearray(request.SerializeToString() + bytes(self.maker.often(0.2)))
        for _ in range(self.maker.chance.randint(1, 3)):
            at = self.maker.chance.randint(0, max(0, len(sent) - 1))
            change = self.maker.chance.randint(0, 2)
            sent[at:at + (change > 0)] = bytes([self.maker.chance.randint(0, 255)] * (change < 2))
        return bytes(sent)

    def undecodable(self, step, name, sent):
        """Both refuse bytes that are no message; what they say of them is their own."""
        codes = [server.call(name, sent)[0] for server in self.servers]
        self.calls += 1
        if codes[0] != codes[1]:
            self.differ(step, f"{name} {sent!r}", *codes)

    def keep_alive(self, step):
        ids = [self.maker.lease() for _ in range(self.maker.chance.randint(1, 3))]
        shown = []
        for server in self.servers:
            requests = iter([rpc.LeaseKeepAliveRequest(ID=id_) for id_ in ids])
            try:
                answers = list(server.stream("Lease/LeaseKeepAlive", requests, timeout=10))
                shown.append([plain(answer) for answer in answers])
            except v3_wire.grpc.RpcError as error:
                shown.append(f"{error.code().name}: {error.details()}")
        self.calls += 1
        if shown[0] != shown[1]:
            self.differ(step, f"keep alive {ids}", *shown)

    def watch_step(self, step):
        """Creates or cancels a watcher on both streams, and waits for the answers."""
        self.calls += 1
        if self.ids and self.maker.often(0.3):
            id_ = self.maker.chance.choice(sorted(self.ids | {99}))
            known = id_ in self.ids
            self.ids.discard(id_)
            # What is on its way to the watcher is sent or not, as it happens.
            for each in self.watching:
                each.settle()
            self.control(step, known, cancel_request=rpc.WatchCancelRequest(watch_id=id_))
        else:
            request = self.maker.watch()
            if self.ids and self.maker.often(0.1):
                # Again an id; etcd keeps one that a compaction ended until the client cancels it.
                alive = sorted(self.ids - self.ended_by_compaction())
                request.watch_id = self.maker.chance.choice(alive or [0])
            self.control(step, True, create_request=request)
            created = self.watching[0].responses
            self.ids |= {each.watch_id for _, each in created if each.created} - {-1}
            self.ids -= {each.watch_id for _, each in created if each.canceled}

    def ended_by_compaction(self):
        """Ids of watchers that either server ended, or is about to."""
        for each in self.watching:
            each.settle()
        return {response.watch_id for each in self.watching
                for _, response in each.responses if response.compact_revision}

    def control(self, step, answered, **union):
        before = [each.controls() for each in self.watching]
        for each in self.watching:
            each.send(**union)
        deadline = time.monotonic() + (BARRIER_S if answered else 0.1)
        while time.monotonic() < deadline:
            if all(each.controls() > was for each, was in zip(self.watching, before)):
                return
            if not self.servers[0].alive() or self.watching[0].error:
                break
            time.sleep(0.002)
        if answered:
            self.differ(step, f"no answer to {union}", self.watching[0].error,
                        self.watching[1].error)

    def comparable(self, seen):
        return [each for each in seen if each.get("type") != "DELETE"
                or each["kv"]["mod_revision"] not in self.compacted]

    def end_watches(self):
        for each in self.watching:
            each.settle()
        told = [each.by_watcher() for each in self.watching]
        for id_ in sorted({*told[0], *told[1]}):
            ours, theirs = (self.comparable(each.get(id_, [])) for each in told)
            if ours != theirs:
                at = next((i for i, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]),
                          min(len(ours), len(theirs)))
                created = [entry for entry in ours if "created" in entry]
                what = f"watcher {id_} {created} item {at} of {len(ours)}/{len(theirs)}"
                self.differ("end", what, ours[at:at + 3], theirs[at:at + 3])
        for broken in self.watching[0].broken_promises():
            self.differences.append(f"seed {self.seed}: {broken}")
        errors = [each.error for each in self.watching]
        if errors != [None, None]:
            self.differ("end", "a watch stream ended", *errors)
        for each in self.watching:
            each.close()


class Diverged(Exception):
    """The servers did different things for a reason that is known."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True)
    parser.add_argument("--oracle", default="/usr/bin/etcd")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    calls, wrong, reasons = 0, 0, {}
    for seed in range(arguments.seed, arguments.seed + arguments.rounds):
        servers = [Server(arguments.server), Server(arguments.oracle)]
        played = Round(seed, arguments.steps, servers)
        try:
            played.run()
        except Diverged:
            for each in played.watching:
                each.close()
        finally:
            for server in servers:
                server.stop()
        calls += played.calls
        wrong += bool(played.differences)
        for reason, count in played.tolerated.items():
            reasons[reason] = reasons.get(reason, 0) + count
        for each in played.differences:
            print(each, flush=True)
    for reason, count in sorted(reasons.items()):
        print(f"  {count} x {reason}")
    print(f"v3 against {arguments.oracle}: {calls} calls in {arguments.rounds} rounds, "
          f"{wrong} rounds differ")
    sys.exit(1 if wrong or not calls else 0)


if __name__ == "__main__":
    main()
