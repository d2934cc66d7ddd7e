package identity

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"time"
)

// DefaultHeader carries the token to the upstream unless the gate is told
// otherwise.
const DefaultHeader = "X-Identity-Token"

// Caller is who is calling. It is zero where nobody had to say: at a public rule.
type Caller struct {
	UserID    string // empty: a client that acts for itself, or nobody
	ClientID  string // empty: nobody
	SessionID string
	Scopes    string // space separated, sorted, hierarchy expanded
	// Claims of the user that the gate passes on. nil: none.
	Claims map[string][]string
}

// claims of an identity token, but for iat and exp.
type claims struct {
	Issuer    string              `json:"iss"`
	Audience  string              `json:"aud"`
	Subject   string              `json:"sub,omitempty"` // the user
	ClientID  string              `json:"client_id,omitempty"`
	SessionID string              `json:"sid,omitempty"`
	Scope     string              `json:"scope,omitempty"`
	Claims    map[string][]string `json:"claims,omitempty"`
	target
}

// target is the request that a token is for.
type target struct {
	Method string `json:"htm"`
	Host   string `json:"host"`
	Path   string `json:"path"` // escaped, as it is forwarded
	// Query is the SHA-256 of the query in base64url; empty: there is none.
	Query string `json:"query_sha256,omitempty"`
}

func targetOf(r *http.Request) target {
	t := target{Method: r.Method, Host: strings.ToLower(r.Host), Path: r.URL.EscapedPath()}
	if r.URL.RawQuery != "" {
		digest := sha256.Sum256([]byte(r.URL.RawQuery))
		t.Query = base64.RawURLEncoding.EncodeToString(digest[:])
	}
	return t
}

const (
	// lifetime of a token: until the upstream begins with the request.
	lifetime = 30 * time.Second
	// reuse is how long the very same request gets the same token again, which
	// spares a signature. It leaves two thirds of its life to what was made last.
	reuse = 10 * time.Second
	// leeway forgives clocks that differ between gate and upstream.
	leeway = 5 * time.Second
	// maxLifetime is what a verifier believes at most.
	maxLifetime = time.Minute
)
