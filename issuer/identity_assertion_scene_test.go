package issuer_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/login"
	"github.com/caddy-scope/caddy-scope/oauth"
)

const (
	bearerGrant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	agentID     = "agent" // the client that brings assertions
)

// organization is an identity provider that signs assertions about its people,
// and an authorization server that trusts it.
type organization struct {
	*issuertest.Scene
	t    *testing.T
	host *issuertest.ClientHost
	keys map[string]crypto.Signer // by kid, which is the algorithm
}

func newOrganization(t *testing.T, change ...func(*issuer.IdentityProvider)) *organization {
	t.Helper()
	o := &organization{t: t, host: issuertest.NewClientHost(t)}
	o.rotate()
	o.host.Answer("/.well-known/openid-configuration", issuertest.JSON(map[string]any{"issuer": o.issuer(), "jwks_uri": o.host.URL("/keys")}))
	claims := &login.Claims{}
	provider := issuer.IdentityProvider{Issuer: o.issuer(), Fetch: o.host.Fetch(), User: func(all map[string]any) (issuer.ExternalUser, error) {
		return claims.UserOf(o.issuer(), all)
	}}
	for _, f := range change {
		f(&provider)
	}
	o.Scene = issuertest.New(t, issuertest.With(func(c *issuer.Config) {
		c.IdentityProviders = []issuer.IdentityProvider{provider}
		c.SessionLimit = 1 // of those that the user allows
	}))
	o.Clients.Register(t, issuer.Client{ID: agentID, Name: "Agent", SecretDigests: []issuer.Digest{issuer.HashClientSecret(issuertest.Secret)},
		AuthMethods: []string{"client_secret_post"}, Grants: []string{bearerGrant, "refresh_token"}, Scopes: oauth.NewScopeSet("jobs:read", "applications:write", "mcp:tools")})
	return o
}

func (o *organization) issuer() string { return strings.TrimSuffix(o.host.URL("/"), "/") }

// rotate publishes new keys.
func (o *organization) rotate() {
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	o.keys = map[string]crypto.Signer{"ES256": ec, "RS256": rsaKey(), "EdDSA": ed}
	o.publish()
}

// rsaKey is made once: that is slow.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func (o *organization) publish() {
	var set []jwk.Key
	for kid, private := range o.keys {
		key, err := jwk.FromRaw(private.Public())
		if err != nil {
			o.t.Fatal(err)
		}
		_ = key.Set(jwk.KeyIDKey, kid)
		set = append(set, key)
	}
	o.host.Answer("/keys", issuertest.JSON(map[string]any{"keys": set}))
}

type change func(header, claims map[string]any)

func claim(name string, value any) change {
	return func(_, claims map[string]any) {
		if value == nil {
			delete(claims, name)
		} else {
			claims[name] = value
		}
	}
}

// assertion is a good one about the user grace, after the changes.
func (o *organization) assertion(changes ...change) string {
	o.t.Helper()
	return o.signed("ES256", o.keys["ES256"], changes...)
}

func (o *organization) signed(algorithm string, key any, changes ...change) string {
	o.t.Helper()
	now := o.Clock.Now()
	header := map[string]any{"typ": "oauth-id-jag+jwt", "kid": algorithm}
	claims := map[string]any{"iss": o.issuer(), "sub": "grace-1", "aud": o.URL, "client_id": agentID, "jti": uuid.NewString(),
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "scope": "jobs:read", "email": "grace@corp.example"}
	for _, f := range changes {
		f(header, claims)
	}
	headers := jws.NewHeaders()
	for name, value := range header {
		if err := headers.Set(name, value); err != nil {
			o.t.Fatal(err)
		}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		o.t.Fatal(err)
	}
	signed, err := jws.Sign(payload, jws.WithKey(jwa.SignatureAlgorithm(algorithm), key, jws.WithProtectedHeaders(headers)))
	if err != nil {
		o.t.Fatal(err)
	}
	return string(signed)
}

func (o *organization) bring(assertion string, params ...issuertest.Param) issuertest.Response {
	o.t.Helper()
	return o.bringWith(assertion, nil, params...)
}

func (o *organization) bringWith(assertion string, auth []issuertest.Auth, params ...issuertest.Param) issuertest.Response {
	o.t.Helper()
	form := url.Values{"grant_type": {bearerGrant}, "assertion": {assertion}, "client_id": {agentID}, "client_secret": {issuertest.Secret}}
	for _, param := range params {
		param(form)
	}
	return o.PostForm("/oauth/token", form, auth...)
}

// newOrganizationAt is another server that trusts the provider, after change.
func newOrganizationAt(t *testing.T, o *organization, change func(*organization, *issuer.IdentityProvider)) *organization {
	t.Helper()
	claims := &login.Claims{}
	provider := issuer.IdentityProvider{Issuer: o.issuer(), Fetch: o.host.Fetch(), User: func(all map[string]any) (issuer.ExternalUser, error) {
		return claims.UserOf(o.issuer(), all)
	}}
	next := &organization{t: t, host: o.host, keys: o.keys}
	change(next, &provider)
	next.Scene = issuertest.New(t, issuertest.With(func(c *issuer.Config) { c.IdentityProviders = []issuer.IdentityProvider{provider} }))
	next.Clients.Register(t, issuer.Client{ID: agentID, SecretDigests: []issuer.Digest{issuer.HashClientSecret(issuertest.Secret)},
		AuthMethods: []string{"client_secret_post"}, Grants: []string{bearerGrant}})
	return next
}
