package validator

import (
	"context"
	"crypto/ecdsa"
	"strings"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// TokenCache keeps what access tokens say that were verified before, so that a
// token's signature is checked once and not with every request. It holds facts
// only: these bytes carry these claims and this key signed them. Whether that
// suffices for a request (issuer, audience, time, the key still trusted,
// session, rule) is decided at each request, so that one cache may serve every
// gate of the process and outlive a reload.
//
// The key is the token, byte for byte: two spellings of one token have two
// entries, or, past the strict gate, none. Only verified tokens are kept, and
// no more of them than fit into the bound. Safe for concurrent use.
type TokenCache struct {
	tokens *otter.Cache[string, *verifiedToken]
}

// tokenOverhead is what an entry weighs besides the bytes of its token, which
// it holds twice: once as the key, once spread over the claims.
const tokenOverhead = 512

// NewTokenCache returns an empty cache that takes about maxBytes at most.
func NewTokenCache(maxBytes uint64) *TokenCache {
	return &TokenCache{otter.Must(&otter.Options[string, *verifiedToken]{
		MaximumWeight: maxBytes,
		Weigher:       func(token string, _ *verifiedToken) uint32 { return uint32(2*len(token) + tokenOverhead) }, // at most maxToken
		// An expired token is refused anyway; this frees its memory.
		ExpiryCalculator: otter.ExpiryCreatingFunc(func(entry otter.Entry[string, *verifiedToken]) time.Duration {
			return max(time.Until(entry.Value.expiresAt)+time.Minute, time.Minute)
		}),
	})}
}

// Len returns the number of tokens kept, about.
func (c *TokenCache) Len() int { return c.tokens.EstimatedSize() }

// Bytes returns what the entries weigh together, about.
func (c *TokenCache) Bytes() uint64 { return c.tokens.WeightedSize() }

// get returns a token verified before. A nil cache has none.
func (c *TokenCache) get(token string) (*verifiedToken, bool) {
	if c == nil {
		return nil, false
	}
	return c.tokens.GetIfPresent(token)
}

// verifyOnce runs verify and keeps its result. Callers with the same token at
// the same time share one run.
func (c *TokenCache) verifyOnce(ctx context.Context, token string, verify func() (*verifiedToken, error)) (*verifiedToken, error) {
	if c == nil {
		return verify()
	}
	// The token is a piece of the request's header block; a copy lets go of the
	// rest.
	return c.tokens.Get(ctx, strings.Clone(token), otter.LoaderFunc[string, *verifiedToken](
		func(context.Context, string) (*verifiedToken, error) { return verify() }))
}

// verifiedToken is a token whose signature was verified.
type verifiedToken struct {
	claims
	kid string
	key *ecdsa.PublicKey // that verified it

	granted atomic.Pointer[grantedScopes]
	noted   atomic.Int64 // when its use was last noted, in ns; see NoteUse
}

// grantedScopes is what a token may do while its session allows session.
type grantedScopes struct {
	catalog *oauth.Catalog
	session oauth.ScopeSet
	scopes  oauth.ScopeSet // in both, hierarchy expanded
	text    string         // of scopes
}

// grantedBy returns what the token may do: a token never exceeds its session as
// it stands now. The last answer is kept, for as long as it is asked with the
// same declarations and the same session scopes.
func (t *verifiedToken) grantedBy(session oauth.ScopeSet, catalog *oauth.Catalog) *grantedScopes {
	if g := t.granted.Load(); g != nil && g.catalog == catalog && g.session.Equal(session) {
		return g
	}
	g := &grantedScopes{catalog: catalog, session: session}
	g.scopes = catalog.Expand(t.scopes).Intersect(catalog.Expand(session))
	g.text = g.scopes.String()
	t.granted.Store(g)
	return g
}
