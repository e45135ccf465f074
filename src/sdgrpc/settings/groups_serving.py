"""Settings of the port and who may come: serving, seeing inside, TLS, tokens, connections."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from sdgrpc.settings.kinds import (
    Address,
    Count,
    Factor,
    File,
    Metavar,
    Period,
    PlainAddress,
    Replicas,
    Seconds,
    Unset,
    Url,
)


class ServingSettings(BaseModel):
    """Serving."""

    listen: Address = Field(
        "127.0.0.1:50051",
        description="Where to listen; port 0 takes a free one. unix:/FOLDER/NAME is a socket, in a folder "
        "that only its user can enter.",
    )
    insecure: bool = Field(
        False, description="Listen without TLS on an address that other machines may reach."
    )
    reflection: bool = Field(True, description="Let tools read the contract from the server.")
    drain_delay: Seconds = Field(
        0.0,
        description="How long a stopping server still takes jobs while its health says that it leaves, for "
        "load balancers that notice late.",
    )
    drain_timeout: Seconds = Field(30.0, description="How long running jobs may take when the server stops.")


class ObservingSettings(BaseModel):
    """Seeing inside."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least that is logged; SIGUSR2 changes to debug and back."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="The log's lines, on standard error: for people or for programs."
    )
    metrics: Annotated[PlainAddress | None, Unset("no metrics")] = Field(
        None,
        description="Where Prometheus finds metrics, by plain HTTP without tokens; port 0 takes a free one.",
    )
    channelz: bool = Field(
        False,
        description="Answer grpc.channelz.v1: the connections and streams of the port, for grpcdebug.",
    )
    traces: Annotated[Url | None, Unset("OTEL_EXPORTER_OTLP_ENDPOINT, or no traces")] = Field(
        None,
        description="The OTLP receiver that spans go to, such as http://localhost:4317 (extra [telemetry]).",
    )


class TlsSettings(BaseModel):
    """TLS."""

    tls_certificate: Annotated[File | None, Unset("no TLS")] = Field(
        None, description="The server's certificate chain (PEM); with tls_key it turns TLS on."
    )
    tls_key: Annotated[File | None, Unset("no TLS")] = Field(
        None, description="The certificate's private key (PEM)."
    )
    tls_client_ca: Annotated[File | None, Unset("anybody may connect")] = Field(
        None, description="The authority (PEM) that must have signed a client's certificate."
    )


class TokenSettings(BaseModel):
    """Tokens."""

    token_file: Annotated[File | None, Unset("anybody may call")] = Field(
        None,
        description="Lines of `name: token`, read again when it changes; every call but health's must show "
        "one.",
    )
    max_running_jobs_per_token: Annotated[Count | None, Unset("as many as there is room for")] = Field(
        None, description="Jobs of one token that are drawn side by side; more of them wait."
    )
    max_queued_jobs_per_token: Annotated[Count | None, Unset("as many as there is room for")] = Field(
        None, description="Jobs of one token that may wait; further ones are refused."
    )


class ConnectionSettings(BaseModel):
    """Connections."""

    max_connections: Count = Field(1000, description="Connections at a time; further ones are closed.")
    handshake_timeout: Period = Field(
        20.0, description="How long a new connection may take until both sides have greeted."
    )
    connection_idle: Period = Field(
        120.0, description="A connection without calls is closed after this time."
    )
    connection_age: Period = Field(
        3600.0, description="A connection takes no new calls after this time; clients then make another."
    )
    connection_age_grace: Period = Field(
        86400.0,
        description="How long the calls of such a connection may still run; at least the longest job's time.",
    )


class ClusterSettings(BaseModel):
    """Many replicas."""

    cluster: Annotated[str | None, Unset("one process"), Metavar("local|HOST:PORT")] = Field(
        None,
        description="Draw in replicas on Ray (extra [cluster]): `local` starts it on this machine, HOST:PORT "
        "joins one.",
    )
    replicas: Replicas = Field(
        "1",
        description="Replicas of a cluster, each an engine in a process of its own. MIN:MAX lets their "
        "number follow the queue.",
    )
    replica_cpus: Annotated[Count | None, Unset("an equal share")] = Field(
        None, description="CPUs of each replica."
    )
    cluster_control: bool = Field(
        False, description="Answer ClusterService, with which whoever calls can drain and scale replicas."
    )
    affinity_factor: Factor = Field(
        1.5,
        description="A job goes where its LoRA set is, up to this many times the mean number of jobs.",
    )

    @model_validator(mode="after")
    def _check_cluster(self) -> Self:
        if self.cluster is None and self.replicas != "1":
            raise ValueError("replicas needs cluster: `local`, or the HOST:PORT of a Ray")
        return self
