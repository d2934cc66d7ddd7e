package postgres

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// traced begins a span below the one that the context has, if that records: the
// owner traces requests with Caddy's directive `tracing`. Otherwise it does
// nothing. The caller hands the call's error to end. A span has the name of the
// step, and nothing of what was asked.
func traced(ctx context.Context, step string) (_ context.Context, end func(error)) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, func(error) {}
	}
	ctx, span := parent.TracerProvider().Tracer("github.com/caddy-scope/caddy-scope/postgres").Start(ctx, "postgres: "+step,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("db.system.name", "postgresql")))
	return ctx, func(err error) {
		if err != nil && !errors.Is(err, issuer.ErrNotFound) { // that there is none is an answer
			span.SetStatus(codes.Error, step+" failed") // the log says why
		}
		span.End()
	}
}
