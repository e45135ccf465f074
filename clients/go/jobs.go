package sdgrpc

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "example.com/sdgrpc/v1"
)

// Events are what a job tells, in order, and last of all the error that ended it, if any: an *Error where
// the call failed, ErrIncomplete where it ended too early. The call is made when the loop begins, and each
// loop is a call of its own; leaving the loop cancels the job, unless its request has OnDisconnect KEEP. A call
// that is cut is resumed, see WithResume.
type Events = iter.Seq2[Event, error]

// ErrIncomplete means that a stream ended without an error and without its last event.
var ErrIncomplete = errors.New("the stream ended before `finished`")

// Generate draws images from a prompt.
func (c *Client) Generate(ctx context.Context, request *pb.GenerateRequest) Events {
	return events(ctx, c.patience, request, c.diffusion.Generate)
}

// Transform redraws an image under a prompt (img2img).
func (c *Client) Transform(ctx context.Context, request *pb.TransformRequest) Events {
	return events(ctx, c.patience, request, c.diffusion.Transform)
}

// Inpaint redraws the masked part of an image under a prompt.
func (c *Client) Inpaint(ctx context.Context, request *pb.InpaintRequest) Events {
	return events(ctx, c.patience, request, c.diffusion.Inpaint)
}

// Upscale enlarges a picture by one of the server's upscalers: `accepted`, `progress` for each tile, and the `image`.
// Leaving the loop ends the call. A call that is cut is not made again.
func (c *Client) Upscale(ctx context.Context, request *pb.UpscaleRequest) iter.Seq2[*pb.UpscaleEvent, error] {
	return messages(ctx, request, c.diffusion.Upscale)
}

// open is how the generated client starts a server stream.
type open[Request, Message any] func(
	context.Context, *Request, ...grpc.CallOption,
) (grpc.ServerStreamingClient[Message], error)

func events[Request any](
	ctx context.Context, patience time.Duration, request *Request, call open[Request, pb.JobEvent],
) Events {
	return func(yield func(Event, error) bool) {
		run := newResumption(named(any(request).(proto.Message)), patience)
		for {
			left, cut := run.read(messages(routed(ctx, run.request), any(run.request).(*Request), call), yield)
			if left || cut == nil {
				return
			}
			wait, again := run.waitAfter(cut)
			if again {
				if ended := pause(ctx, wait); ended == nil {
					continue
				} else {
					cut = ended
				}
			}
			yield(nil, run.failureAfter(ctx, cut))
			return
		}
	}
}

// read hands on what is new of one call's events. It tells whether the loop was left, and what cut the call.
func (r *resumption) read(call iter.Seq2[*pb.JobEvent, error], yield func(Event, error) bool) (bool, error) {
	for message, err := range call {
		if err != nil {
			return false, err
		}
		if !r.isNew(message) {
			continue
		}
		if event := eventOf(message); event != nil && !yield(event, nil) {
			return true, nil
		}
	}
	if r.finished || r.sawAllBefore() {
		return false, nil
	}
	return false, ErrIncomplete
}

// messages reads a server stream to its end or to its failure; leaving the loop cancels the call.
func messages[Request, Message any](
	ctx context.Context, request *Request, call open[Request, Message],
) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := call(ctx, request)
		for {
			var message *Message
			if err == nil {
				message, err = stream.Recv()
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, errorOf(err))
				return
			}
			if !yield(message, nil) {
				return
			}
		}
	}
}

// Result is a finished job.
type Result struct {
	Accepted *Accepted
	Prepared *Prepared
	// Images are in the order of their index.
	Images   []*GeneratedImage
	Finished *Finished
}

// Collect waits for the end of a job and returns its images and what its events said.
func Collect(job Events) (*Result, error) {
	result := &Result{}
	for event, err := range job {
		if err != nil {
			return nil, err
		}
		switch event := event.(type) {
		case *Accepted:
			result.Accepted = event
		case *Prepared:
			result.Prepared = event
		case *GeneratedImage:
			result.Images = append(result.Images, event)
		case *Finished:
			result.Finished = event
		}
	}
	slices.SortFunc(result.Images, func(a, b *GeneratedImage) int { return cmp.Compare(a.Index, b.Index) })
	return result, nil
}
