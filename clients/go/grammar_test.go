package sdgrpc_test

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"testing"

	"example.com/sdgrpc"
	pb "example.com/sdgrpc/v1"
)

// told is what the events of a finished job said, sorted by kind.
type told struct {
	kinds    []string
	accepted *pb.Accepted
	prepared *pb.Prepared
	progress []*pb.Progress
	images   []*pb.GeneratedImage
}

func sorted(events []sdgrpc.Event) (found told) {
	for _, event := range events {
		kind := ""
		switch event := event.(type) {
		case *sdgrpc.Accepted:
			kind, found.accepted = "accepted", event.Accepted
		case *sdgrpc.Prepared:
			kind, found.prepared = "prepared", event.Prepared
		case *sdgrpc.Progress:
			kind, found.progress = "step", append(found.progress, event.Progress)
		case *sdgrpc.GeneratedImage:
			kind, found.images = "step", append(found.images, event.GeneratedImage)
		case *sdgrpc.Finished:
			kind = "finished"
		}
		if kind != "step" || found.kinds[len(found.kinds)-1] != "step" {
			found.kinds = append(found.kinds, kind)
		}
	}
	slices.SortFunc(found.images, func(a, b *pb.GeneratedImage) int { return cmp.Compare(a.Index, b.Index) })
	return found
}

// checkEvents checks the events of a finished job by the grammar and the table; it returns the images by index.
func checkEvents(t *testing.T, events []sdgrpc.Event, expect expectation) []*pb.GeneratedImage {
	t.Helper()
	checkEnvelopes(t, events, expect.RequestID)
	found := sorted(events)
	if !slices.Equal(found.kinds, []string{"accepted", "prepared", "step", "finished"}) {
		t.Fatalf("the events are %v", found.kinds)
	}
	checkAccepted(t, found.accepted, expect)
	checkSteps(t, found.progress, found.accepted.GetStepCount())
	checkImages(t, found, expect)
	checkLoras(t, found.prepared, expect.Loras)
	checkPreviews(t, found, expect.Previews)
	return found.images
}

func checkEnvelopes(t *testing.T, events []sdgrpc.Event, expected string) {
	t.Helper()
	for index, event := range events {
		about := event.About()
		if about.Sequence != int64(index) {
			t.Errorf("event %d has the sequence number %d", index, about.Sequence)
		}
		if about.RequestID == "" || about.RequestID != events[0].About().RequestID {
			t.Errorf("event %d has the request id %q", index, about.RequestID)
		}
		if expected != "" && about.RequestID != expected {
			t.Errorf("the request id is %q instead of %q", about.RequestID, expected)
		}
	}
}

func checkAccepted(t *testing.T, accepted *pb.Accepted, expect expectation) {
	t.Helper()
	if expect.Model != "" && accepted.GetModel() != expect.Model {
		t.Errorf("the model is %q", accepted.GetModel())
	}
	if expect.StepCount != nil && accepted.GetStepCount() != *expect.StepCount {
		t.Errorf("%d steps instead of %d", accepted.GetStepCount(), *expect.StepCount)
	}
	if expect.Width != 0 && accepted.GetWidth() != expect.Width {
		t.Errorf("the width is %d", accepted.GetWidth())
	}
	if expect.Height != 0 && accepted.GetHeight() != expect.Height {
		t.Errorf("the height is %d", accepted.GetHeight())
	}
	var second *expectedSecondPass
	if pass := accepted.GetSecondPass(); pass != nil {
		second = &expectedSecondPass{pass.GetWidth(), pass.GetHeight(), pass.GetStrength(), pass.GetSteps()}
	}
	if !reflect.DeepEqual(second, expect.SecondPass) {
		t.Errorf("the second pass is %v", accepted.GetSecondPass())
	}
	warned := make([]string, 0, len(accepted.GetWarnings()))
	for _, sentence := range accepted.GetWarnings() {
		field, _, _ := strings.Cut(sentence, ":")
		warned = append(warned, field)
	}
	if !slices.Equal(warned, expect.Warnings) {
		t.Errorf("the warnings are %q", accepted.GetWarnings())
	}
	if len(expect.Seeds) != 0 && accepted.GetSampling().GetSeed() != expect.Seeds[0] {
		t.Errorf("the seed is %d", accepted.GetSampling().GetSeed())
	}
}

func checkSteps(t *testing.T, progress []*pb.Progress, count int32) {
	t.Helper()
	for index, event := range progress {
		if event.GetStep() != int32(index+1) || event.GetStepCount() != count {
			t.Errorf("progress %d is of step %d of %d", index, event.GetStep(), event.GetStepCount())
		}
	}
	if len(progress) != int(count) {
		t.Errorf("%d progress events for %d steps", len(progress), count)
	}
}

