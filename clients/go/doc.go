// Package sdgrpc draws on an sdgrpc server and asks what it has.
//
//	client, err := sdgrpc.New("localhost:50051")
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	request := &pb.GenerateRequest{Prompt: "a red circle"}
//	for event, err := range client.Generate(ctx, request) {
//		if err != nil {
//			return err
//		}
//		if image, ok := event.(*sdgrpc.GeneratedImage); ok {
//			os.WriteFile("circle.png", image.GetImage().GetData(), 0o644)
//		}
//	}
//
// Requests and answers are the generated messages of example.com/sdgrpc/v1, whose comments are the
// contract. Leaving the loop, or ending the context, cancels the job before its next step,
// unless its request has OnDisconnect KEEP: then Attach finds it again.
package sdgrpc
