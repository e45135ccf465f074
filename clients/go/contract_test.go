package sdgrpc_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"example.com/sdgrpc"
	pb "example.com/sdgrpc/v1"
)

const (
	mostCalls    = 64
	mostRefusals = 60
)

var kinds = map[string]func(*runner, *testing.T, testCase){
	"call":        (*runner).call,
	"unreachable": (*runner).unreachable,
	"cancel":      (*runner).cancel,
	"deadline":    (*runner).deadline,
	"fill":        (*runner).fill,
	"drain":       (*runner).drain,
	"keep":        (*runner).keep,
	"exists":      (*runner).exists,
	"attach":      (*runner).attach,
	"upscale":     (*runner).upscale,
	"embeddings":  (*runner).embeddings,
	"plan":        (*runner).plan,
	"cluster":     (*runner).cluster,
}

// runner runs the cases of the table against one server.
type runner struct {
	client *sdgrpc.Client
	server realServer
	hashes map[string][]string
}

// runTable runs every case, and writes the pictures' hashes where SDGRPC_CONTRACT_HASHES asks for them.
func runTable(t *testing.T, server realServer, cases []testCase) {
	run := &runner{client: connect(t, server.target), server: server, hashes: map[string][]string{}}
	for _, each := range cases {
		t.Run(each.Name, func(t *testing.T) {
			kind, known := kinds[each.Kind]
			if !known {
				t.Fatalf("unknown kind %q", each.Kind)
			}
			kind(run, t, each)
		})
	}
	path := os.Getenv("SDGRPC_CONTRACT_HASHES")
	if path == "" {
		return
	}
	text, err := json.Marshal(run.hashes)
	if err == nil {
		err = os.WriteFile(path, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func start(ctx context.Context, client *sdgrpc.Client, request proto.Message) sdgrpc.Events {
	switch request := request.(type) {
	case *pb.TransformRequest:
		return client.Transform(ctx, request)
	case *pb.InpaintRequest:
		return client.Inpaint(ctx, request)
	default:
		return client.Generate(ctx, request.(*pb.GenerateRequest))
	}
}

// read reads a job to its end.
func read(job sdgrpc.Events) (events []sdgrpc.Event, err error) {
	for event, failure := range job {
		if failure != nil {
			return events, failure
		}
		events = append(events, event)
	}
	return events, nil
}

func (r *runner) call(t *testing.T, c testCase) {
	events, err := read(start(testContext(t), r.client, c.request(t)))
	if c.Expect.Outcome != "OK" {
		checkFailure(t, err, c.Expect)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	r.hashes[c.Name] = hashesOf(checkEvents(t, events, c.Expect))
}

func hashesOf(images []*pb.GeneratedImage) []string {
	hashes := make([]string, len(images))
	for _, image := range images {
		sum := sha256.Sum256(image.GetImage().GetData())
		hashes[image.GetIndex()] = hex.EncodeToString(sum[:])
	}
	return hashes
}

func (r *runner) unreachable(t *testing.T, c testCase) {
	_, err := read(start(testContext(t), connect(t, "127.0.0.1:1"), c.request(t)))
	checkFailure(t, err, c.Expect)
}

func (r *runner) cancel(t *testing.T, c testCase) {
	before := r.untilIdle(t)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	_, err := readUntilProgress(start(ctx, r.client, c.request(t)), cancel)
	checkFailure(t, err, c.Expect)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v is not context.Canceled", err)
	}
	r.checkStopped(t, before)
}

// readUntilProgress calls `then` at the first progress, and reads on to the end.
func readUntilProgress(job sdgrpc.Events, then func()) (count int, err error) {
	for event, failure := range job {
		if failure != nil {
			return count, failure
		}
		if _, running := event.(*sdgrpc.Progress); running {
			if count++; count == 1 {
				then()
			}
		}
	}
	return count, nil
}

func (r *runner) deadline(t *testing.T, c testCase) {
	before := r.untilIdle(t)
	limit := time.Duration(c.TimeoutSeconds * float64(time.Second))
	ctx, cancel := context.WithTimeout(testContext(t), limit)
	defer cancel()
	_, err := read(start(ctx, r.client, c.request(t)))
	checkFailure(t, err, c.Expect)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v is not context.DeadlineExceeded", err)
	}
	r.checkStopped(t, before)
}

// untilIdle waits until no job is there, and returns how many were finished so far.
func (r *runner) untilIdle(t *testing.T) int64 {
	t.Helper()
	for state, err := range r.client.WatchStatus(testContext(t), 100*time.Millisecond) {
		if err != nil {
			t.Fatal(err)
		}
		if state.GetReady() && state.GetRunning() == 0 && state.GetQueued() == 0 {
			return state.GetJobsFinished()
		}
	}
	t.Fatal("WatchStatus ended")
	return 0
}

func (r *runner) checkStopped(t *testing.T, before int64) {
	t.Helper()
	if finished := r.untilIdle(t); finished != before {
		t.Errorf("%d jobs were finished, %d before: the job was not stopped", finished, before)
	}
}

func (r *runner) fill(t *testing.T, c testCase) {
	request := c.request(t)
	refusal := r.fillQueue(t, request)
	checkFailure(t, refusal, c.Expect)
	for range mostRefusals {
		var failure *sdgrpc.Error
		if !errors.As(refusal, &failure) {
			t.Fatal(refusal)
		}
		time.Sleep(failure.RetryAfter)
		ctx, cancel := context.WithCancel(testContext(t))
		refusal = firstOf(start(ctx, r.client, request))
		cancel()
		if refusal == nil {
			return
		}
		checkFailure(t, refusal, c.Expect)
	}
	t.Fatalf("refused %d times", mostRefusals)
}

// fillQueue opens calls until one fails, cancels the others, and returns the failure.
func (r *runner) fillQueue(t *testing.T, request proto.Message) error {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	opened := make(chan error)
	for range mostCalls {
		go hold(start(ctx, r.client, request), opened)
		if err := <-opened; err != nil {
			return err
		}
	}
	t.Fatalf("%d calls, and none was refused", mostCalls)
	return nil
}

// hold tells how a job begins, and reads on until it ends.
func hold(job sdgrpc.Events, opened chan<- error) {
	first := true
	for _, err := range job {
		if first {
			opened <- err
		}
		first = false
	}
}

// firstOf is nil if a job is accepted; it is cancelled then.
func firstOf(job sdgrpc.Events) error {
	for _, err := range job {
		return err
	}
	return nil
}

func (r *runner) drain(t *testing.T, c testCase) {
	if r.server.stop == nil {
		t.Skip("the server belongs to somebody else: SDGRPC_CONTRACT_SERVER is set")
	}
	_, err := readUntilProgress(start(testContext(t), r.client, c.request(t)), r.server.stop)
	checkFailure(t, err, c.Expect)
}

// checkFailure compares an error and all of its details.
func checkFailure(t *testing.T, err error, expect expectation) {
	t.Helper()
	var failure *sdgrpc.Error
	if !errors.As(err, &failure) {
		t.Fatalf("%v instead of %s", err, expect.Outcome)
	}
	var code codes.Code
	if err := code.UnmarshalJSON([]byte(`"` + expect.Outcome + `"`)); err != nil {
		t.Fatal(err)
	}
	if failure.Code != code || failure.Message == "" {
		t.Errorf("%s (%q) instead of %s", failure.Code, failure.Message, code)
	}
	if failure.Reason != expect.Reason {
		t.Errorf("the reason is %q instead of %q", failure.Reason, expect.Reason)
	}
	for key, value := range expect.Metadata {
		if failure.Metadata[key] != value {
			t.Errorf("metadata %v lack %s=%s", failure.Metadata, key, value)
		}
	}
	if (failure.Resource == nil) != (expect.Resource == nil) ||
		failure.Resource != nil && *failure.Resource != *expect.Resource {
		t.Errorf("the resource is %v instead of %v", failure.Resource, expect.Resource)
	}
	if (failure.RetryAfter > 0) != expect.Retry {
		t.Errorf("RetryAfter is %s, and it should be there: %t", failure.RetryAfter, expect.Retry)
	}
	checkViolations(t, failure.Violations, expect.Violations)
}

func checkViolations(t *testing.T, found []sdgrpc.Violation, expected []string) {
	t.Helper()
	wanted, got := map[string]bool{}, map[string]bool{}
	for _, field := range expected {
		wanted[field] = true
	}
	for _, violation := range found {
		got[violation.Field] = violation.Description != ""
	}
	if !maps.Equal(wanted, got) {
		t.Errorf("the violations are %v instead of %v", found, expected)
	}
}
