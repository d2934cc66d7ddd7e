package validator

import (
	"context"

	"go.opentelemetry.io/otel/trace"
)

// traced begins a span below the one that the context has, if that records, and
// returns what ends it.
func traced(ctx context.Context, step string) (end func()) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return func() {}
	}
	_, span := parent.TracerProvider().Tracer("github.com/caddy-scope/caddy-scope/validator").Start(ctx, step)
	return func() { span.End() }
}
