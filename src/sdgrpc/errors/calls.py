"""Failures of jobs and calls: queues, memory, deadlines, connections, tokens, the server's end."""

from __future__ import annotations

from sdgrpc.errors.base import ResourceMissing, SdgrpcError


class QueueFull(SdgrpcError):
    """The queue is full; try again after `retry_after` seconds."""

    code = "RESOURCE_EXHAUSTED"
    reason = "QUEUE_FULL"


class TokenQueueFull(QueueFull):
    """As many jobs of one token wait as the operator allows; those of others may still find room."""

    reason = "TOKEN_QUEUE_FULL"


class OutOfMemory(SdgrpcError):
    """The device has no memory left for this job."""

    code = "RESOURCE_EXHAUSTED"
    reason = "OUT_OF_MEMORY"


class RequestInterrupted(SdgrpcError):
    """The client opened a call and did not send its request."""

    code = "ABORTED"
    reason = "REQUEST_INTERRUPTED"


class ReaderStalled(SdgrpcError):
    """The client did not read its answer."""

    code = "ABORTED"
    reason = "READER_STALLED"


class TooManyCalls(SdgrpcError):
    """As many calls of this kind as the server takes are running."""

    code = "RESOURCE_EXHAUSTED"
    reason = "TOO_MANY_CALLS"


class Unauthenticated(SdgrpcError):
    """The call showed no token, or none that is valid here."""

    code = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class JobNotFound(ResourceMissing):
    """No job of that id is kept for this caller."""

    reason = "JOB_NOT_FOUND"
    resource_type = "sdgrpc.v1.Job"


class NoCluster(SdgrpcError):
    """The server has no replicas."""

    code = "FAILED_PRECONDITION"
    reason = "NO_CLUSTER"


class ReplicaNotFound(ResourceMissing):
    """The cluster has no replica of that name, and none on a node of that address."""

    reason = "REPLICA_NOT_FOUND"
    resource_type = "sdgrpc.v1.ReplicaStatus"


class JobExists(SdgrpcError):
    """A job of that id is kept, and it is another."""

    code = "ALREADY_EXISTS"
    reason = "JOB_EXISTS"


class JobCancelled(SdgrpcError):
    """The job was ended by CancelJob."""

    code = "CANCELLED"
    reason = "JOB_CANCELLED"


class KeepingOff(SdgrpcError):
    """The operator lets no job outlive its connection."""

    code = "FAILED_PRECONDITION"
    reason = "KEEPING_OFF"


class KeepingFull(SdgrpcError):
    """What jobs that are kept may hold is used up."""

    code = "RESOURCE_EXHAUSTED"
    reason = "KEEPING_FULL"


class KeepingLost(SdgrpcError):
    """The job is another server's, and what the servers keep together cannot be asked for it now."""

    code = "UNAVAILABLE"
    reason = "KEEPING_LOST"


class Draining(SdgrpcError):
    """The server is stopping and takes no new jobs."""

    code = "UNAVAILABLE"
    reason = "DRAINING"


class EngineFailed(SdgrpcError):
    """The engine cannot go on: a thread of it died or hangs, or its device is lost. The process ends."""

    code = "UNAVAILABLE"
    reason = "ENGINE_FAILED"


class DeadlineTooSoon(SdgrpcError):
    """The job would not be, or was not, drawn by its deadline."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_TOO_SOON"


class Loading(SdgrpcError):
    """The server is up but its models are not loaded yet."""

    code = "UNAVAILABLE"
    reason = "LOADING"
