package sdgrpc

import (
	"context"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reason names a failure of the server more closely than its code.
type Reason string

// The reasons that a server gives.
const (
	InvalidRequest       Reason = "INVALID_REQUEST"         // InvalidArgument, with Violations
	ModelNotFound        Reason = "MODEL_NOT_FOUND"         // NotFound, with Resource
	LoraNotFound         Reason = "LORA_NOT_FOUND"          // NotFound, with Resource
	JobNotFound          Reason = "JOB_NOT_FOUND"           // NotFound, with Resource: not kept, or forgotten
	ReplicaNotFound      Reason = "REPLICA_NOT_FOUND"       // NotFound, with Resource: by DrainReplicas
	NoCluster            Reason = "NO_CLUSTER"              // FailedPrecondition: the server draws by itself
	JobExists            Reason = "JOB_EXISTS"              // AlreadyExists: another job of that id is kept
	JobCancelled         Reason = "JOB_CANCELLED"           // Canceled: by CancelJob
	KeepingOff           Reason = "KEEPING_OFF"             // FailedPrecondition: the server keeps no jobs
	KeepingFull          Reason = "KEEPING_FULL"            // ResourceExhausted: no memory to keep the job in
	KeepingLost          Reason = "KEEPING_LOST"            // Unavailable: the job is another server's, which cannot be asked now
	LoraUnusable         Reason = "LORA_UNUSABLE"           // FailedPrecondition
	LoraIncompatible     Reason = "LORA_INCOMPATIBLE"       // FailedPrecondition: for another base
	LoraMalformed        Reason = "LORA_MALFORMED"          // FailedPrecondition: broken
	LoraUnsupported      Reason = "LORA_UNSUPPORTED"        // FailedPrecondition: in a format that is not applied
	ModelUnusable        Reason = "MODEL_UNUSABLE"          // FailedPrecondition
	NotAnInpaintingModel Reason = "NOT_AN_INPAINTING_MODEL" // FailedPrecondition
	QueueFull            Reason = "QUEUE_FULL"              // ResourceExhausted, with RetryAfter
	TokenQueueFull       Reason = "TOKEN_QUEUE_FULL"        // ResourceExhausted, with RetryAfter: of this client's token
	OutOfMemory          Reason = "OUT_OF_MEMORY"           // ResourceExhausted
	UploadsOff           Reason = "UPLOADS_OFF"             // FailedPrecondition
	UploadInterrupted    Reason = "UPLOAD_INTERRUPTED"      // Aborted
	StorageFull          Reason = "STORAGE_FULL"            // ResourceExhausted: no room for uploads
	TooManyCalls         Reason = "TOO_MANY_CALLS"          // ResourceExhausted
	Unauthenticated      Reason = "UNAUTHENTICATED"         // Unauthenticated: no valid token, see WithToken
	RequestInterrupted   Reason = "REQUEST_INTERRUPTED"     // Aborted: the request did not arrive whole in time
	ReaderStalled        Reason = "READER_STALLED"          // Aborted: its events were not read
	DeadlineTooSoon      Reason = "DEADLINE_TOO_SOON"       // DeadlineExceeded: refused at once, it takes longer
	EngineFailed         Reason = "ENGINE_FAILED"           // Unavailable: the server ends, send it to another
	Draining             Reason = "DRAINING"                // Unavailable, with RetryAfter
	Loading              Reason = "LOADING"                 // Unavailable, with RetryAfter
	Internal             Reason = "INTERNAL"                // Internal: Metadata has the error_id of the server's log
)

// Error is a call that failed. Get it with errors.As; errors.Is tells a call that the context ended
// (context.Canceled, context.DeadlineExceeded).
type Error struct {
	Code    codes.Code
	Message string
	// Reason is empty if the failure did not come from an sdgrpc server, say without a connection.
	Reason   Reason
	Metadata map[string]string
	// Violations are all fields of the request that are wrong.
	Violations []Violation
	// Resource is what was not found, nil otherwise.
	Resource *Resource
	// RetryAfter is after how long trying again may help; 0 if the server did not say.
	RetryAfter time.Duration

	status *status.Status
}

// Violation is one field that is wrong: `loras[1].strength`, `1.5 is above 1.0`.
type Violation struct{ Field, Description string }

// Resource is something that the request names: `sdgrpc.v1.Lora`, `styles/ink`.
type Resource struct{ Type, Name string }

// Error says what failed in one line.
func (e *Error) Error() string {
	if e.Reason != "" {
		return string(e.Reason) + ": " + e.Message
	}
	return e.Code.String() + ": " + e.Message
}

// GRPCStatus returns the status as it came, for google.golang.org/grpc/status.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Is lets errors.Is tell a call that was cancelled, or whose deadline passed.
func (e *Error) Is(target error) bool {
	return e.Code == codes.Canceled && target == context.Canceled ||
		e.Code == codes.DeadlineExceeded && target == context.DeadlineExceeded
}

// errorOf types the error of a call.
func errorOf(err error) error {
	if err == nil {
		return nil
	}
	from := status.Convert(err)
	failure := &Error{Code: from.Code(), Message: from.Message(), status: from}
	for _, detail := range from.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			failure.Reason, failure.Metadata = Reason(detail.GetReason()), detail.GetMetadata()
		case *errdetails.BadRequest:
			for _, each := range detail.GetFieldViolations() {
				failure.Violations = append(failure.Violations, Violation{each.GetField(), each.GetDescription()})
			}
		case *errdetails.ResourceInfo:
			failure.Resource = &Resource{detail.GetResourceType(), detail.GetResourceName()}
		case *errdetails.RetryInfo:
			failure.RetryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	return failure
}
