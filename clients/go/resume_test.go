package sdgrpc_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"example.com/sdgrpc"
	pb "example.com/sdgrpc/v1"
)

// whole is a job's stream: accepted, prepared, two steps, two images, finished.
func whole() []*pb.JobEvent {
	accepted := &pb.Accepted{StepCount: 2, Sampling: &pb.Sampling{Seed: proto.Int64(1234), ImageCount: 2}}
	events := []*pb.JobEvent{
		{Event: &pb.JobEvent_Accepted{Accepted: accepted}},
		{Event: &pb.JobEvent_Prepared{Prepared: &pb.Prepared{}}},
		{Event: &pb.JobEvent_Progress{Progress: &pb.Progress{Step: 1, StepCount: 2}}},
		{Event: &pb.JobEvent_Progress{Progress: &pb.Progress{Step: 2, StepCount: 2}}},
		{Event: &pb.JobEvent_Image{Image: &pb.GeneratedImage{Index: 0}}},
		{Event: &pb.JobEvent_Image{Image: &pb.GeneratedImage{Index: 1}}},
		{Event: &pb.JobEvent_Finished{Finished: &pb.Finished{}}},
	}
	for sequence, event := range events {
		event.RequestId, event.Sequence = "made-up", int64(sequence)
	}
	return events
}

// cutting is a server whose calls end after so many events, one number each, and then are whole.
func cutting(requests *[]*pb.GenerateRequest, code codes.Code, cuts ...int) *fakeServer {
	return &fakeServer{generate: func(
		request *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.JobEvent],
	) error {
		*requests = append(*requests, request)
		for count, event := range whole() {
			if number := len(*requests) - 1; number < len(cuts) && count == cuts[number] {
				if code == codes.OK {
					return nil
				}
				return status.Error(code, "the connection broke")
			}
			if err := stream.Send(event); err != nil {
				return err
			}
		}
		return nil
	}}
}

// Each event comes once, wherever the call is cut; the next server is told the seed and the id.
func TestACallThatIsCutGoesOn(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.Internal, codes.OK} {
		for cut := 1; cut < len(whole()); cut++ {
			var requests []*pb.GenerateRequest
			events, err := read(generate(t, cutting(&requests, code, cut)))
			if err != nil {
				t.Fatal(code, cut, err)
			}
			var sequences []int64
			for _, event := range events {
				sequences = append(sequences, event.About().Sequence)
			}
			if !slices.Equal(sequences, []int64{0, 1, 2, 3, 4, 5, 6}) {
				t.Error(code, cut, sequences)
			}
			if len(requests) != 2 || requests[1].GetRequestId() != "made-up" ||
				requests[1].GetSampling().GetSeed() != 1234 || requests[0].GetSampling() != nil {
				t.Error(code, cut, requests)
			}
		}
	}
}

// Also where a later server is cut sooner; and a result is whole.
func TestACallThatIsCutOftenGoesOn(t *testing.T) {
	var requests []*pb.GenerateRequest
	result, err := sdgrpc.Collect(generate(t, cutting(&requests, codes.Unavailable, 5, 1, 3)))
	if err != nil || len(result.Images) != 2 || len(requests) != 4 {
		t.Error(result, err, len(requests))
	}
}

// Before it was accepted, after other failures, and with WithResume(0) a call fails at once.
func TestWhatIsNotResumed(t *testing.T) {
	for name, each := range map[string]struct {
		code   codes.Code
		cut    int
		option sdgrpc.Option
	}{
		"not accepted": {codes.Unavailable, 0, sdgrpc.WithResume(time.Minute)},
		"refused":      {codes.ResourceExhausted, 3, sdgrpc.WithResume(time.Minute)},
		"turned off":   {codes.Unavailable, 3, sdgrpc.WithResume(0)},
	} {
		var requests []*pb.GenerateRequest
		client := connect(t, cutting(&requests, each.code, each.cut).serve(t, nil), each.option)
		_, err := read(client.Generate(testContext(t), &pb.GenerateRequest{}))
		var failure *sdgrpc.Error
		if !errors.As(err, &failure) || failure.Code != each.code || len(requests) != 1 {
			t.Error(name, err, len(requests))
		}
	}
}

// A job that is cut at the same place each time is not sent for ever.
func TestResumingEnds(t *testing.T) {
	var requests []*pb.GenerateRequest
	_, err := read(generate(t, cutting(&requests, codes.Unavailable, slices.Repeat([]int{3}, 20)...)))
	if status.Code(err) != codes.Unavailable || len(requests) != 6 {
		t.Error(err, len(requests))
	}
}

// A proxy's clock may run ahead: a stream that is reset at the deadline has met it.
func TestAResetAtTheDeadlineIsTheDeadline(t *testing.T) {
	server := &fakeServer{generate: func(_ *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.JobEvent]) error {
		if err := stream.Send(whole()[0]); err != nil {
			return err
		}
		deadline, _ := stream.Context().Deadline()
		time.Sleep(time.Until(deadline) - 20*time.Millisecond)
		return status.Error(codes.Internal, "the stream was reset")
	}}
	ctx, cancel := context.WithTimeout(testContext(t), 500*time.Millisecond)
	defer cancel()
	client := connect(t, server.serve(t, nil), sdgrpc.WithResume(0))
	if _, err := read(client.Generate(ctx, &pb.GenerateRequest{})); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
