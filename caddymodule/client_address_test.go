package caddymodule

import (
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// TestClientAddressIsWhatTrustedProxiesMakeIt: a header of the request alone
// changes nothing. H-07, T-19.
func TestClientAddressIsWhatTrustedProxiesMakeIt(t *testing.T) {
	for name, c := range map[string]struct {
		variable any
		want     string
	}{
		"by Caddy":     {"198.51.100.7", "198.51.100.7"},
		"mapped IPv4":  {"::ffff:198.51.100.7", "198.51.100.7"},
		"not there":    {nil, "invalid IP"},
		"not an IP":    {"evil", "invalid IP"},
		"IPv6 address": {"2001:db8::1", "2001:db8::1"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Forwarded-For", "203.0.113.9")
		r.Header.Set("X-Real-IP", "203.0.113.9")
		r = r.WithContext(contextWithVars(r.Context(), map[string]any{caddyhttp.ClientIPVarKey: c.variable}))
		if got := clientAddress(r).String(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
