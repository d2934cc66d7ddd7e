package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/caddy-scope/caddy-scope/issuer/fetch"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// IdentityProvider vouches for its users, and for what clients may do for them
// here, by assertions that it signs.
type IdentityProvider struct {
	// Issuer is its identifier, `iss` of its assertions: an https URL. Required.
	Issuer string
	// JWKSURI is where its public keys are. Empty: its OpenID metadata, at
	// /.well-known/openid-configuration below Issuer, say where.
	JWKSURI string
	// User makes a user of the claims of an assertion that holds. An error refuses
	// it and tells the log why, without values. Required.
	User func(claims map[string]any) (ExternalUser, error)
	// KnownUsersOnly refuses users who are not known here already.
	KnownUsersOnly bool
	// Tenant: assertions must have the claim `tenant`, and User checks which. One
	// with the claim is refused otherwise: it is about a tenant's own users, whose
	// names may be those of another's.
	Tenant bool
	// Fetch is how keys and metadata are fetched.
	Fetch fetch.Config
}

const (
	maxProviderMetadata = 64 << 10 // bytes

	// An assertion that names an unknown key makes us ask for newer ones: so many
	// times.
	providerFetches = 30
)

// identityProvider is a provider with what is known of its keys.
type identityProvider struct {
	IdentityProvider
	fetcher *fetch.Fetcher
	keys    *remoteKeys
	now     func() time.Time

	mu      sync.Mutex
	flights singleflight.Group
	found   providerKeys
}

// providerKeys is where the provider says that its keys are.
type providerKeys struct {
	address             string
	fetched, freshUntil time.Time
}

// openIdentityProviders checks the providers. It sends nothing. Without one the
// grant is off.
func (s *Server) openIdentityProviders() error {
	s.providers = make(map[string]*identityProvider, len(s.cfg.IdentityProviders))
	for _, with := range s.cfg.IdentityProviders {
		p, err := s.newIdentityProvider(with)
		if err != nil {
			return fmt.Errorf("identity provider %q: %w", with.Issuer, err)
		}
		if s.providers[with.Issuer] != nil {
			return fmt.Errorf("identity provider %q: it is there twice", with.Issuer)
		}
		s.providers[with.Issuer] = p
	}
	if len(s.providers) == 0 {
		s.cfg.Grants = slices.DeleteFunc(slices.Clone(s.cfg.Grants), func(grant string) bool { return grant == grantJWTBearer })
	}
	return nil
}

// CheckIdentityProvider refuses a provider that cannot be one for the server with
// this issuer.
func CheckIdentityProvider(issuer string, p IdentityProvider) error {
	u, err := url.Parse(p.Issuer)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("is not an https URL without query and fragment")
	case p.Issuer == issuer: // the draft, section 8.3
		return errors.New("is this server itself, whose users can be asked")
	case p.User == nil:
		return errors.New("User is missing")
	}
	address := p.JWKSURI
	if address == "" {
		address = p.metadataURL()
	}
	if _, err := fetch.CheckURL(address); err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	return nil
}

func (s *Server) newIdentityProvider(with IdentityProvider) (*identityProvider, error) {
	if err := CheckIdentityProvider(s.cfg.Issuer, with); err != nil {
		return nil, err
	}
	p := &identityProvider{IdentityProvider: with, fetcher: fetch.New(with.Fetch), now: s.cfg.Now}
	known, err := lru.New[string, fetchedKeys](2) // the last address, and one that it moves to
	if err != nil {
		return nil, err
	}
	fetches := newThrottle(providerFetches, fetchWindow, 1, s.cfg.Now)
	p.keys = &remoteKeys{
		fetcher: p.fetcher, now: s.cfg.Now, known: known,
		reserve: func(context.Context, string) error {
			if ok, retryAfter := fetches.Reserve(""); !ok {
				return &throttledError{retryAfter: retryAfter}
			}
			return nil
		},
		refused: func(address string, err error) {
			s.cfg.Logger.Warn("keys of an identity provider refused", zap.String("provider", with.Issuer), zap.String("jwks_uri", address), zap.Error(err))
		},
	}
	return p, nil
}

func (p *IdentityProvider) metadataURL() string {
	return strings.TrimSuffix(p.Issuer, "/") + oauth.WellKnownOpenIDConfiguration
}

// publicKeys are the provider's keys; with withNewestKeys those that are no older
// than a minute. An error means that nobody can say.
func (p *identityProvider) publicKeys(ctx context.Context) (ClientKeys, error) {
	address := p.JWKSURI
	if address == "" {
		var err error
		if address, err = p.discover(ctx); err != nil {
			return nil, fmt.Errorf("metadata of %s: %w", p.Issuer, err)
		}
	}
	keys, err := p.keys.at(address)(ctx)
	if err != nil {
		return nil, fmt.Errorf("keys of %s: %w", p.Issuer, err)
	}
	return keys, nil
}

// discover returns where the provider says that its keys are. What it said last
// holds while it is down.
func (p *identityProvider) discover(ctx context.Context) (string, error) {
	p.mu.Lock()
	found := p.found
	p.mu.Unlock()
	now := p.now()
	if found.address != "" && now.Before(found.freshUntil) && (!newestKeys(ctx) || now.Before(found.fetched.Add(minKeysFresh))) {
		return found.address, nil
	}
	address, err, _ := p.flights.Do("", func() (any, error) { return p.fetchMetadata(context.WithoutCancel(ctx)) })
	switch {
	case err == nil:
		return address.(string), nil
	case found.address != "" && now.Before(found.fetched.Add(maxDocumentStale)):
		return found.address, nil
	}
	return "", err
}

// fetchMetadata reads the provider's OpenID metadata. OpenID Connect Discovery
// section 4.
func (p *identityProvider) fetchMetadata(ctx context.Context) (string, error) {
	u, err := url.Parse(p.metadataURL())
	if err != nil {
		return "", err
	}
	if err := p.keys.reserve(ctx, u.Host); err != nil {
		return "", err
	}
	document, err := p.fetcher.Get(ctx, u.String(), maxProviderMetadata)
	if err != nil {
		return "", err
	}
	var metadata struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(document.Body, &metadata); err != nil {
		return "", errors.New("they are no JSON object")
	}
	if metadata.Issuer != p.Issuer {
		return "", errors.New("they are another issuer's")
	}
	if _, err := fetch.CheckURL(metadata.JWKSURI); err != nil {
		return "", fmt.Errorf("jwks_uri: %w", err)
	}
	fresh := document.Fresh
	if fresh < 0 {
		fresh = maxKeysFresh
	}
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.found = providerKeys{metadata.JWKSURI, now, now.Add(min(max(fresh, minKeysFresh), maxKeysFresh))}
	return metadata.JWKSURI, nil
}
