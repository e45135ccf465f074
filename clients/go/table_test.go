package sdgrpc_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"example.com/sdgrpc"
	pb "example.com/sdgrpc/v1"
)

// The table of tests/contract, whose README says what each word means.

type table struct {
	Server struct{ Arguments []string }
	Cases  []testCase
}

type testCase struct {
	Name           string
	Kind           string
	Method         string
	Request        json.RawMessage
	Files          map[string]string
	TimeoutSeconds float64 `json:"timeout_seconds"`
	Expect         expectation
	WithReplicas   *expectation `json:"with_replicas"`
}

type expectation struct {
	Outcome     string
	RequestID   string `json:"request_id"`
	Model       string
	StepCount   *int32              `json:"step_count"`
	SecondPass  *expectedSecondPass `json:"second_pass"`
	Strengths   []float32           `json:"lora_strengths"`
	Upscaler    string
	TileCount   int32 `json:"tile_count"`
	Embeddings  []expectedEmbedding
	UnetSteps   int32 `json:"unet_steps"`
	GuidedSteps int32 `json:"guided_steps"`
	Replicas    int32
	Width       int32
	Height      int32
	Seeds       []int64
	MediaType   string `json:"media_type"`
	Warnings    []string
	Loras       []expectedLora
	Previews    *expectedPreviews
	Reason      sdgrpc.Reason
	Metadata    map[string]string
	Violations  []string
	Resource    *sdgrpc.Resource
	Retry       bool
}

type expectedSecondPass struct {
	Width    int32   `json:"width"`
	Height   int32   `json:"height"`
	Strength float32 `json:"strength"`
	Steps    int32   `json:"steps"`
}

type expectedLora struct {
	Name                string
	Strength            float32
	TextEncoderStrength float32 `json:"text_encoder_strength"`
	Steps               *[][2]int32
}

type expectedEmbedding struct {
	Name        string
	Base        string
	VectorCount int32 `json:"vector_count"`
	Fits        bool
}

type expectedPreviews struct {
	Content string
	Steps   []int32
}

// root is the repository's; the test is skipped where this folder was copied out of it.
func root(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(path, "tests/contract/cases.json")); err != nil {
		skip(t, "tests/contract/cases.json of the repository is not there")
	}
	return path
}

// skip skips the test, unless everything is required.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("SDGRPC_REQUIRE_ALL") == "1" {
		t.Fatal("SDGRPC_REQUIRE_ALL=1, but " + why)
	}
	t.Skip(why)
}

func readTable(t *testing.T) table {
	t.Helper()
	file, err := os.Open(filepath.Join(root(t), "tests/contract/cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	decoder := json.NewDecoder(file)
	decoder.DisallowUnknownFields()
	var read table
	if err := decoder.Decode(&read); err != nil {
		t.Fatal(err)
	}
	if len(read.Cases) == 0 {
		t.Fatal("the table is empty")
	}
	return read
}

// request builds the case's message, with the content of its files.
func (c testCase) request(t *testing.T) proto.Message {
	t.Helper()
	var message proto.Message
	switch c.Method {
	case "Generate":
		message = &pb.GenerateRequest{}
	case "Transform":
		message = &pb.TransformRequest{}
	case "Inpaint":
		message = &pb.InpaintRequest{}
	case "Upscale":
		message = &pb.UpscaleRequest{}
	case "ListEmbeddings":
		message = &pb.ListEmbeddingsRequest{}
	case "DrainReplicas":
		message = &pb.DrainReplicasRequest{}
	case "ScaleReplicas":
		message = &pb.ScaleReplicasRequest{}
	default:
		t.Fatalf("unknown method %q", c.Method)
	}
	if err := protojson.Unmarshal(c.Request, message); err != nil {
		t.Fatal(err)
	}
	for field, path := range c.Files {
		data, err := os.ReadFile(filepath.Join(root(t), "tests/contract", path))
		if err != nil {
			t.Fatal(err)
		}
		reflected := message.ProtoReflect()
		descriptor := reflected.Descriptor().Fields().ByTextName(field)
		image := reflected.Mutable(descriptor).Message().Interface().(*pb.Image)
		image.Data = data
	}
	return message
}
