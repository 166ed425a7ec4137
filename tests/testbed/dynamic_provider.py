"""Drive Pulumi's own host of dynamic providers over gRPC, as the engine does, without the engine.

This exercises pickling, threads, numbers as floats, secrets and unknowns exactly as production does below the engine.
"""

import asyncio
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple

import grpc
from pulumi.dynamic import ResourceProvider
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.runtime import rpc
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

START_SECONDS = 30.0
CALL_SECONDS = 150.0


class Checked(NamedTuple):
    """What a check answered."""

    inputs: dict[str, Any]
    failures: dict[str, str]


class DynamicProvider:
    """A running provider host. Use as a context manager; `environment` replaces the inherited FARSHORE_ variables."""

    def __init__(self, provider: ResourceProvider, environment: Mapping[str, str]) -> None:
        self.blob = serialize_provider(provider)
        clean = {key: value for key, value in os.environ.items() if not key.startswith("FARSHORE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "pulumi.dynamic"],
            env=clean | dict(environment) | {"PULUMI_PROJECT": "project"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        if self.process.stdout is None:
            raise AssertionError("stdout is a pipe")
        ready, _, _ = select.select([self.process.stdout], [], [], START_SECONDS)
        port = self.process.stdout.readline().decode().strip() if ready else ""
        if not port:
            self.process.kill()
            raise RuntimeError("the dynamic provider host printed no port")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.stub = provider_pb2_grpc.ResourceProviderStub(self.channel)
        self.stub.Configure(provider_pb2.ConfigureRequest(args=self._struct({})), timeout=CALL_SECONDS)

    def __enter__(self) -> "DynamicProvider":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()
        self.process.terminate()
        _, self.stderr = self.process.communicate(timeout=10)

    def _struct(self, properties: Mapping[str, Any]) -> Any:
        return asyncio.run(rpc.serialize_properties(dict(properties), {}))

    def _with(self, properties: Mapping[str, Any]) -> Any:
        return self._struct({**properties, "__provider": self.blob})

    def check(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> Checked:
        """Ask for a validation, as every preview and update does."""
        request = provider_pb2.CheckRequest(olds=self._with(olds), news=self._with(news))
        answer = self.stub.Check(request, timeout=CALL_SECONDS)
        return Checked(_plain(answer.inputs), {failure.property: failure.reason for failure in answer.failures})

    def diff(self, identifier: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> tuple[bool, list[str]]:
        """Return whether there are changes, and what replaces."""
        request = provider_pb2.DiffRequest(id=identifier, olds=self._with(olds), news=self._with(news))
        answer = self.stub.Diff(request, timeout=CALL_SECONDS)
        return answer.changes == provider_pb2.DiffResponse.DIFF_SOME, list(answer.replaces)

    def create(self, props: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Create; return id and outputs."""
        answer = self.stub.Create(provider_pb2.CreateRequest(properties=self._with(props)), timeout=CALL_SECONDS)
        return answer.id, _plain(answer.properties)

    def read(self, identifier: str, props: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """Refresh; return id, outputs and inputs."""
        request = provider_pb2.ReadRequest(id=identifier, properties=self._with(props))
        answer = self.stub.Read(request, timeout=CALL_SECONDS)
        return answer.id, _plain(answer.properties), _plain(answer.inputs)

    def update(self, identifier: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dict[str, Any]:
        """Update; return outputs."""
        request = provider_pb2.UpdateRequest(id=identifier, olds=self._with(olds), news=self._with(news))
        return _plain(self.stub.Update(request, timeout=CALL_SECONDS).properties)

    def delete(self, identifier: str, props: Mapping[str, Any]) -> None:
        """Delete."""
        self.stub.Delete(provider_pb2.DeleteRequest(id=identifier, properties=self._with(props)), timeout=CALL_SECONDS)


def _plain(struct: Any) -> dict[str, Any]:
    found = dict(rpc.deserialize_properties(struct, True))
    found.pop("__provider", None)
    return found
