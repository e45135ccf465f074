"""As much of Kubernetes' interface as a controller needs that only watches objects which never change."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = Mapping[str, Any]
RESOURCES: Mapping[str, str] = {"Pod": "pods", "InferencePool": "inferencepools"}
"""Kinds that are served, and what they are called in paths."""


class Cluster(ThreadingHTTPServer):
    """Answers for some objects, by the group and version that they name."""

    daemon_threads = True

    def __init__(self, objects: Sequence[Object]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects = [dict(one) for one in objects]
        for number, one in enumerate(self.objects):
            one["metadata"] = {"resourceVersion": "1", "uid": str(number), **one["metadata"]}
        self.ends = threading.Event()

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str) -> Object | None:
        """What a path has: the groups, what is in one, or a list of objects."""
        versions = {one["apiVersion"] for one in self.objects} | {"v1"}
        named = [version.partition("/")[::2] for version in sorted(versions) if "/" in version]
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            served = [{"groupVersion": f"{group}/{version}", "version": version} for group, version in named]
            groups = [
                {"name": group, "versions": [one], "preferredVersion": one}
                for (group, _), one in zip(named, served, strict=True)
            ]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        for version in versions:
            base = f"/apis/{version}" if "/" in version else f"/api/{version}"
            if path == base:
                return {"kind": "APIResourceList", "groupVersion": version, "resources": self.kinds(version)}
            for kind, name in RESOURCES.items():
                if path.startswith(base) and path.endswith(f"/{name}"):
                    return self.listed(version, kind)
        return None

    def kinds(self, version: str) -> list[Object]:
        """What a version has."""
        return [
            {"name": name, "kind": kind, "namespaced": True, "verbs": ["get", "list", "watch"]}
            for kind, name in RESOURCES.items()
            if self.listed(version, kind)["items"]
        ]

    def listed(self, version: str, kind: str) -> Mapping[str, Any]:
        items = [one for one in self.objects if (one["apiVersion"], one["kind"]) == (version, kind)]
        metadata = {"resourceVersion": "1"}
        return {"apiVersion": version, "kind": f"{kind}List", "metadata": metadata, "items": items}


class _Handler(BaseHTTPRequestHandler):
    server: Cluster
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer; a watch is told what there is where it asks for that, and then nothing any more."""
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        found = self.server.answer(url.path)
        if found is not None and asked.get("watch") in {"true", "1"}:
            self._watch(found, whole=asked.get("sendInitialEvents") == "true")
            return
        body = json.dumps(found or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404})
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def _watch(self, found: Object, *, whole: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        if whole:
            events = [{"type": "ADDED", "object": one} for one in found["items"]]
            metadata = {"resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}}
            end = {"apiVersion": found["apiVersion"], "kind": found["kind"].removesuffix("List")}
            events.append({"type": "BOOKMARK", "object": {**end, "metadata": metadata}})
            self.wfile.write("".join(f"{json.dumps(event)}\n" for event in events).encode())
            self.wfile.flush()
        self.close_connection = True
        self.server.ends.wait()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def cluster(objects: Sequence[Object]) -> Iterator[Cluster]:
    """Serve objects for the block."""
    with Cluster(objects) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            served.ends.set()
            served.shutdown()
            thread.join()
