package sdgrpc_test

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"example.com/sdgrpc"
	pb "example.com/sdgrpc/v1"
)

// keep cuts a reader after each event, one job for each, and reads on by attaching.
func (r *runner) keep(t *testing.T, c testCase) {
	var pictures []string
	for cut := 1; ; cut++ {
		request := c.request(t).(*pb.GenerateRequest)
		request.RequestId = fmt.Sprintf("%s %d", request.RequestId, cut)
		seen := readSome(t, start(testContext(t), r.client, request), cut)
		last := seen[len(seen)-1].About().Sequence
		attached := &pb.AttachJobRequest{RequestId: request.RequestId, AfterSequence: &last}
		rest, err := read(r.client.Attach(testContext(t), attached))
		if err != nil {
			t.Fatal(err)
		}
		events := append(seen, rest...)
		expect := c.Expect
		expect.RequestID = request.RequestId
		hashes := hashesOf(checkEvents(t, events, expect))
		if pictures != nil && !slices.Equal(pictures, hashes) {
			t.Errorf("cut after %d events the pictures differ", cut)
		}
		pictures = hashes
		again, err := read(r.client.Attach(testContext(t), &pb.AttachJobRequest{RequestId: request.RequestId}))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(events, again, sameEvent) {
			t.Errorf("cut after %d events the job's events differ", cut)
		}
		if cut == len(events) {
			return
		}
	}
}

// sameEvent compares events, previews aside.
func sameEvent(one, other sdgrpc.Event) bool {
	return one.About() == other.About() && proto.Equal(bare(one), bare(other))
}

func bare(event sdgrpc.Event) proto.Message {
	switch event := event.(type) {
	case *sdgrpc.Accepted:
		return event.Accepted
	case *sdgrpc.Prepared:
		return event.Prepared
	case *sdgrpc.Progress:
		copied := proto.Clone(event.Progress).(*pb.Progress)
		copied.Previews = nil
		return copied
	case *sdgrpc.GeneratedImage:
		return event.GeneratedImage
	default:
		return event.(*sdgrpc.Finished).Finished
	}
}

func readSome(t *testing.T, job sdgrpc.Events, count int) (events []sdgrpc.Event) {
	t.Helper()
	for event, err := range job {
		if err != nil {
			t.Fatal(err)
		}
		if events = append(events, event); len(events) == count {
			break
		}
	}
	return events
}

// exists draws a job that is kept, and then asks for something else under its id.
func (r *runner) exists(t *testing.T, c testCase) {
	request := c.request(t).(*pb.GenerateRequest)
	if _, err := read(start(testContext(t), r.client, request)); err != nil {
		t.Fatal(err)
	}
	request.Prompt += " and another"
	_, err := read(start(testContext(t), r.client, request))
	checkFailure(t, err, c.Expect)
}

// attach asks for a job that was never sent.
func (r *runner) attach(t *testing.T, c testCase) {
	request := c.request(t).(*pb.GenerateRequest)
	_, err := read(r.client.Attach(testContext(t), &pb.AttachJobRequest{RequestId: request.RequestId}))
	checkFailure(t, err, c.Expect)
}

// checkKeptJobs detaches, cancels, attaches and lists.
func checkKeptJobs(t *testing.T, client *sdgrpc.Client) {
	ctx := testContext(t)
	request := &pb.GenerateRequest{
		Prompt: "a star", OnDisconnect: pb.OnDisconnect_ON_DISCONNECT_KEEP,
		Sampling: &pb.Sampling{Steps: 150, GuidanceScale: proto.Float32(1)},
	}
	id, err := sdgrpc.Detach(client.Generate(ctx, request))
	if err != nil || id == "" {
		t.Fatal(id, err)
	}
	before, err := client.CancelJob(ctx, id)
	if err != nil || before.GetState() > pb.JobState_JOB_STATE_RUNNING {
		t.Fatal(before, err)
	}
	_, err = sdgrpc.Collect(client.Attach(ctx, &pb.AttachJobRequest{RequestId: id}))
	checkFailure(t, err, expectation{Outcome: "CANCELLED", Reason: sdgrpc.JobCancelled})
	jobs, err := client.ListJobs(ctx)
	if err != nil || jobs[len(jobs)-1].GetState() != pb.JobState_JOB_STATE_CANCELLED {
		t.Fatal(jobs, err)
	}
}