func checkImages(t *testing.T, found told, expect expectation) {
	t.Helper()
	if len(found.images) != int(found.accepted.GetSampling().GetImageCount()) {
		t.Errorf("%d images", len(found.images))
	}
	seeds, strengths := []int64{}, []float32{}
	for index, image := range found.images {
		seeds = append(seeds, image.GetSeed())
		if image.LoraStrength != nil {
			strengths = append(strengths, *image.LoraStrength)
		}
		if image.GetIndex() != int32(index) {
			t.Errorf("image %d has the index %d", index, image.GetIndex())
		}
		file := image.GetImage()
		if expect.MediaType != "" && file.GetMediaType() != expect.MediaType {
			t.Errorf("an image is %s", file.GetMediaType())
		}
		width, height := found.accepted.GetWidth(), found.accepted.GetHeight()
		if second := found.accepted.GetSecondPass(); second != nil {
			width, height = second.GetWidth(), second.GetHeight()
		}
		if file.GetWidth() != width || file.GetHeight() != height {
			t.Errorf("an image is %dx%d", file.GetWidth(), file.GetHeight())
		}
		if len(file.GetData()) == 0 {
			t.Error("an image is empty")
		}
	}
	if len(expect.Seeds) != 0 && !slices.Equal(seeds, expect.Seeds) {
		t.Errorf("the seeds are %v instead of %v", seeds, expect.Seeds)
	}
	if !slices.Equal(strengths, expect.Strengths) {
		t.Errorf("the strengths of the grid are %v instead of %v", strengths, expect.Strengths)
	}
}

func checkLoras(t *testing.T, prepared *pb.Prepared, expected []expectedLora) {
	t.Helper()
	reported := []expectedLora{}
	for index, lora := range prepared.GetLoras() {
		told := expectedLora{lora.GetName(), lora.GetStrength(), lora.GetTextEncoderStrength(), nil}
		if index < len(expected) && expected[index].Steps != nil {
			told.Steps = stepsOf(lora.GetSteps())
		}
		reported = append(reported, told)
		if len(lora.GetSha256()) != 64 || len(lora.GetModules()) == 0 {
			t.Errorf("the report is incomplete: %v", lora)
		}
	}
	if !slices.EqualFunc(reported, expected, sameLora) || (prepared.GetLoraSetId() == "") != (len(expected) == 0) {
		t.Errorf("the LoRAs are %v (set %q) instead of %v", reported, prepared.GetLoraSetId(), expected)
	}
}

func sameLora(a, b expectedLora) bool { return reflect.DeepEqual(a, b) }

func stepsOf(ranges []*pb.StepRange) *[][2]int32 {
	steps := [][2]int32{}
	for _, each := range ranges {
		steps = append(steps, [2]int32{each.GetFirst(), each.GetLast()})
	}
	return &steps
}

func checkPreviews(t *testing.T, found told, expect *expectedPreviews) {
	t.Helper()
	last := int32(0)
	for _, event := range found.progress {
		previews := event.GetPreviews()
		if len(previews) == 0 {
			continue
		}
		last = event.GetStep()
		if expect == nil || !slices.Contains(expect.Steps, last) || len(previews) != len(found.images) {
			t.Errorf("step %d has %d previews", last, len(previews))
			continue
		}
		for index, preview := range previews {
			if preview.GetImageIndex() != int32(index) {
				t.Errorf("preview %d is of image %d", index, preview.GetImageIndex())
			}
			checkPreview(t, preview, expect.Content, found.accepted)
		}
	}
	if expect != nil && last != expect.Steps[len(expect.Steps)-1] {
		t.Errorf("the last previews came with step %d", last)
	}
}

func checkPreview(t *testing.T, preview *pb.Preview, content string, accepted *pb.Accepted) {
	t.Helper()
	latent := preview.GetLatent()
	switch content {
	case "picture":
		if len(preview.GetPicture().GetData()) == 0 {
			t.Error("a preview has no picture")
		}
	case "latent":
		if latent.GetWidth() != accepted.GetWidth()/8 || latent.GetHeight() != accepted.GetHeight()/8 {
			t.Errorf("a latent is %dx%d", latent.GetWidth(), latent.GetHeight())
		}
		if len(latent.GetData()) != int(2*latent.GetChannels()*latent.GetHeight()*latent.GetWidth()) {
			t.Errorf("a latent has %d bytes", len(latent.GetData()))
		}
	default:
		t.Errorf("unknown content %q", content)
	}
}
