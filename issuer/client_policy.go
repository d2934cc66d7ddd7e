package issuer

import (
	"errors"
	"net/url"
	"strings"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// ClientPolicy bounds the clients that come from one place.
type ClientPolicy struct {
	// Pattern names the place: https://HOST/* or https://HOST/PATH/*, HOST may
	// begin with "*." for every name below; "loopback" for apps on the user's own
	// device (loopback redirects and private schemes); "*" for every client that
	// registers itself and that no other pattern names.
	Pattern string
	// Deny: such clients cannot register themselves.
	Deny bool
	// Scopes are the most that they may get; nil: no such bound.
	Scopes oauth.ScopeSet
}

// Patterns that are not URLs.
const (
	policyLoopback = "loopback"
	policyRest     = "*"
)

// ClientPolicies are policies of which the most specific one holds.
type ClientPolicies []ClientPolicy

// CheckPolicyPattern checks the pattern of a policy.
func CheckPolicyPattern(pattern string) error {
	if pattern == policyLoopback || pattern == policyRest {
		return nil
	}
	rest, ok := strings.CutPrefix(pattern, "https://")
	host, path, slash := strings.Cut(rest, "/")
	name := strings.TrimPrefix(host, "*.")
	u, err := url.Parse("https://" + name + "/")
	switch {
	case !ok || !slash:
		return errors.New("needs the form https://HOST/*, loopback or *")
	case err != nil || name == "" || u.Host != name || u.User != nil || name != strings.ToLower(name) || strings.Contains(name, "*"):
		return errors.New("needs a name in lower case for a host; *. may stand before it")
	case path != "*" && !strings.HasSuffix(path, "/*") || strings.Contains(strings.TrimSuffix(path, "*"), "*"):
		return errors.New("must end in /*, and have no other * in its path")
	}
	return nil
}

// matches reports whether the place is one that the pattern names, and how
// specific that is.
func (p *ClientPolicy) matches(place string) (rank int, ok bool) {
	u, err := url.Parse(place)
	if err != nil {
		return 0, p.Pattern == policyRest
	}
	switch {
	case p.Pattern == policyRest:
		return 0, true
	case p.Pattern == policyLoopback:
		return 1, u.Scheme != "https"
	case u.Scheme != "https":
		return 0, false
	}
	host, path, _ := strings.Cut(strings.TrimPrefix(p.Pattern, "https://"), "/")
	below, wild := strings.CutPrefix(host, "*")
	if wild && !strings.HasSuffix(u.Host, below) || !wild && u.Host != host {
		return 0, false
	}
	prefix := "/" + strings.TrimSuffix(path, "*")
	if !strings.HasPrefix(u.EscapedPath()+"/", prefix) || prefix != "/" && hasDotSegment(u.Path) {
		return 0, false
	}
	if rank = 2 + len(prefix) + len(host); !wild {
		rank += 1 << 16 // a name before all that are below another
	}
	return rank, true
}

// ForPlace returns the policy of one place; nil: none.
func (p ClientPolicies) ForPlace(place string) *ClientPolicy {
	var found *ClientPolicy
	best := -1
	for i := range p {
		if rank, ok := p[i].matches(place); ok && rank > best {
			found, best = &p[i], rank
		}
	}
	return found
}

// Limit returns the client as the policies leave it. ErrNotFound: they deny it.
//
// A document comes from where its URL is. Any other client comes from each of
// its redirect URIs: who receives the code. It gets what all of them may have.
// The pattern "*" does not mean clients of the configuration.
func (p ClientPolicies) Limit(client *Client) (*Client, error) {
	places := client.RedirectURIs
	if client.Registration == RegisteredByDocument {
		places = []string{client.ID}
	}
	limited := *client
	for _, place := range places {
		policy := p.ForPlace(place)
		switch {
		case policy == nil || policy.Pattern == policyRest && !client.SelfRegistered():
			continue
		case policy.Deny:
			return nil, ErrNotFound
		case policy.Scopes == nil:
		case limited.Ceiling == nil:
			limited.Ceiling = policy.Scopes
		default:
			limited.Ceiling = append(oauth.ScopeSet{}, limited.Ceiling.Intersect(policy.Scopes)...)
		}
	}
	return &limited, nil
}

// Denies reports whether no client from this place may register itself.
func (p ClientPolicies) Denies(place string) bool {
	policy := p.ForPlace(place)
	return policy != nil && policy.Deny
}

// hasDotSegment reports whether a browser would go elsewhere than the path says.
func hasDotSegment(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}
