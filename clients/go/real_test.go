package sdgrpc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"example.com/sdgrpc"
	pb "example.com/sdgrpc/v1"
)

// One server for all of it, since it takes its time to start. The table ends with the server's end.
func TestAgainstARealServer(t *testing.T) {
	table := readTable(t)
	server := startServer(t, append(table.Server.Arguments, "--upload-dir", filepath.Join(t.TempDir(), "uploads")))
	client := connect(t, server.target)
	ctx, cancel := context.WithTimeout(testContext(t), time.Minute)
	defer cancel()
	if err := client.WaitUntilReady(ctx); err != nil {
		t.Fatal(err)
	}
	t.Run("models", func(t *testing.T) { checkModels(t, client) })
	t.Run("loras", func(t *testing.T) { checkLoraFiles(t, client) })
	t.Run("prepare", func(t *testing.T) { checkPreparing(t, client) })
	t.Run("upload", func(t *testing.T) { checkUpload(t, client) })
	t.Run("latents", func(t *testing.T) { checkLatents(t, client) })
	t.Run("latents example", func(t *testing.T) { checkLatentsExample(t, server.target) })
	t.Run("draw example", func(t *testing.T) { checkDrawExample(t, server.target) })
	t.Run("kept jobs", func(t *testing.T) { checkKeptJobs(t, client) })
	t.Run("contract", func(t *testing.T) { runTable(t, server, table.Cases) })
}

