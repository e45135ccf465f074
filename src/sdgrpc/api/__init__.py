"""The only room that knows grpc: validate, decode, submit, stream, cancel."""
