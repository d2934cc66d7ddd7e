package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
)

// Admin works on the database of one configuration.
type Admin struct {
	// Store is where everything is. Required.
	Store *postgres.Store
	// Configured are the clients of the configuration, by id.
	Configured map[string]Configured
	// Check makes the client that an operator describes, as the server would; the
	// error says what is wrong with it. Required.
	Check func(id string, spec ClientSpec, secrets []issuer.Digest) (*issuer.Client, error)
	// Keys are the signing keys. nil: the methods about keys are not called.
	Keys *issuer.KeyRing
	// KeysConfigured: they stand in the configuration.
	KeysConfigured bool
	// Hear lets this node hear of what has ended before that is answered; nil: it
	// serves nothing.
	Hear func(context.Context)
	// Steps bounds the transactions of one call about sessions and events; the
	// answer says where to go on. Zero: no bound.
	Steps int
	// Tell is told what a call has done, with names and values that say about whom:
	// session_revoked, sessions_revoked, client_disabled, client_enabled,
	// client_removed, client_secret_rotated. It does not wait. nil: nobody.
	Tell func(what string, data ...any)
	// Progress is told how many sessions a call has dealt with so far; nil: nobody.
	Progress func(n int)
}

// Configured is a client of the configuration.
type Configured struct {
	*issuer.Client
	Source string // where it stands
}

// Error is an answer to an operator: what cannot be done, and what to do instead.
type Error struct {
	Status int // of HTTP
	Text   string
}

func (e *Error) Error() string { return e.Text }

func invalid(format string, args ...any) error {
	return &Error{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

func missing(format string, args ...any) error {
	return &Error{http.StatusNotFound, fmt.Sprintf(format, args...)}
}

func conflict(format string, args ...any) error {
	return &Error{http.StatusConflict, fmt.Sprintf(format, args...)}
}

// orMissing says what is not there.
func orMissing(err error, format string, args ...any) error {
	if errors.Is(err, issuer.ErrNotFound) {
		return missing(format, args...)
	}
	return err
}

func (a *Admin) progress(n int) {
	if a.Progress != nil {
		a.Progress(n)
	}
}

func (a *Admin) tell(what string, data ...any) {
	if a.Tell != nil {
		a.Tell(what, data...)
	}
}

func (a *Admin) hear(ctx context.Context) {
	if a.Hear != nil {
		a.Hear(ctx)
	}
}

// enough reports whether a call that took so many steps stops here.
func (a *Admin) enough(steps int) bool { return a.Steps > 0 && steps >= a.Steps }
