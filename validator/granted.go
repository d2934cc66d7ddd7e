package validator

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// sharedClaims are what tokens share, and what such tokens may do.
type sharedClaims struct {
	commonClaims

	mu      sync.Mutex // of whoever adds
	granted atomic.Pointer[[]*grantedScopes]
}

// bytes is about what they weigh.
func (c *sharedClaims) bytes() int {
	const objects = 256 // this one, and what such tokens may do
	return objects + len(c.issuer) + len(c.audience) + len(c.clientID) + len(c.scope) + len(c.kid)
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
			if other != g && other.catalog == g.catalog && len(kept) < maxGranted {
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
