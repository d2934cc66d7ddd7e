package validator

import (
	"crypto/ecdsa"
	"sync"
	"sync/atomic"
	"unique"

	"golang.org/x/sync/singleflight"

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
	verifies singleflight.Group // by token and key
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
		MaxEntries:  maxTokens,
		MaxBytes:    int(maxBytes),
		EntryBytes:  tokenOverhead,
		SharedBytes: (*sharedClaims).bytes,
		Copy:        func(to, from *keptToken) { from.copyTo(to) },
		Expires:     func(t *keptToken) int64 { return t.expiresAt },
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

// verifyOnce runs verify, which takes this key, and keeps the claims that it returns.
// Callers with the same token and key at the same time share one run.
func (c *TokenCache) verifyOnce(token string, key *ecdsa.PublicKey, verify func() (*claims, error)) (verifiedToken, error) {
	if c == nil {
		said, err := verify()
		if err != nil {
			return verifiedToken{}, err
		}
		return said.token(&sharedClaims{commonClaims: said.commonClaims}), nil
	}
	// Gates of two issuers, or of two configurations during a reload, may have
	// different keys of one name.
	point, err := key.Bytes()
	if err != nil {
		return verifiedToken{}, err
	}
	shared, err, _ := c.verifies.Do(token+string(point), func() (any, error) {
		if known, ok := c.get(token); ok && known.verifiedBy(key) { // since it was looked up
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

// maxShared bounds the table by which tokens find what they share.
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
