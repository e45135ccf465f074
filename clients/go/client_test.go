package sdgrpc_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"example.com/sdgrpc"
	pb "example.com/sdgrpc/v1"
)

func generate(t *testing.T, fake *fakeServer) sdgrpc.Events {
	t.Helper()
	return connect(t, fake.serve(t, nil)).Generate(testContext(t), &pb.GenerateRequest{Prompt: "a star"})
}

// Every detail of a status arrives, and the status itself is kept.
func TestErrorsHaveTheDetails(t *testing.T) {
	violation := &errdetails.BadRequest_FieldViolation{Field: "prompt", Description: "is empty"}
	_, err := sdgrpc.Collect(generate(t, failing(codes.ResourceExhausted, "no room",
		&errdetails.ErrorInfo{Domain: "sdgrpc", Reason: "QUEUE_FULL", Metadata: map[string]string{"a": "b"}},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{violation}},
		&errdetails.ResourceInfo{ResourceType: "sdgrpc.v1.Lora", ResourceName: "ink"},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)},
	)))
	var failure *sdgrpc.Error
	if !errors.As(err, &failure) {
		t.Fatal(err)
	}
	if failure.Code != codes.ResourceExhausted || failure.Reason != sdgrpc.QueueFull || failure.Metadata["a"] != "b" {
		t.Errorf("%+v", failure)
	}
	if !slices.Equal(failure.Violations, []sdgrpc.Violation{{Field: "prompt", Description: "is empty"}}) {
		t.Error(failure.Violations)
	}
	if failure.Resource == nil || *failure.Resource != (sdgrpc.Resource{Type: "sdgrpc.v1.Lora", Name: "ink"}) {
		t.Error(failure.Resource)
	}
	if failure.RetryAfter != 1500*time.Millisecond || err.Error() != "QUEUE_FULL: no room" {
		t.Error(failure.RetryAfter, err)
	}
	if status.Code(err) != codes.ResourceExhausted || errors.Is(err, context.Canceled) {
		t.Error(status.Code(err))
	}
}

// Without details there is still a code and a sentence.
func TestErrorsWithoutDetails(t *testing.T) {
	_, err := sdgrpc.Collect(generate(t, failing(codes.Internal, "oh")))
	var failure *sdgrpc.Error
	if !errors.As(err, &failure) || failure.Reason != "" || err.Error() != "Internal: oh" {
		t.Error(err)
	}
}

// A stream that just ends is not taken for a finished job.
func TestAnIncompleteStreamIsAnError(t *testing.T) {
	_, err := sdgrpc.Collect(generate(t, telling(imageEvent(0, nil))))
	if !errors.Is(err, sdgrpc.ErrIncomplete) {
		t.Error(err)
	}
}

// Images come by their index, larger than gRPC's own limit; events of a newer contract are passed over.
func TestCollect(t *testing.T) {
	large := make([]byte, 6<<20)
	result, err := sdgrpc.Collect(generate(t,
		telling(imageEvent(1, large), &pb.JobEvent{}, imageEvent(0, []byte("small")), finishedEvent())))
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Images) != 2 || result.Images[0].Index != 0 || len(result.Images[1].Image.Data) != len(large) {
		t.Errorf("%d images", len(result.Images))
	}
	if result.Finished == nil || result.Accepted != nil {
		t.Errorf("%+v", result)
	}
}

// Leaving the loop ends the call on the server.
func TestLeavingTheLoopCancels(t *testing.T) {
	ended := make(chan struct{})
	fake := &fakeServer{generate: func(_ *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.JobEvent]) error {
		defer close(ended)
		if err := stream.Send(imageEvent(0, nil)); err != nil {
			return err
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	}}
	for _, err := range generate(t, fake) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	<-ended
}

// Kept jobs come whole, of however many pages.
func TestListJobsTurnsPages(t *testing.T) {
	fake := &fakeServer{listJobs: func(request *pb.ListJobsRequest) *pb.ListJobsResponse {
		return &pb.ListJobsResponse{
			Jobs:          []*pb.Job{{RequestId: "of" + request.GetPageToken()}},
			NextPageToken: map[string]string{"": "2", "2": "3"}[request.GetPageToken()],
		}
	}}
	jobs, err := connect(t, fake.serve(t, nil)).ListJobs(testContext(t))
	if err != nil || len(jobs) != 3 || jobs[2].RequestId != "of3" {
		t.Fatal(jobs, err)
	}
}

// The request is sent as it is, and the answer's list comes back.
func TestListEmbeddings(t *testing.T) {
	fake := &fakeServer{}
	client := connect(t, fake.serve(t, nil))
	found, err := client.ListEmbeddings(testContext(t), &pb.ListEmbeddingsRequest{Model: "face"})
	if err != nil || len(found) != 1 || found[0].GetName() != "face" || found[0].GetVectorCount() != 2 {
		t.Fatal(found, err)
	}
}

// Replicas are drained by name and scaled between two numbers.
func TestReplicas(t *testing.T) {
	client := connect(t, (&fakeServer{}).serve(t, nil))
	leaving, err := client.DrainReplicas(testContext(t), "node")
	if err != nil || len(leaving) != 1 || leaving[0] != "node-0" {
		t.Fatal(leaving, err)
	}
	before, err := client.ScaleReplicas(testContext(t), 2, 5)
	if err != nil || before != 25 {
		t.Fatal(before, err)
	}
}

