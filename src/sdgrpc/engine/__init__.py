"""The engine: jobs as generators, a scheduler without tensors, one loop. No grpc here."""
