package sdgrpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "example.com/sdgrpc/v1"
)

const (
	defaultPatience = 10 * time.Second
	// mostResumptions is how often a job is begun anew: what ends server after server is not to end all of them.
	mostResumptions = 5
	firstWait       = 100 * time.Millisecond
	longestWait     = 2 * time.Second
	// clockTolerance is by what a proxy's or server's clock may run ahead of ours.
	clockTolerance = 50 * time.Millisecond
)

// WithResume says for how long a call is tried again that was cut once its job was accepted, by the end of its
// server or of the connection, until a server takes it: ten seconds unless this says otherwise, 0 for never.
// The same request is sent with the seed and the id that `accepted` told, and events that were seen are left out.
// With a server that shares no UNet calls (`--no-batching`) the pictures are the same to the byte.
func WithResume(patience time.Duration) Option {
	return func(chosen *options) { chosen.patience = patience }
}

// resumption is what of a job was seen, and what to send next.
type resumption struct {
	request  proto.Message
	patience time.Duration

	accepted, finished bool
	seen               map[eventKey]bool
	firstFailure       error
	cutAt              time.Time
	wait               time.Duration
	count              int
}

// eventKey is what an event of a job is, whoever draws it.
type eventKey struct {
	kind   string
	number int64
}

func newResumption(request proto.Message, patience time.Duration) *resumption {
	return &resumption{
		request: proto.Clone(request), patience: patience, seen: map[eventKey]bool{}, wait: firstWait,
	}
}

// isNew takes note of an event, and tells whether it was not seen before.
func (r *resumption) isNew(message *pb.JobEvent) bool {
	if r.firstFailure != nil { // a server has taken it up
		r.firstFailure, r.wait = nil, firstWait
		r.count++
	}
	key := keyOf(message)
	if r.seen[key] {
		return false
	}
	r.seen[key] = true
	r.accepted = true
	r.finished = r.finished || message.GetFinished() != nil
	r.note(message)
	return true
}

// sawAllBefore tells whether nothing came after the event that Attach was told.
func (r *resumption) sawAllBefore() bool {
	request, attached := r.request.(*pb.AttachJobRequest)
	return attached && request.AfterSequence != nil && len(r.seen) == 0
}

// note makes the request the one that goes on from here.
func (r *resumption) note(message *pb.JobEvent) {
	if request, attached := r.request.(*pb.AttachJobRequest); attached {
		request.AfterSequence = proto.Int64(message.GetSequence())
		return
	}
	accepted := message.GetAccepted()
	if accepted == nil {
		return
	}
	id, seed := message.GetRequestId(), accepted.GetSampling().GetSeed()
	switch request := r.request.(type) {
	case *pb.GenerateRequest:
		request.RequestId, request.Sampling = id, seeded(request.Sampling, seed)
	case *pb.TransformRequest:
		request.RequestId, request.Sampling = id, seeded(request.Sampling, seed)
	case *pb.InpaintRequest:
		request.RequestId, request.Sampling = id, seeded(request.Sampling, seed)
	}
}

func seeded(sampling *pb.Sampling, seed int64) *pb.Sampling {
	if sampling == nil {
		sampling = &pb.Sampling{}
	}
	sampling.Seed = proto.Int64(seed)
	return sampling
}

func keyOf(message *pb.JobEvent) eventKey {
	switch event := message.GetEvent().(type) {
	case *pb.JobEvent_Accepted:
		return eventKey{"accepted", 0}
	case *pb.JobEvent_Prepared:
		return eventKey{"prepared", 0}
	case *pb.JobEvent_Progress:
		return eventKey{"progress", int64(event.Progress.GetStep())}
	case *pb.JobEvent_Image:
		return eventKey{"image", int64(event.Image.GetIndex())}
	case *pb.JobEvent_Finished:
		return eventKey{"finished", 0}
	}
	return eventKey{"", message.GetSequence()}
}

// waitAfter is in how long to send the request again; false where the job is over.
func (r *resumption) waitAfter(failure error) (time.Duration, bool) {
	if !r.accepted || r.finished || !isCut(failure) || r.count >= mostResumptions {
		return 0, false
	}
	if r.firstFailure == nil {
		r.firstFailure, r.cutAt = failure, time.Now()
	}
	wait := r.wait
	if known := (*Error)(nil); errors.As(failure, &known) {
		wait = max(wait, known.RetryAfter)
	}
	r.wait = min(2*r.wait, longestWait)
	return wait, time.Since(r.cutAt)+wait <= r.patience
}

// failureAfter is what ended the job: how it was cut, where nobody took it up. A proxy resets the stream at the
// deadline, perhaps before this side's clock has come to it.
func (r *resumption) failureAfter(ctx context.Context, failure error) error {
	if deadline, set := ctx.Deadline(); set && time.Until(deadline) <= clockTolerance && isReset(failure) {
		return errorOf(status.FromContextError(context.DeadlineExceeded).Err())
	}
	if r.firstFailure != nil && isCut(failure) {
		return r.firstFailure
	}
	return failure
}

// isCut tells whether a call ended because its server or connection did, or because there is none yet.
func isCut(failure error) bool {
	if errors.Is(failure, ErrIncomplete) || isReset(failure) {
		return true
	}
	var known *Error
	return errors.As(failure, &known) && known.Code == codes.Unavailable
}

// isReset tells whether the stream was reset, which is no server's word.
func isReset(failure error) bool {
	var known *Error
	return errors.As(failure, &known) && known.Reason == "" &&
		(known.Code == codes.Internal || known.Code == codes.Unknown)
}

// pause waits, and returns the context's failure if it ends before.
func pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return errorOf(status.FromContextError(ctx.Err()).Err())
	}
}
