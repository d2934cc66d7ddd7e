package issuer_test

import (
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// TestPathsOfOthersCostNothing: every request of the API is asked about.
func TestPathsOfOthersCostNothing(t *testing.T) {
	const at = "https://api.example.com/tenant"
	if n := testing.AllocsPerRun(100, func() {
		if issuer.Handles(at, "/jobs/7/applications") {
			t.Error("it is not ours")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
	for path, want := range map[string]bool{
		"/oauth": true, "/oauth/token": true, "/oauthx": false, "/.well-known/oauth-authorization-server/tenant": true, "/.well-known/other": false,
		"/.well-known/openid-configuration": true, "/.well-known/openid-configuration/tenant": true, "/tenant/.well-known/openid-configuration": true,
		"/.well-known/openid-configuration/other": false, "/other/.well-known/openid-configuration": false,
	} {
		if issuer.Handles(at, path) != want {
			t.Errorf("%s: want %v", path, want)
		}
	}
}
