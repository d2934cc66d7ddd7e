//go:build !unix

package postgres

import (
	"context"
	"errors"

	"go.uber.org/zap"
)

// EmbeddedConfig describes the server of `postgres embedded`.
type EmbeddedConfig struct {
	DataDir, BinDir, Repository string
	Settings                    map[string]string
	Ephemeral                   bool
	Logger                      *zap.Logger
}

// Embedded is a running server. There is none on this system.
type Embedded struct{}

// StartEmbedded is not supported on this system: name a server by its DSN.
func StartEmbedded(context.Context, EmbeddedConfig) (*Embedded, error) {
	return nil, errors.New("`postgres embedded` is not supported on this system; give the DSN of a server")
}

// DSN is empty.
func (e *Embedded) DSN() string { return "" }

// DataDir is empty.
func (e *Embedded) DataDir() string { return "" }

// Stop does nothing.
func (e *Embedded) Stop(context.Context) error { return nil }

// RunningEmbeddedDSN finds none on this system.
func RunningEmbeddedDSN(context.Context, string) (string, bool) { return "", false }
