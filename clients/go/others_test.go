package sdgrpc_test

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"testing"
	"time"

	pb "example.com/sdgrpc/v1"
)

// The kinds of the table that make no job: pictures that are enlarged, words that were learned, plans, replicas.

func (r *runner) upscale(t *testing.T, c testCase) {
	var events []*pb.UpscaleEvent
	var failure error
	for event, err := range r.client.Upscale(testContext(t), c.request(t).(*pb.UpscaleRequest)) {
		if failure = err; err == nil {
			events = append(events, event)
		}
	}
	if c.Expect.Outcome != "OK" {
		checkFailure(t, failure, c.Expect)
		return
	}
	if failure != nil {
		t.Fatal(failure)
	}
	sum := sha256.Sum256(checkUpscaled(t, events, c.Expect).GetData())
	r.hashes[c.Name] = []string{hex.EncodeToString(sum[:])}
}

// checkUpscaled checks the events by the grammar and the table, and returns the picture.
func checkUpscaled(t *testing.T, events []*pb.UpscaleEvent, expect expectation) *pb.Image {
	t.Helper()
	if len(events) != int(expect.TileCount)+2 {
		t.Fatalf("there are %d events", len(events))
	}
	for index, event := range events {
		id := event.GetRequestId()
		if event.GetSequence() != int64(index) || id == "" || id != events[0].GetRequestId() {
			t.Errorf("event %d has the number %d and the id %q", index, event.GetSequence(), id)
		}
		if expect.RequestID != "" && id != expect.RequestID {
			t.Errorf("the request id is %q instead of %q", id, expect.RequestID)
		}
	}
	accepted, image := events[0].GetAccepted(), events[len(events)-1].GetImage()
	if accepted.GetUpscaler() != expect.Upscaler || accepted.GetTileCount() != expect.TileCount ||
		accepted.GetWidth() != expect.Width || accepted.GetHeight() != expect.Height {
		t.Errorf("accepted as %v", accepted)
	}
	for index, event := range events[1 : len(events)-1] {
		told := event.GetProgress()
		if told.GetTile() != int32(index+1) || told.GetTileCount() != expect.TileCount {
			t.Errorf("progress %d is %v", index, told)
		}
	}
	if image.GetWidth() != expect.Width || image.GetHeight() != expect.Height ||
		image.GetMediaType() != expect.MediaType || len(image.GetData()) == 0 {
		t.Errorf("the picture is %dx%d, %s", image.GetWidth(), image.GetHeight(), image.GetMediaType())
	}
	return image
}

func (r *runner) embeddings(t *testing.T, c testCase) {
	found, err := r.client.ListEmbeddings(testContext(t), c.request(t).(*pb.ListEmbeddingsRequest))
	if c.Expect.Outcome != "OK" {
		checkFailure(t, err, c.Expect)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	listed := []expectedEmbedding{}
	for _, word := range found {
		told := expectedEmbedding{word.GetName(), word.GetBase(), word.GetVectorCount(), word.GetFits()}
		listed = append(listed, told)
		if len(word.GetSha256()) != 64 || (word.GetRefusal() == "") != word.GetFits() {
			t.Errorf("the word is incomplete: %v", word)
		}
	}
	if !slices.Equal(listed, c.Expect.Embeddings) {
		t.Errorf("the words are %v instead of %v", listed, c.Expect.Embeddings)
	}
}

func (r *runner) plan(t *testing.T, c testCase) {
	asked := &pb.PlanJobRequest{}
	switch request := c.request(t).(type) {
	case *pb.GenerateRequest:
		asked.Request = &pb.PlanJobRequest_Generate{Generate: request}
	case *pb.TransformRequest:
		asked.Request = &pb.PlanJobRequest_Transform{Transform: request}
	case *pb.InpaintRequest:
		asked.Request = &pb.PlanJobRequest_Inpaint{Inpaint: request}
	}
	plan, err := r.client.PlanJob(testContext(t), asked)
	if c.Expect.Outcome != "OK" {
		checkFailure(t, err, c.Expect)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	checkAccepted(t, plan.GetAccepted(), c.Expect)
	if plan.GetUnetSteps() != c.Expect.UnetSteps || plan.GetGuidedSteps() != c.Expect.GuidedSteps {
		t.Errorf("%d steps ask, %d of them guided", plan.GetUnetSteps(), plan.GetGuidedSteps())
	}
	planned := []expectedLora{}
	for index, lora := range plan.GetLoras() {
		told := expectedLora{lora.GetName(), lora.GetStrength(), lora.GetTextEncoderStrength(), nil}
		if index < len(c.Expect.Loras) && c.Expect.Loras[index].Steps != nil {
			told.Steps = stepsOf(lora.GetSteps())
		}
		planned = append(planned, told)
		if len(lora.GetSha256()) != 64 || lora.GetRefusal() != "" {
			t.Errorf("planned as %v", lora)
		}
	}
	if !slices.EqualFunc(planned, c.Expect.Loras, sameLora) {
		t.Errorf("the LoRAs are %v instead of %v", planned, c.Expect.Loras)
	}
}

func (r *runner) cluster(t *testing.T, c testCase) {
	expect := c.Expect
	if c.WithReplicas != nil && r.hasReplicas(t) {
		expect = *c.WithReplicas
	}
	var count int32
	var err error
	switch request := c.request(t).(type) {
	case *pb.DrainReplicasRequest:
		var names []string
		names, err = r.client.DrainReplicas(testContext(t), request.GetName())
		count = int32(len(names))
	case *pb.ScaleReplicasRequest:
		count, err = r.client.ScaleReplicas(testContext(t), request.GetLeast(), request.GetMost())
	}
	if expect.Outcome != "OK" {
		checkFailure(t, err, expect)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if count != expect.Replicas {
		t.Errorf("there are %d replicas instead of %d", count, expect.Replicas)
	}
}

// hasReplicas tells whether several draw behind the server.
func (r *runner) hasReplicas(t *testing.T) bool {
	t.Helper()
	for state, err := range r.client.WatchStatus(testContext(t), 100*time.Millisecond) {
		if err != nil {
			t.Fatal(err)
		}
		return len(state.GetReplicas()) > 0
	}
	t.Fatal("WatchStatus ended")
	return false
}
