"""Spans of calls, of the stages of their jobs, and of the UNet calls that jobs share: OpenTelemetry."""
