package login_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
	"github.com/caddy-scope/caddy-scope/login"
)

// newScene is an authorization server whose only login is the provider.
func newScene(t *testing.T, p *provider, change ...func(*login.OIDCConfig)) *issuertest.Scene {
	t.Helper()
	return issuertest.New(t, issuertest.With(func(cfg *issuer.Config) {
		cfg.Password = false
		cfg.Methods = []issuer.LoginMethod{oidcMethod(t, "theirs", "Their ID", p, cfg.Now, change...)}
	}))
}

func oidcMethod(t *testing.T, name, label string, p *provider, now func() time.Time, change ...func(*login.OIDCConfig)) issuer.LoginMethod {
	t.Helper()
	config := login.OIDCConfig{Issuer: p.URL, ClientID: clientID, ClientSecret: clientSecret, Claims: login.Claims{Keep: []string{"roles"}}, Now: now}
	for _, f := range change {
		f(&config)
	}
	provider, err := login.NewOIDC(config)
	if err != nil {
		t.Fatal(err)
	}
	return issuer.LoginMethod{Name: name, Label: label, Provider: provider}
}

// toProvider follows an authorization request to the answer of the provider,
// which has not been brought back yet.
func toProvider(t *testing.T, b *issuertest.Browser, params ...issuertest.Param) (callback string) {
	t.Helper()
	page := b.Authorize("cli", params...)
	if page.Status != http.StatusSeeOther {
		t.Fatalf("not sent to the provider: %d %s", page.Status, page.Text())
	}
	return b.Get(page.Location()).Location()
}

// signInAt goes there and back, to the page after.
func signInAt(t *testing.T, b *issuertest.Browser, params ...issuertest.Param) *issuertest.Page {
	t.Helper()
	return b.Get(toProvider(t, b, params...)).Follow()
}
