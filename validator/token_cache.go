package validator

import (
	"context"
	"crypto/ecdsa"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"

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
	tokens            *otter.Cache[string, *verifiedToken]
	verified, evicted atomic.Int64
}

// tokenOverhead is what an entry weighs besides the bytes of its token: the
// cache's own node, the claims, the session that they lead to, and what is counted.
const tokenOverhead = 768

// NewTokenCache returns an empty cache of at most maxTokens, which take about
// maxBytes at most.
func NewTokenCache(maxTokens int, maxBytes uint64) *TokenCache {
	// No token takes less than its share: that is the bound on their number.
	share := int((maxBytes-1)/uint64(maxTokens)) + 1
	c := new(TokenCache)
	c.tokens = otter.Must(&otter.Options[string, *verifiedToken]{
		MaximumWeight: uint64(share * maxTokens),
		Weigher:       func(token string, _ *verifiedToken) uint32 { return uint32(max(share, len(token)+tokenOverhead)) }, // at most maxToken
		// An expired token is refused anyway; this frees its memory.
		ExpiryCalculator: otter.ExpiryCreatingFunc(func(entry otter.Entry[string, *verifiedToken]) time.Duration {
			return max(time.Until(entry.Value.expires())+time.Minute, time.Minute)
		}),
		OnDeletion: func(entry otter.DeletionEvent[string, *verifiedToken]) {
			if entry.Cause == otter.CauseOverflow {
				c.evicted.Add(1)
			}
		},
	})
	return c
}

// Verified returns how many tokens were not known and had their signature
// checked. Those that were known are not counted: that would cost each request.
func (c *TokenCache) Verified() int64 { return c.verified.Load() }

// Evicted returns how many tokens had to go before they expired.
func (c *TokenCache) Evicted() int64 { return c.evicted.Load() }

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
		func(context.Context, string) (*verifiedToken, error) {
			c.verified.Add(1)
			return verify()
		}))
}

// verifiedToken is a token whose signature was verified.
type verifiedToken struct {
	claims
	kid string
	key *ecdsa.PublicKey // that verified it

	session atomic.Pointer[Session] // as it was read last; see SessionReader.Holds
	granted atomic.Pointer[grantedScopes]
	noted   atomic.Int64 // when its use was last noted, in ns; see Decision.NoteUse
	use     atomic.Pointer[tokenUse]
}

// newVerifiedToken brings the claims into the form in which they are kept. A
// node keeps many thousands of tokens, and nearly every request looks at one
// that is not in the processor's cache: what tokens have in common is there once,
// and what is a token's own lies together.
func newVerifiedToken(c claims, kid string, key *ecdsa.PublicKey) *verifiedToken {
	for _, shared := range []*string{&c.issuer, &c.audience, &c.clientID, &c.scope, &kid} {
		*shared = unique.Make(*shared).Value()
	}
	own := c.userID + c.sessionID + c.boundKey
	c.userID, own = own[:len(c.userID)], own[len(c.userID):]
	c.sessionID, c.boundKey = own[:len(c.sessionID)], own[len(c.sessionID):]
	return &verifiedToken{claims: c, kid: kid, key: key}
}

// grantedScopes is what tokens of one scope may do while their sessions allow
// the same.
type grantedScopes struct {
	catalog *oauth.Catalog
	session oauth.ScopeSet
	scopes  oauth.ScopeSet // in both, hierarchy expanded
	text    string         // of scopes
}

// grantedBy returns what the token may do: a token never exceeds its session as
// it stands now. The last answer is kept, for as long as it is asked with the
// same declarations and the same session scopes.
func (t *verifiedToken) grantedBy(session oauth.ScopeSet, grants *grantTable) *grantedScopes {
	if g := t.granted.Load(); g != nil && g.catalog == grants.catalog && g.session.Equal(session) {
		return g
	}
	g := grants.granted(t.scope, session)
	t.granted.Store(g)
	return g
}

// grantTable shares what is granted between the tokens to which the same is.
type grantTable struct {
	catalog *oauth.Catalog

	mu    sync.Mutex
	known map[grantKey]*grantedScopes
}

type grantKey struct{ token, session string }

// maxKnownGrants bounds the table; the combinations that exist are far fewer.
const maxKnownGrants = 1024

func (t *grantTable) granted(token string, session oauth.ScopeSet) *grantedScopes {
	key := grantKey{token, session.String()}
	t.mu.Lock()
	defer t.mu.Unlock()
	if g, ok := t.known[key]; ok {
		return g
	}
	g := &grantedScopes{catalog: t.catalog, session: session}
	g.scopes = t.catalog.Expand(oauth.NewScopeSet(strings.Fields(token)...)).Intersect(t.catalog.Expand(session))
	g.text = g.scopes.String()
	if t.known == nil || len(t.known) >= maxKnownGrants {
		t.known = make(map[grantKey]*grantedScopes)
	}
	t.known[key] = g
	return g
}
