package validator

import (
	"strings"
	"sync"
	"sync/atomic"
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
	tokens   *slabcache.Cache[verifiedToken]
	verifies singleflight.Group // by token
	verified atomic.Int64
}

// tokenOverhead is what an entry weighs besides the bytes of its token: the
// claims, the session that they lead to, and what is counted.
const tokenOverhead = 768

// NewTokenCache returns an empty cache of at most maxTokens, which take about
// maxBytes at most.
func NewTokenCache(maxTokens int, maxBytes uint64) *TokenCache {
	common := commonTable{}
	return &TokenCache{tokens: slabcache.New(slabcache.Options[verifiedToken]{
		MaxEntries: maxTokens,
		MaxBytes:   int(maxBytes),
		EntryBytes: tokenOverhead,
		Text:       (*verifiedToken).ownText,
		Copy: func(to, from *verifiedToken, text *slabcache.Text) {
			from.copyTo(to, text, common.find(from.commonClaims))
		},
		Expires: func(t *verifiedToken) int64 { return t.expiresAt },
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
func (c *TokenCache) get(token string) (*verifiedToken, bool) {
	if c == nil {
		return nil, false
	}
	return c.tokens.Get(token)
}

// verifyOnce runs verify and keeps its result. Callers with the same token at
// the same time share one run.
func (c *TokenCache) verifyOnce(token string, verify func() (*verifiedToken, error)) (*verifiedToken, error) {
	if c == nil {
		return verify()
	}
	shared, err, _ := c.verifies.Do(token, func() (any, error) {
		if known, ok := c.tokens.Get(token); ok { // since it was looked up
			return known, nil
		}
		c.verified.Add(1)
		verified, err := verify()
		if err != nil {
			return nil, err
		}
		if kept := c.tokens.Put(token, verified); kept != nil {
			verified = kept
		}
		return verified, nil
	})
	if err != nil {
		return nil, err
	}
	return shared.(*verifiedToken), nil
}

// verifiedToken is a token whose signature was verified.
type verifiedToken struct {
	claims

	session atomic.Pointer[Session] // as it was read last; see SessionReader.Holds
	granted atomic.Pointer[grantedScopes]
	noted   atomic.Int64 // when its use was last noted, in ns; see Decision.NoteUse
	use     atomic.Pointer[tokenUse]
}

// ownText is the length of what is the token's own.
func (t *verifiedToken) ownText() int { return len(t.userID) + len(t.sessionID) + len(t.boundKey) }

// copyTo brings a token among those that are kept, or from one slab of them to
// another. The session and the counts are found anew: they are kept in the order in
// which they were made, and old ones would hold what lies beside them.
func (t *verifiedToken) copyTo(to *verifiedToken, text *slabcache.Text, common *commonClaims) {
	to.claims = t.claims
	to.commonClaims = common
	to.userID, to.sessionID, to.boundKey = text.Keep(t.userID), text.Keep(t.sessionID), text.Keep(t.boundKey)
	to.granted.Store(t.granted.Load())
	to.noted.Store(t.noted.Load())
}

// commonTable has what tokens share once. Not safe for concurrent use.
type commonTable map[commonClaims]*commonClaims

// maxCommon bounds the table; the combinations that exist are far fewer.
const maxCommon = 1024

func (t commonTable) find(c *commonClaims) *commonClaims {
	if common, ok := t[*c]; ok {
		return common
	}
	if len(t) >= maxCommon {
		clear(t)
	}
	common := new(commonClaims)
	*common = *c
	// Pieces of one token's payload; and equal strings at one address are compared
	// at a glance.
	for _, s := range []*string{&common.issuer, &common.audience, &common.clientID, &common.scope, &common.kid} {
		*s = unique.Make(*s).Value()
	}
	t[*common] = common
	return common
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
