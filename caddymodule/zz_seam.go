package caddymodule

import (
	"context"
	"errors"
)

func (a *App) open(ctx context.Context) (*runtime, error) {
	return nil, errors.New("not yet")
}
func (a *App) release() error { return nil }