// Upscalers are listed, and a picture comes after what is told of it.
func TestUpscale(t *testing.T) {
	client := connect(t, (&fakeServer{}).serve(t, nil))
	listed, err := client.ListUpscalers(testContext(t))
	if err != nil || len(listed) != 1 || listed[0].GetScale() != 4 {
		t.Fatal(listed, err)
	}
	var seen []*pb.UpscaleEvent
	for event, err := range client.Upscale(testContext(t), &pb.UpscaleRequest{Upscaler: "large"}) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, event)
	}
	if len(seen) != 2 || seen[0].GetAccepted().GetUpscaler() != "large" || len(seen[1].GetImage().GetData()) != 1 {
		t.Fatal(seen)
	}
}

// Pages are asked for one by one, with the same filter, and no more than are looked at.
func TestListLorasTurnsPages(t *testing.T) {
	var asked []string
	fake := &fakeServer{listLoras: func(request *pb.ListLorasRequest) *pb.ListLorasResponse {
		asked = append(asked, request.GetBase()+"/"+request.GetPageToken())
		return &pb.ListLorasResponse{
			Loras:         []*pb.LoraFile{{Name: "ink"}, {Name: "sepia"}},
			NextPageToken: map[string]string{"": "2", "2": "3"}[request.GetPageToken()],
		}
	}}
	client := connect(t, fake.serve(t, nil))
	request := &pb.ListLorasRequest{Base: "sd15"}
	count := func(most int) (found int) {
		for _, err := range client.ListLoras(testContext(t), request) {
			if err != nil {
				t.Fatal(err)
			}
			if found++; found == most {
				break
			}
		}
		return found
	}
	if found := count(1); found != 1 || len(asked) != 1 {
		t.Errorf("%d files of pages %v", found, asked)
	}
	asked = nil
	if found := count(0); found != 6 || !slices.Equal(asked, []string{"sd15/", "sd15/2", "sd15/3"}) {
		t.Errorf("%d files of pages %v", found, asked)
	}
	if request.PageToken != "" {
		t.Error("the caller's request was changed")
	}
}

// The header names the content, which comes in chunks after it.
func TestUploadSendsTheWholeFile(t *testing.T) {
	content := bytes.Repeat([]byte("lora"), 700_000)
	var header *pb.UploadLoraHeader
	var received bytes.Buffer
	fake := &fakeServer{upload: func(stream grpc.ClientStreamingServer[pb.UploadLoraRequest, pb.UploadLoraResponse]) error {
		first, err := stream.Recv()
		for header = first.GetHeader(); err == nil; {
			var part *pb.UploadLoraRequest
			part, err = stream.Recv()
			received.Write(part.GetChunk())
		}
		return stream.SendAndClose(&pb.UploadLoraResponse{Lora: &pb.LoraFile{Name: header.GetName()}})
	}}
	answer, err := connect(t, fake.serve(t, nil)).UploadLora(testContext(t), "ink", bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(received.Bytes(), content) || header.GetSizeBytes() != int64(len(content)) {
		t.Errorf("%d bytes arrived", received.Len())
	}
	if len(header.GetSha256()) != 64 || answer.GetLora().GetName() != "ink" {
		t.Error(header, answer)
	}
}

// The server's early answer, good or bad, is the call's.
func TestUploadTakesAnEarlyAnswer(t *testing.T) {
	content := bytes.Repeat([]byte("lora"), 8<<20)
	refused := status.Error(codes.PermissionDenied, "off")
	for _, failure := range []error{nil, refused} {
		fake := &fakeServer{upload: func(stream grpc.ClientStreamingServer[pb.UploadLoraRequest, pb.UploadLoraResponse]) error {
			if _, err := stream.Recv(); err != nil || failure != nil {
				return failure
			}
			return stream.SendAndClose(&pb.UploadLoraResponse{Existed: true})
		}}
		answer, err := connect(t, fake.serve(t, nil)).UploadLora(testContext(t), "ink", bytes.NewReader(content))
		if answer.GetExisted() != (failure == nil) || status.Code(err) != status.Code(failure) {
			t.Errorf("%v, %v", answer, err)
		}
	}
}

// Waiting ends with the server's readiness, or with the context.
func TestWaitUntilReady(t *testing.T) {
	fake := &fakeServer{}
	client := connect(t, fake.serve(t, nil))
	const service = "sdgrpc.v1.DiffusionService"
	fake.health.SetServingStatus(service, healthpb.HealthCheckResponse_NOT_SERVING)
	ctx, cancel := context.WithCancel(testContext(t))
	ready := make(chan error)
	go func() { ready <- client.WaitUntilReady(ctx) }()
	cancel()
	if err := <-ready; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	go func() { ready <- client.WaitUntilReady(testContext(t)) }()
	fake.health.SetServingStatus(service, healthpb.HealthCheckResponse_SERVING)
	if err := <-ready; err != nil {
		t.Error(err)
	}
}

// What cannot be a target is refused when the client is made.
func TestNewRefusesABadTarget(t *testing.T) {
	if _, err := sdgrpc.New("\x00"); err == nil {
		t.Error("it was taken")
	}
}
