"""Replays the answers recorded from etcd 3.7.1's JSON gateway over gRPC.

  v3_replay.py --server BIN [--only kv_range,txn] [--recording testdata/conformance/v3.json]

Scenarios: kv_range, txn, compaction, lease; each on a fresh member. A recorded HTTP answer is
compared as protobuf's JSON form; a refusal by its gRPC code and message. Steps are left out, and
counted, that only JSON can say (an enum by an unknown name) or that ask for what is not served yet.
"""

import argparse
import base64
import json
import os
import queue
import re
import sys
import threading
import time

from google.protobuf import json_format

import v3_wire
from v3_wire import Server

SCENARIOS = ["kv_range", "txn", "compaction", "lease"]
METHODS = {
    "/v3/kv/range": "KV/Range", "/v3/kv/put": "KV/Put", "/v3/kv/deleterange": "KV/DeleteRange",
    "/v3/kv/txn": "KV/Txn", "/v3/kv/compaction": "KV/Compact", "/v3/watch": "Watch/Watch",
    "/v3/lease/grant": "Lease/LeaseGrant", "/v3/lease/revoke": "Lease/LeaseRevoke",
    "/v3/kv/lease/revoke": "Lease/LeaseRevoke", "/v3/lease/keepalive": "Lease/LeaseKeepAlive",
    "/v3/lease/timetolive": "Lease/LeaseTimeToLive",
    "/v3/kv/lease/timetolive": "Lease/LeaseTimeToLive",
    "/v3/lease/leases": "Lease/LeaseLeases", "/v3/kv/lease/leases": "Lease/LeaseLeases",
}
ANY = {"cluster_id", "member_id", "raft_term", "hash"}
REVISIONS = {"revision", "create_revision", "mod_revision", "compact_revision"}
CODES = {code.name: code.value[0] for code in v3_wire.grpc.StatusCode}


class Replay:
    def __init__(self, server):
        self.server = server
        request = v3_wire.rpc.RangeRequest(key=b"x", count_only=True)
        self.base = server.call("KV/Range", request)[2].header.revision
        self.captured = {}

    def fill(self, value):
        """A request with its placeholders filled."""
        if isinstance(value, dict):
            return {name: self.fill(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self.fill(each) for each in value]
        if isinstance(value, str):
            return re.sub(r"\{\{([^}]+)\}\}", lambda found: self.placeholder(found[1]), value)
        return value

    def placeholder(self, name):
        if name.startswith("b64zeros:"):
            count = int(name.removeprefix("b64zeros:"))
            return base64.b64encode(bytes(count)).decode()
        if name[:2] in ("R+", "R-"):
            return str(self.base + int(name[1:]))
        return str(self.captured[name])

    def normal(self, value, name=""):
        """An answer with placeholders where it differs from run to run."""
        if isinstance(value, dict):
            return {name: self.normal(each, name) for name, each in value.items()}
        if isinstance(value, list):
            return [self.normal(each, name) for each in value]
        if name in ANY:
            return "{{any}}"
        if isinstance(value, str):
            for known, captured in self.captured.items():
                if len(captured) > 3 and captured == value:
                    return "{{%s}}" % known
            if name in REVISIONS:
                return "{{R%+d}}" % (int(value) - self.base)
        return value

    def step(self, step):
        """Differences of one step; None if it cannot be said over gRPC."""
        name = METHODS.get(step["path"])
        if name is None:
            return None
        time.sleep(step.get("sleep", 0))
        body = json.loads(step["raw"]) if "raw" in step else step.get("body", {})
        _, message, _ = v3_wire.method(name)
        try:
            request = json_format.ParseDict(self.fill(body), message())
        except json_format.ParseError:
            return None
        if "stream" in step:
            answer = self.stream(name, request, len(step["messages"]))
        else:
            code, text, response = self.server.call(name, request)
            answer = to_json(response) if code == "OK" else {"code": CODES[code], "message": text}
        expected = step["messages"] if "stream" in step else step["json"]
        for variable, path in step.get("capture", {}).items():
            self.captured[variable] = lookup(answer, path)
        answer = self.normal(answer)
        for path in step.get("ignore", []):
            ignore(answer, path)
        return differences(expected, answer)

    def stream(self, name, request, wanted):
        requests = queue.Queue()
        requests.put(request)
        call = self.server.stream(name, iter(requests.get, None))
        answers = queue.Queue()

        def read():
            try:
                for answer in call:
                    answers.put({"result": to_json(answer)})
            except v3_wire.grpc.RpcError as error:
                answers.put({"error": error.details()})

        threading.Thread(target=read, daemon=True).start()
        messages = []
        try:
            while len(messages) < wanted:
                messages.append(answers.get(timeout=5))
            messages.append(answers.get(timeout=0.2))  # One too many is a difference.
        except queue.Empty:
            pass
        requests.put(None)
        call.cancel()
        return messages


def to_json(message):
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def lookup(answer, path):
    for part in path.split("."):
        answer = answer[int(part)] if isinstance(answer, list) else answer[part]
    return answer


def ignore(answer, path):
    *parents, last = path.split(".")
    try:
        for part in parents:
            answer = answer[int(part)] if isinstance(answer, list) else answer[part]
        if isinstance(answer, list):
            answer[int(last)] = "{{any}}"
        elif last in answer:
            answer[last] = "{{any}}"
    except (KeyError, IndexError):
        pass


def differences(expected, answer, path=""):
    if expected == "{{any}}":
        return []
    if isinstance(expected, dict) and isinstance(answer, dict):
        found = []
        for name in sorted({*expected, *answer}):
            if name not in answer:
                found.append(f"{path}.{name}: missing, recorded {expected[name]!r}")
            elif name not in expected:
                found.append(f"{path}.{name}: not recorded, answered {answer[name]!r}")
            else:
                found += differences(expected[name], answer[name], f"{path}.{name}")
        return found
    if isinstance(expected, list) and isinstance(answer, list) and len(expected) == len(answer):
        return [line for i, pair in enumerate(zip(expected, answer))
                for line in differences(*pair, f"{path}[{i}]")]
    same = expected == answer
    return [] if same else [f"{path}: recorded {expected!r}, answered {answer!r}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True)
    parser.add_argument("--only", default=",".join(SCENARIOS))
    recording = os.path.join(v3_wire.HERE, "../conformance/v3.json")
    parser.add_argument("--recording", default=recording)
    arguments = parser.parse_args()
    with open(arguments.recording) as file:
        scenarios = json.load(file)["scenarios"]
    played = left_out = different = 0
    for scenario in scenarios:
        if scenario["name"] not in arguments.only.split(","):
            continue
        server = Server(arguments.server, scenario["server_args"])
        try:
            replay = Replay(server)
            for step in scenario["steps"]:
                found = replay.step(step)
                if found is None:
                    left_out += 1
                    continue
                played += 1
                if found:
                    different += 1
                    print(f"{scenario['name']} step {step['n']} {step['path']} {step['note']}")
                    print("".join(f"    {line[:400]}\n" for line in found), end="")
        finally:
            server.stop()
    print(f"v3 over gRPC: {played} recorded answers, {different} differ, {left_out} left out")
    sys.exit(1 if different or not played else 0)


if __name__ == "__main__":
    main()
