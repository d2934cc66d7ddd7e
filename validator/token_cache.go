package validator

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"golang.org/x/sync/singleflight"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/slabcache"
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
	tokens   *slabcache.Cache[keptToken, sharedClaims]
	verifies singleflight.Group // by token
	verified atomic.Int64

	mu     sync.Mutex
	shared map[commonClaims]*sharedClaims
}

// tokenOverhead is what an entry weighs besides the bytes of its token and its own
// claims: its place in a slab and in the index.
const tokenOverhead = 256

// NewTokenCache returns an empty cache of at most maxTokens, which take about
// maxBytes at most.
func NewTokenCache(maxTokens int, maxBytes uint64) *TokenCache {
	return &TokenCache{tokens: slabcache.New(slabcache.Options[keptToken, sharedClaims]{
		MaxEntries: maxTokens,
		MaxBytes:   int(maxBytes),
		EntryBytes: tokenOverhead,
		Copy:       func(to, from *keptToken) { from.copyTo(to) },
		Expires:    func(t *keptToken) int64 { return t.expiresAt },
	})}
}

// Verified returns how many tokens were not known and had their signature
// checked. Those that were known are not counted: that would cost each request.
func (c *TokenCache) Verified() int64 { return c.verified.Load() }

// Evicted returns how many tokens had to go before they expired.
func (c *TokenCache) Evicted() int64 { return c.tokens.Evicted() }

// Len returns the number of tokens kept.
func (c *TokenCache) Len() int { return c.tokens.Len() }

// Bytes returns what the entries weigh together.
func (c *TokenCache) Bytes() uint64 { return uint64(c.tokens.Bytes()) }

// get returns a token verified before. A nil cache has none.
func (c *TokenCache) get(token string) (verifiedToken, bool) {
	if c == nil {
		return verifiedToken{}, false
	}
	entry, ok := c.tokens.Get(token)
	return verifiedToken{entry.Value, entry.Shared, entry.Text}, ok
}

// verifyOnce runs verify and keeps the claims that it returns. Callers with the same
// token at the same time share one run.
func (c *TokenCache) verifyOnce(token string, verify func() (*claims, error)) (verifiedToken, error) {
	if c == nil {
		said, err := verify()
		if err != nil {
			return verifiedToken{}, err
		}
		return said.token(&sharedClaims{commonClaims: said.commonClaims}), nil
	}
	shared, err, _ := c.verifies.Do(token, func() (any, error) {
		if known, ok := c.get(token); ok { // since it was looked up
			return known, nil
		}
		c.verified.Add(1)
		said, err := verify()
		if err != nil {
			return nil, err
		}
		verified := said.token(c.sharedClaims(&said.commonClaims))
		if kept, ok := c.tokens.Put(token, verified.keptToken, verified.sharedClaims, verified.own); ok {
			verified = verifiedToken{kept.Value, kept.Shared, kept.Text}
		}
		return verified, nil
	})
	if err != nil {
		return verifiedToken{}, err
	}
	return shared.(verifiedToken), nil
}

// maxShared bounds the table; the combinations that exist are far fewer.
const maxShared = 1024

// sharedClaims returns the one copy of what many tokens say.
func (c *TokenCache) sharedClaims(said *commonClaims) *sharedClaims {
	c.mu.Lock()
	defer c.mu.Unlock()
	if shared, ok := c.shared[*said]; ok {
		return shared
	}
	if c.shared == nil || len(c.shared) >= maxShared {
		c.shared = make(map[commonClaims]*sharedClaims)
	}
	shared := &sharedClaims{commonClaims: *said}
	// Pieces of one token's payload; and equal strings at one address are compared
	// at a glance.
	for _, s := range []*string{&shared.issuer, &shared.audience, &shared.clientID, &shared.scope, &shared.kid} {
		*s = unique.Make(*s).Value()
	}
	c.shared[shared.commonClaims] = shared
	return shared
}

// verifiedToken is a token whose signature was verified. It is a value of four
// words, so that it is put together for each request from what is kept of it, which
// has no pointers: see slabcache.
type verifiedToken struct {
	*keptToken
	*sharedClaims
	own string // user, session and key, one behind the other
}

// keptToken is what is a token's own, but for the text of it.
type keptToken struct {
	times
	userLength, sessionLength uint32

	noted   atomic.Int64  // when its use was last noted, in ns; see Decision.NoteUse
	session atomic.Uint64 // handle of the session as it was read last; see SessionReader.Held
}

// copyTo brings a token from one slab to another.
func (t *keptToken) copyTo(to *keptToken) {
	to.times, to.userLength, to.sessionLength = t.times, t.userLength, t.sessionLength
	to.noted.Store(t.noted.Load())
	to.session.Store(t.session.Load())
}

// isNone reports whether there is no token.
func (t verifiedToken) isNone() bool { return t.keptToken == nil }

func (t verifiedToken) userID() string { return t.own[:t.userLength] }

func (t verifiedToken) sessionID() string {
	return t.own[t.userLength : t.userLength+t.sessionLength]
}

// boundKey is the thumbprint of the key that the token is bound to; empty: a bearer
// token.
func (t verifiedToken) boundKey() string { return t.own[t.userLength+t.sessionLength:] }

func (t verifiedToken) expires() time.Time { return time.Unix(t.expiresAt, 0) }

// sharedClaims are what tokens share, and what such tokens may do.
type sharedClaims struct {
	commonClaims

	mu      sync.Mutex // of whoever adds
	granted atomic.Pointer[[]*grantedScopes]
}

// grantedScopes is what tokens of one scope may do while their sessions allow
// the same.
type grantedScopes struct {
	catalog *oauth.Catalog
	session oauth.ScopeSet
	scopes  oauth.ScopeSet // in both, hierarchy expanded
	text    string         // of scopes
}

// maxGranted bounds the answers that are kept of tokens which say the same: their
// sessions differ where users or clients have narrowed them.
const maxGranted = 32

// grantedBy returns what the token may do: a token never exceeds its session as
// it stands now. Answers are kept, for tokens that say the same and sessions that
// allow the same.
func (c *sharedClaims) grantedBy(session oauth.ScopeSet, grants *grantTable) *grantedScopes {
	if known := c.granted.Load(); known != nil {
		for _, g := range *known {
			if g.catalog == grants.catalog && g.session.Equal(session) {
				return g
			}
		}
	}
	g := grants.granted(c.scope, session)
	c.mu.Lock()
	defer c.mu.Unlock()
	// The newest first, and none of a catalog that a reload replaced.
	kept := []*grantedScopes{g}
	if known := c.granted.Load(); known != nil {
		for _, other := range *known {
			if other.catalog == g.catalog && len(kept) < maxGranted {
				kept = append(kept, other)
			}
		}
	}
	c.granted.Store(&kept)
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
