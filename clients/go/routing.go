package sdgrpc

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "example.com/sdgrpc/v1"
)

// What calls tell of themselves so that a proxy before several servers can bring them where they belong: to a
// server that has the LoRA set fused, and to the one that keeps the job. Servers read neither.
const (
	loraSetKey = "x-sdgrpc-lora-set"
	jobKey     = "x-sdgrpc-job"
	setForm    = "sdgrpc lora set 1"
	idDigits   = 32
)

// drawing is what the three requests that draw have in common.
type drawing interface {
	GetRequestId() string
	GetModel() string
	GetPrompt() string
	GetLoras() []*pb.Lora
	GetOnDisconnect() pb.OnDisconnect
}

// routed returns the context of a call with this request, with the metadata that a proxy routes by.
func routed(ctx context.Context, request proto.Message) context.Context {
	set, job := routing(request)
	if set != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, loraSetKey, set)
	}
	if job != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, jobKey, job)
	}
	return ctx
}

// routing returns the ids of a request's LoRA set and of its kept job, each empty where there is none.
func routing(request proto.Message) (set, job string) {
	switch request := request.(type) {
	case drawing:
		set = loraSetID(request.GetModel(), request.GetLoras(), request.GetPrompt())
		if request.GetOnDisconnect() == pb.OnDisconnect_ON_DISCONNECT_KEEP {
			job = jobID(request.GetRequestId())
		}
	case *pb.PlanJobRequest:
		set = planned(request)
	case *pb.PrepareLorasRequest:
		set = loraSetID(request.GetModel(), request.GetLoras(), "")
	case *pb.AttachJobRequest:
		job = jobID(request.GetRequestId())
	case *pb.CancelJobRequest:
		job = jobID(request.GetRequestId())
	}
	return set, job
}

// planned is the set of the request that a plan is asked of: the server that has it fused knows best.
func planned(request *pb.PlanJobRequest) string {
	for _, drawn := range []drawing{request.GetGenerate(), request.GetTransform(), request.GetInpaint()} {
		if set := loraSetID(drawn.GetModel(), drawn.GetLoras(), drawn.GetPrompt()); set != "" {
			return set
		}
	}
	return ""
}

// loraSetID depends on the model, the LoRAs in any order, their strengths, and the text of the prompt's tags.
func loraSetID(model string, loras []*pb.Lora, prompt string) string {
	var lines []string
	for _, lora := range loras {
		lines = append(lines, loraLine(lora))
	}
	for _, tag := range tags(prompt) {
		lines = append(lines, "tag "+tag)
	}
	if len(lines) == 0 {
		return ""
	}
	slices.Sort(lines)
	return hashed(strings.Join(append([]string{setForm, model}, lines...), "\n"))
}

func jobID(requestID string) string {
	if requestID == "" {
		return ""
	}
	return hashed(requestID)
}

func tags(prompt string) (found []string) {
	for {
		_, rest, opened := strings.Cut(prompt, "<lora:")
		tag, after, closed := strings.Cut(rest, ">")
		if !opened || !closed {
			return found
		}
		found, prompt = append(found, tag), after
	}
}

func loraLine(lora *pb.Lora) string {
	strength := float32(1)
	if lora.Strength != nil {
		strength = lora.GetStrength()
	}
	textEncoder := strength
	if lora.TextEncoderStrength != nil {
		textEncoder = lora.GetTextEncoderStrength()
	}
	strengths := fmt.Sprintf("%08x %08x", math.Float32bits(strength), math.Float32bits(textEncoder))
	return strengths + " " + blocks(lora) + source(lora)
}

// blocks are the strengths by block as a text; nothing where there are none.
func blocks(lora *pb.Lora) string {
	weights := lora.GetBlockWeights()
	if weights == nil {
		return ""
	}
	var listed, named []string
	for _, value := range weights.GetValues() {
		listed = append(listed, fmt.Sprintf("%08x", math.Float32bits(value)))
	}
	for name, value := range weights.GetBlocks() {
		named = append(named, fmt.Sprintf("%s*%08x", name, math.Float32bits(value)))
	}
	slices.Sort(named)
	return fmt.Sprintf("lbw %s %s ", weights.GetPreset(), strings.Join(append(listed, named...), ","))
}

func source(lora *pb.Lora) string {
	switch source := lora.GetSource().(type) {
	case *pb.Lora_Sha256:
		return "sha256 " + strings.ToLower(source.Sha256)
	case *pb.Lora_Safetensors:
		sum := sha256.Sum256(source.Safetensors)
		return "sha256 " + hex.EncodeToString(sum[:])
	}
	return "name " + strings.TrimSuffix(lora.GetName(), ".safetensors")
}

func hashed(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])[:idDigits]
}

// named returns the request, or a copy with an id of its own where its job is kept and has none: proxies find
// a job by the id that its first call had.
func named(request proto.Message) proto.Message {
	drawn, draws := request.(drawing)
	if !draws || drawn.GetRequestId() != "" || drawn.GetOnDisconnect() != pb.OnDisconnect_ON_DISCONNECT_KEEP {
		return request
	}
	id := make([]byte, idDigits/2)
	_, _ = rand.Read(id) // never fails, says its documentation
	return withID(request, hex.EncodeToString(id))
}

func withID(request proto.Message, id string) proto.Message {
	copied := proto.Clone(request)
	switch request := copied.(type) {
	case *pb.GenerateRequest:
		request.RequestId = id
	case *pb.TransformRequest:
		request.RequestId = id
	case *pb.InpaintRequest:
		request.RequestId = id
	}
	return copied
}
