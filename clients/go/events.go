package sdgrpc

import (
	pb "example.com/sdgrpc/v1"
)

// Event is one of *Accepted, *Prepared, *Progress, *GeneratedImage and *Finished.
type Event interface {
	// About tells which job it is about, and which of the job's events it is.
	About() Meta
}

// Meta is what all events have.
type Meta struct {
	// RequestID is the request's, or one that the server made.
	RequestID string
	// Sequence is 0, 1, 2 … in a job.
	Sequence int64
}

// About returns the Meta itself.
func (m Meta) About() Meta { return m }

// Accepted is the first event: the request is valid, queued, and every default is filled in.
type Accepted struct {
	Meta
	*pb.Accepted
}

// Prepared is the second: the LoRA set is fused, the prompt encoded, steps begin.
type Prepared struct {
	Meta
	*pb.Prepared
}

// Progress comes after each denoising step, with previews where they were asked for.
type Progress struct {
	Meta
	*pb.Progress
}

// GeneratedImage is a finished image.
type GeneratedImage struct {
	Meta
	*pb.GeneratedImage
}

// Finished is the last event: every image was sent.
type Finished struct {
	Meta
	*pb.Finished
}

// eventOf types a message. It is nil for an event of a newer contract that this package does not know.
func eventOf(message *pb.JobEvent) Event {
	meta := Meta{RequestID: message.GetRequestId(), Sequence: message.GetSequence()}
	switch event := message.GetEvent().(type) {
	case *pb.JobEvent_Accepted:
		return &Accepted{meta, event.Accepted}
	case *pb.JobEvent_Prepared:
		return &Prepared{meta, event.Prepared}
	case *pb.JobEvent_Progress:
		return &Progress{meta, event.Progress}
	case *pb.JobEvent_Image:
		return &GeneratedImage{meta, event.Image}
	case *pb.JobEvent_Finished:
		return &Finished{meta, event.Finished}
	}
	return nil
}