func checkModels(t *testing.T, client *sdgrpc.Client) {
	models, err := client.ListModels(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(models) != 1 || models[0].GetName() != "embedded" || len(models[0].GetLatentFormat().GetRgbFactors()) != 12 {
		t.Errorf("%v", models)
	}
	strengths, err := client.LoraStrengthRange(testContext(t))
	if err != nil || strengths.GetMinimum() != 0 || strengths.GetMaximum() != 1 {
		t.Errorf("%v, %v", strengths, err)
	}
}

// checkLoraFiles lists them in pages of one, with their fit, and looks at one closely.
func checkLoraFiles(t *testing.T, client *sdgrpc.Client) {
	files := map[string]*pb.LoraFile{}
	for file, err := range client.ListLoras(testContext(t), &pb.ListLorasRequest{PageSize: 1}) {
		if err != nil {
			t.Fatal(err)
		}
		files[file.GetName()] = file
	}
	for name, fits := range map[string]bool{"flower": true, "postcard": true, "sepia": true, "for-sd15": false} {
		if file := files[name]; file == nil || file.GetFits() != fits {
			t.Errorf("%s: %v", name, file)
		}
	}
	request := &pb.GetLoraRequest{
		Source: &pb.GetLoraRequest_Sha256{Sha256: files["sepia"].GetSha256()}, IncludeModules: true,
	}
	lora, err := client.GetLora(testContext(t), request)
	if err != nil {
		t.Fatal(err)
	}
	if lora.GetLora().GetName() != "sepia" || len(lora.GetModules()) != int(lora.GetModuleCount()) {
		t.Errorf("%s has %d of %d modules", lora.GetLora().GetName(), len(lora.GetModules()), lora.GetModuleCount())
	}
}

// checkPreparing fuses a set; a job with it finds it then.
func checkPreparing(t *testing.T, client *sdgrpc.Client) {
	loras := []*pb.Lora{{Source: &pb.Lora_Name{Name: "flower"}, Strength: proto.Float32(0.375)}}
	answer, err := client.PrepareLoras(testContext(t), &pb.PrepareLorasRequest{Loras: loras})
	if err != nil {
		t.Fatal(err)
	}
	request := &pb.GenerateRequest{Prompt: "a star", Loras: loras, Width: 64, Height: 64, Sampling: &pb.Sampling{Steps: 1}}
	inside := &pb.PlanJobRequest_Generate{Generate: request}
	plan, err := client.PlanJob(testContext(t), &pb.PlanJobRequest{Request: inside})
	if err != nil {
		t.Fatal(err)
	}
	if !plan.GetLoraSetResident() || plan.GetLoraSetId() != answer.GetPrepared().GetLoraSetId() || plan.GetUnetSteps() != 1 {
		t.Errorf("%v after %v", plan, answer)
	}
	result, err := sdgrpc.Collect(client.Generate(testContext(t), request))
	if err != nil {
		t.Fatal(err)
	}
	prepared := result.Prepared
	if !prepared.GetLoraSetCached() || prepared.GetLoraSetId() != answer.GetPrepared().GetLoraSetId() {
		t.Errorf("%v after %v", prepared, answer)
	}
}

// checkUpload brings content that the server lacks, twice, and draws with it.
func checkUpload(t *testing.T, client *sdgrpc.Client) {
	known, err := os.ReadFile(filepath.Join(root(t), "src/sdgrpc/assets/tiny/loras/postcard.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	// The same tensors under a header with other padding: another file.
	header := binary.LittleEndian.Uint64(known)
	content := binary.LittleEndian.AppendUint64(nil, header+8)
	content = slices.Concat(content, known[8:8+header], bytes.Repeat([]byte(" "), 8), known[8+header:])
	for _, existed := range []bool{false, true} {
		answer, err := client.UploadLora(testContext(t), "brought", bytes.NewReader(content))
		var failure *sdgrpc.Error
		if errors.As(err, &failure) && failure.Reason == sdgrpc.UploadsOff && os.Getenv("SDGRPC_CONTRACT_SERVER") != "" {
			t.Skip("the server of SDGRPC_CONTRACT_SERVER takes no uploads")
		}
		if err != nil {
			t.Fatal(err)
		}
		if answer.GetExisted() != existed || answer.GetLora().GetSizeBytes() != int64(len(content)) {
			t.Errorf("%v", answer)
		}
	}
	request := &pb.GenerateRequest{
		Prompt: "a star", Loras: []*pb.Lora{{Source: &pb.Lora_Name{Name: "brought"}}}, Sampling: &pb.Sampling{Steps: 1},
	}
	if _, err := sdgrpc.Collect(client.Generate(testContext(t), request)); err != nil {
		t.Error(err)
	}
}

// checkLatents compares a LATENT preview, decoded here, with the PICTURE preview of the same step: but for
// float16's rounding they are one.
func checkLatents(t *testing.T, client *sdgrpc.Client) {
	models, err := client.ListModels(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	latent := lastPreview(t, client, pb.PreviewKind_PREVIEW_KIND_LATENT).GetLatent()
	ours, err := sdgrpc.LatentPicture(latent, models[0].GetLatentFormat())
	if err != nil {
		t.Fatal(err)
	}
	file := lastPreview(t, client, pb.PreviewKind_PREVIEW_KIND_PICTURE).GetPicture()
	theirs, err := png.Decode(bytes.NewReader(file.GetData()))
	if err != nil {
		t.Fatal(err)
	}
	if ours.Bounds() != theirs.Bounds() || largestDifference(ours, theirs) > 1 {
		t.Errorf("%v and %v differ by up to %d", ours.Bounds(), theirs.Bounds(), largestDifference(ours, theirs))
	}
}

func lastPreview(t *testing.T, client *sdgrpc.Client, kind pb.PreviewKind) (last *pb.Preview) {
	t.Helper()
	request := &pb.GenerateRequest{
		Prompt:   "a red circle on a white background",
		Sampling: &pb.Sampling{Steps: 4, Seed: proto.Int64(1)},
		Output:   &pb.Output{Preview: &pb.PreviewOptions{Kind: kind}},
	}
	for event, err := range client.Generate(testContext(t), request) {
		if err != nil {
			t.Fatal(err)
		}
		if progress, ok := event.(*sdgrpc.Progress); ok && len(progress.Previews) == 1 {
			last = progress.Previews[0]
		}
	}
	return last
}

func largestDifference(ours, theirs image.Image) (largest int) {
	for y := range ours.Bounds().Dy() {
		for x := range ours.Bounds().Dx() {
			r, g, b, _ := ours.At(x, y).RGBA()
			otherR, otherG, otherB, _ := theirs.At(x, y).RGBA()
			for _, pair := range [][2]uint32{{r, otherR}, {g, otherG}, {b, otherB}} {
				difference := int(pair[0]>>8) - int(pair[1]>>8)
				largest = max(largest, difference, -difference)
			}
		}
	}
	return largest
}

// runExample builds and runs a program of the examples.
func runExample(t *testing.T, program string, arguments ...string) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), program)
	if output, err := exec.Command("go", "build", "-o", path, "./examples/"+program).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	output, err := exec.Command(path, arguments...).CombinedOutput()
	return string(output), err
}

// checkDrawExample looks at what it said and saved, and at what it says of a failure.
func checkDrawExample(t *testing.T, target string) {
	drawn := t.TempDir()
	output, err := runExample(t, "draw", "-server", target, "-output", drawn)
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	for _, words := range []string{"LoRA postcard at 0.75", "LoRA sepia at 0.50", "step 20 of 20", "drawn in"} {
		if !strings.Contains(output, words) {
			t.Errorf("%q is not in:\n%s", words, output)
		}
	}
	checkWidth(t, filepath.Join(drawn, "picture-7.png"), 128)
	checkWidth(t, filepath.Join(drawn, "preview-0-15.png"), 128)
	explained, err := runExample(t, "draw", "-server", target, "-output", drawn, "-first", "nope")
	if err == nil || !strings.Contains(explained, "not found: sdgrpc.v1.Lora nope") {
		t.Errorf("%v: %s", err, explained)
	}
}

func checkLatentsExample(t *testing.T, target string) {
	drawn := t.TempDir()
	if output, err := runExample(t, "latents", "-server", target, "-output", drawn); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	checkWidth(t, filepath.Join(drawn, "latent-0-19.png"), 16)
}

func checkWidth(t *testing.T, path string, expected int) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if picture, err := png.DecodeConfig(file); err != nil || picture.Width != expected {
		t.Errorf("%s: %v, %v", path, picture, err)
	}
}
