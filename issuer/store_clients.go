package issuer

import (
	"context"
	"time"
)

// RegistrationStore holds clients that registered themselves, for all nodes.
type RegistrationStore interface {
	// RegisterClient stores a new client. It goes by itself when it was not used
	// for unusedTTL, and sooner when it was never used. ErrTooManyClients.
	RegisterClient(ctx context.Context, registration ClientRegistration, unusedTTL time.Duration, origin Origin) error
	// FindRegistration returns a client that registered itself. ErrNotFound: no
	// such client, or it is disabled.
	FindRegistration(ctx context.Context, clientID string) (ClientRegistration, error)
	// UpdateRegistration replaces name, metadata and secret of the client.
	// ErrNotFound: the registration access token is not its. RFC 7592 section 2.2.
	UpdateRegistration(ctx context.Context, registration ClientRegistration, origin Origin) error
	// DeleteRegistration removes the client with all its sessions. ErrNotFound:
	// the registration access token is not its. RFC 7592 section 2.3.
	DeleteRegistration(ctx context.Context, clientID string, accessToken Digest, origin Origin) error

	// FindDocument returns the client metadata document that was fetched last,
	// fresh or not. ErrNotFound: none was.
	FindDocument(ctx context.Context, clientID string) (ClientDocument, error)
	// KeepDocument keeps a document that was checked, for as long as it is fresh
	// and, for use in need, until it was not used for unusedTTL. ErrNotFound: the
	// client is disabled. ErrTooManyClients.
	KeepDocument(ctx context.Context, document ClientDocument, unusedTTL time.Duration, origin Origin) error
	// DropDocument forgets that a document is fresh: its host says that it is none.
	DropDocument(ctx context.Context, clientID string) error

	// ApproveClient notes which revision of a client the user said yes to.
	// ErrNotFound: the client is gone.
	ApproveClient(ctx context.Context, clientID, userID string, revision Digest) error
	// ClientApproval returns the revision that was noted last. ErrNotFound: none.
	ClientApproval(ctx context.Context, clientID, userID string) (Digest, error)
}

// ClientRegistration is a client that registered itself. RFC 7591.
type ClientRegistration struct {
	ClientID    string
	Name        string
	Metadata    []byte    // JSON, checked
	Secret      *Digest   // nil: it has none
	AccessToken Digest    // of the registration access token, RFC 7592
	IssuedAt    time.Time // by the database's clock
}

// ClientDocument is a client metadata document as it was fetched.
type ClientDocument struct {
	ClientID string // its URL
	Name     string
	Body     []byte
	// Fresh is how long it need not be fetched again; counted by the database's
	// clock, below zero by what it is stale.
	Fresh    time.Duration
	Disabled bool // switched off in SQL
}
