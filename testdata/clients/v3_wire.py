"""What v3_replay.py and v3_diff.py share: stubs made from our own .proto files, a server, a call.

Needs grpcio and grpcio-tools; REQUIREMENTS.txt beside this file pins them.
"""

import importlib
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import grpc
from google.protobuf.message import DecodeError  # noqa: F401, for the scripts
from grpc_tools import protoc

HERE = os.path.dirname(os.path.abspath(__file__))
PROTO = os.path.join(HERE, "../../crates/proto/proto")
# As etcd's own client: nothing is too large to receive.
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def stubs():
    """The modules (rpc_pb2, kv_pb2, health_pb2), generated into a folder that is gone at the end."""
    with tempfile.TemporaryDirectory() as out:
        files = sorted(name for name in os.listdir(PROTO) if name.endswith(".proto"))
        if protoc.main(["", f"-I{PROTO}", f"--python_out={out}", *files]) != 0:
            raise SystemExit("protoc failed")
        sys.path.insert(0, out)
        names = ("rpc_pb2", "kv_pb2", "health_pb2")
        return [importlib.import_module(name) for name in names]


rpc, kv, health = stubs()


def free_ports():
    """Two neighbouring ports below the ephemeral range."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        try:
            for each in (port, port + 1):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", each))
            return port, port + 1
        except OSError:
            continue


class Server:
    """A fresh member of one, started as etcd is started."""

    def __init__(self, binary, args=()):
        client, peer = free_ports()
        self.target = f"127.0.0.1:{client}"
        self.dir = tempfile.mkdtemp(prefix="v3-")
        peers = f"http://127.0.0.1:{peer}"
        clients = f"http://{self.target}"
        self.log = open(os.path.join(self.dir, "log"), "ab")
        self.process = subprocess.Popen(
            [binary, "--name", "m", "--data-dir", os.path.join(self.dir, "data"),
             "--listen-client-urls", clients, "--advertise-client-urls", clients,
             "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
             "--initial-cluster", f"m={peers}", *args],
            stdout=self.log, stderr=self.log)
        self.channel = grpc.insecure_channel(self.target, OPTIONS)
        for _ in range(200):
            code, _, answer = self.call("KV/Range", rpc.RangeRequest(key=b"x"), timeout=1)
            if code == "OK":
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise SystemExit(f"{binary} does not serve; see {self.dir}/log")

    def alive(self):
        return self.process.poll() is None

    def stop(self):
        self.channel.close()
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def call(self, name, request, metadata=(), timeout=20):
        """Calls a unary method; (code name, message, answer or None)."""
        path, _, output = method(name)
        callable_ = self.channel.unary_unary(
            path, request_serializer=serialize, response_deserializer=output.FromString)
        try:
            return "OK", "", callable_(request, metadata=metadata, timeout=timeout)
        except grpc.RpcError as error:
            return error.code().name, error.details(), None

    def stream(self, name, requests, timeout=None):
        """Opens a bidirectional call on an iterator of requests."""
        path, _, output = method(name)
        callable_ = self.channel.stream_stream(
            path, request_serializer=serialize, response_deserializer=output.FromString)
        return callable_(requests, timeout=timeout)


def serialize(request):
    return request if isinstance(request, bytes) else request.SerializeToString()


def method(name):
    """A method named `Service/Method`: its path, and its messages."""
    service, method_name = name.split("/")
    file = health.DESCRIPTOR if service == "Health" else rpc.DESCRIPTOR
    described = file.services_by_name[service]
    found = described.methods_by_name[method_name]
    module = health if service == "Health" else rpc
    return (f"/{described.full_name}/{method_name}",
            getattr(module, found.input_type.name), getattr(module, found.output_type.name))
