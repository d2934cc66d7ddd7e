package admin

import (
	"context"
	"encoding/json"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
)

// Registration is a client that registered itself.
type Registration struct {
	ClientID     string                  `json:"client_id"`
	Name         string                  `json:"name,omitempty"`
	Kind         issuer.RegistrationKind `json:"kind"` // dynamic or document
	Confidential bool                    `json:"confidential"`
	IssuedAt     time.Time               `json:"issued_at"` // when it was first seen
	UsedAt       *time.Time              `json:"used_at,omitempty"`
	DisabledAt   *time.Time              `json:"disabled_at,omitempty"`
	// Metadata is what the client says of itself; in a list it is left out.
	Metadata json.RawMessage `json:"metadata,omitempty"`
}

func registrationOf(r postgres.RegistrationRecord) Registration {
	return Registration{ClientID: r.ClientID, Name: r.Name, Kind: r.Kind, Confidential: r.Confidential, IssuedAt: r.IssuedAt, UsedAt: r.UsedAt, DisabledAt: r.DisabledAt}
}

// Registrations lists the clients that registered themselves, by id.
func (a *Admin) Registrations(ctx context.Context, paging Paging) (Page[Registration], error) {
	return pageByName(ctx, paging, a.Store.ListRegistrations, func(r postgres.RegistrationRecord) (string, Registration) {
		return r.ClientID, registrationOf(r)
	})
}

// Registration returns one of them, with what it says of itself.
func (a *Admin) Registration(ctx context.Context, id string) (r Registration, err error) {
	record, err := a.Store.FindRegistrationRecord(ctx, id)
	if err != nil {
		return r, orMissing(err, "no client %q has registered itself; to see who has: registration list", id)
	}
	r = registrationOf(record)
	if json.Valid(record.Metadata) {
		r.Metadata = record.Metadata
	}
	return r, nil
}

// RemoveRegistration removes one of them, with all that belongs to it. One that
// is known by its document comes back when it is used again; disabling keeps it
// out.
func (a *Admin) RemoveRegistration(ctx context.Context, id string) (Switched, error) {
	if _, err := a.Registration(ctx, id); err != nil {
		return Switched{}, err
	}
	return a.remove(ctx, id)
}
