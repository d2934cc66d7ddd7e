package issuer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// JAG-10: keys are fetched seldom, again when an assertion names another one, and
// when they cannot be had nobody gets in and nobody is turned away for good.
func TestKeysOfTheProviderAreFetchedSeldom(t *testing.T) {
	t.Parallel()
	o := newOrganization(t)
	for range 5 {
		if r := o.bring(o.assertion()); r.Status != 200 {
			t.Fatal(r.Body)
		}
	}
	if o.host.Hits("/keys") != 1 || o.host.Hits("/.well-known/openid-configuration") != 1 {
		t.Errorf("%d and %d fetches", o.host.Hits("/keys"), o.host.Hits("/.well-known/openid-configuration"))
	}
	// A flood of unknown keys is one look in a minute.
	stranger, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	o.Clock.Advance(2 * time.Minute)
	for range 10 {
		wantOAuthError(t, o.bring(o.signed("ES256", stranger)), 400, "invalid_grant")
	}
	if o.host.Hits("/keys") != 2 {
		t.Errorf("%d fetches", o.host.Hits("/keys"))
	}
	// Rotation is noticed at once, and an old key is over when its set is.
	old := o.keys["ES256"]
	o.Clock.Advance(2 * time.Minute)
	o.rotate()
	if r := o.bring(o.assertion()); r.Status != 200 {
		t.Errorf("after a rotation: %s", r.Body)
	}
	wantOAuthError(t, o.bring(o.signed("ES256", old)), 400, "invalid_grant")
	// Down: what was fetched goes on for an hour, then nobody can say.
	down := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }
	o.host.Answer("/keys", down)
	o.host.Answer("/.well-known/openid-configuration", down)
	o.Clock.Advance(30 * time.Minute)
	if r := o.bring(o.assertion()); r.Status != 200 {
		t.Errorf("down for half an hour: %s", r.Body)
	}
	o.Clock.Advance(2 * time.Hour)
	if r := o.bring(o.assertion()); r.Status != 503 || r.Header.Get("Retry-After") == "" {
		t.Errorf("down for hours: %d %s", r.Status, r.Body)
	}
	o.publish()
	o.host.Answer("/.well-known/openid-configuration", issuertest.JSON(map[string]any{"issuer": "https://evil.example", "jwks_uri": o.host.URL("/keys")}))
	o.Clock.Advance(48 * time.Hour)
	if r := o.bring(o.assertion()); r.Status != 503 {
		t.Errorf("metadata of another issuer: %d %s", r.Status, r.Body)
	}
}

// JAG-10: metadata that are down say what they said last, and a provider that is
// down is not asked for every request.
func TestProviderThatIsDownIsLeftAlone(t *testing.T) {
	t.Parallel()
	o := newOrganization(t)
	if r := o.bring(o.assertion()); r.Status != 200 {
		t.Fatal(r.Body)
	}
	down := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }
	o.host.Answer("/.well-known/openid-configuration", down)
	o.Clock.Advance(2 * time.Hour)
	if r := o.bring(o.assertion()); r.Status != 200 {
		t.Errorf("only the keys can be had: %d %s", r.Status, r.Body)
	}
	o.host.Answer("/keys", down)
	o.Clock.Advance(2 * time.Hour)
	before := o.host.Hits("/keys") + o.host.Hits("/.well-known/openid-configuration")
	for range 40 {
		if r := o.bring(o.assertion()); r.Status != 503 && r.Status != 429 || r.Header.Get("Retry-After") == "" {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
	}
	if n := o.host.Hits("/keys") + o.host.Hits("/.well-known/openid-configuration") - before; n > 30 {
		t.Errorf("asked %d times", n)
	}
}

// JAG-11: keys and metadata come from where they may come from: the protections
// of package fetch, row C-01 and on.
func TestKeysOfTheProviderAreFetchedWithCare(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*organization, *issuer.IdentityProvider){
		"metadata on an address that is not public": func(_ *organization, p *issuer.IdentityProvider) { p.Fetch.AllowedAddresses = nil },
		"keys on an address that is not public": func(o *organization, _ *issuer.IdentityProvider) {
			o.host.Answer("/.well-known/openid-configuration", issuertest.JSON(map[string]any{"issuer": o.issuer(), "jwks_uri": "https://169.254.169.254/keys"}))
		},
		"keys over plain http": func(o *organization, _ *issuer.IdentityProvider) {
			o.host.Answer("/.well-known/openid-configuration", issuertest.JSON(map[string]any{"issuer": o.issuer(), "jwks_uri": "http://example.com/keys"}))
		},
		"keys behind a redirect": func(o *organization, _ *issuer.IdentityProvider) {
			o.host.Answer("/moved", issuertest.JSON(map[string]any{"keys": []any{}}))
			o.host.Answer("/keys", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/moved", http.StatusFound) })
		},
		"a private key among them": func(o *organization, _ *issuer.IdentityProvider) {
			key, _ := jwk.FromRaw(o.keys["ES256"])
			o.host.Answer("/keys", issuertest.JSON(map[string]any{"keys": []any{key}}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrganizationAt(t, newOrganization(t), change)
			if r := o.bring(o.assertion()); r.Status == 200 || o.host.Hits("/moved") != 0 {
				t.Errorf("%d %s", r.Status, r.Body)
			}
		})
	}
}
