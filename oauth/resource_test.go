package oauth_test

import (
	"testing"

	"github.com/caddy-scope/caddy-scope/oauth"
)

func TestIdentifiersAreUsedByteForByte(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"https://api.example.com", "https://api.example.com/v1", "https://api.example.com:8443/a/b", "http://localhost:8080", "http://127.0.0.1:8080/mcp", "http://[::1]:8080",
	} {
		if err := oauth.CheckIdentifier("issuer", good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{
		"", "api.example.com", "ftp://api.example.com", "http://api.example.com", "https://api.example.com/", "https://API.example.com", "https://api.example.com:443",
		"https://u:p@api.example.com", "https://api.example.com?x", "https://api.example.com?", "https://api.example.com#x", "https://api.example.com#",
		"https://api.example.com/a//b", "https://api.example.com/../b", "https://api.example.com/%61", "https://", "https://api.example.com/a;b", "HTTPS://api.example.com",
	} {
		if oauth.CheckIdentifier("issuer", bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// Trap 1: clients differ in one trailing slash, case and default port.
func TestSameResourceForgivesWhatClientsDifferIn(t *testing.T) {
	t.Parallel()
	const configured = "https://api.example.com/mcp"
	for _, requested := range []string{configured, configured + "/", "HTTPS://API.example.com/mcp", "https://api.example.com:443/mcp"} {
		if !oauth.SameResource(configured, requested) {
			t.Errorf("%q is refused", requested)
		}
	}
	for _, requested := range []string{
		"", configured + "//", configured + "?x=1", configured + "#", "https://api.example.com/MCP", "http://api.example.com/mcp", "https://api.example.com",
		"https://api.example.com:444/mcp", "https://x@api.example.com/mcp", "https://api.example.com/mcp/x", "javascript:alert(1)", "//api.example.com/mcp",
	} {
		if oauth.SameResource(configured, requested) {
			t.Errorf("%q is taken for %q", requested, configured)
		}
	}
	if !oauth.SameResource("https://[::1]", "https://[::1]:443/") {
		t.Error("an IPv6 literal with default port is refused")
	}
}

// RFC 8414 section 3.1, RFC 9728 section 3.1: between host and path.
func TestWellKnownGoesBetweenHostAndPath(t *testing.T) {
	t.Parallel()
	for identifier, want := range map[string]string{
		"https://h":     "https://h/.well-known/oauth-protected-resource",
		"https://h/a/b": "https://h/.well-known/oauth-protected-resource/a/b",
	} {
		if got := oauth.ResourceMetadataURL(identifier); got != want {
			t.Errorf("%s: %s", identifier, got)
		}
	}
	if got := oauth.IssuerMetadataURL("https://h/t"); got != "https://h/.well-known/oauth-authorization-server/t" {
		t.Error(got)
	}
	if got := oauth.Origin("https://h:8443/a"); got != "https://h:8443" {
		t.Error(got)
	}
}
