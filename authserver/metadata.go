package authserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// ErrOtherIssuer: the metadata at the issuer's address name another issuer. Who
// took them could be led to another server's keys. RFC 8414 section 3.3.
var ErrOtherIssuer = errors.New("the metadata name another issuer")

// metadataFresh is how long metadata are taken as they are.
const metadataFresh = 10 * time.Minute

// metadata are the members of RFC 8414 section 2 that matter here.
type metadata struct {
	Issuer  string `json:"issuer"`
	JWKSURI string `json:"jwks_uri"`
	// IntrospectionEndpoint is needed where tokens are asked about only.
	IntrospectionEndpoint string `json:"introspection_endpoint"`

	read time.Time
}

// readMetadata returns the metadata; those of before where they cannot be read
// again.
func (s *Server) readMetadata(ctx context.Context) (*metadata, error) {
	known := s.metadata.Load()
	if known != nil && s.cfg.Now().Sub(known.read) < metadataFresh {
		return known, nil
	}
	m := &metadata{read: s.cfg.Now()}
	err := s.get(ctx, oauth.IssuerMetadataURL(s.cfg.Issuer), m)
	switch {
	case err != nil && known != nil:
		return known, nil
	case err != nil:
		return nil, fmt.Errorf("read the metadata of %s: %w", s.cfg.Issuer, err)
	case m.Issuer != s.cfg.Issuer:
		return nil, fmt.Errorf("%w: %q, not %q", ErrOtherIssuer, m.Issuer, s.cfg.Issuer)
	}
	if err := checkURL(m.JWKSURI); err != nil {
		return nil, fmt.Errorf("the metadata of %s: jwks_uri %q: %w", s.cfg.Issuer, m.JWKSURI, err)
	}
	s.metadata.Store(m)
	return m, nil
}
