package caddymodule

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// keptErrors is how many warnings and errors are kept to be looked at.
const keptErrors = 20

// lastErrors outlive reloads, as what is wrong does.
var lastErrors = new(errorRing)

// loggedError is a warning or an error as it was logged.
type loggedError struct {
	Time    time.Time `json:"time"`
	Level   string    `json:"level"`
	Message string    `json:"message"`
	Cause   string    `json:"cause,omitempty"`
}

// errorRing keeps the last of them. Safe for concurrent use.
type errorRing struct {
	mu   sync.Mutex
	kept []loggedError // oldest first
}

// watch returns a logger whose warnings and errors are also kept.
func (r *errorRing) watch(logger *zap.Logger) *zap.Logger {
	return logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewTee(core, &errorCore{r, nil})
	}))
}

func (r *errorRing) put(e loggedError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept) == keptErrors {
		r.kept = append(r.kept[:0], r.kept[1:]...)
	}
	r.kept = append(r.kept, e)
}

// list returns what is kept, the latest first.
func (r *errorRing) list() []loggedError {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []loggedError
	for i := len(r.kept) - 1; i >= 0; i-- {
		all = append(all, r.kept[i])
	}
	return all
}

// errorCore implements zapcore.Core.
type errorCore struct {
	ring   *errorRing
	fields []zapcore.Field
}

func (*errorCore) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

func (c *errorCore) With(fields []zapcore.Field) zapcore.Core {
	return &errorCore{c.ring, append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

func (c *errorCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

// maxCause cuts what a server has to say, in bytes.
const maxCause = 300

func (c *errorCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	e := loggedError{Time: entry.Time, Level: entry.Level.String(), Message: entry.Message}
	for _, field := range append(c.fields[:len(c.fields):len(c.fields)], fields...) {
		if err, ok := field.Interface.(error); ok && field.Type == zapcore.ErrorType && err != nil {
			e.Cause = strings.ToValidUTF8(fmt.Sprintf("%.*s", maxCause, err.Error()), "")
		}
	}
	c.ring.put(e)
	return nil
}

func (*errorCore) Sync() error { return nil }
