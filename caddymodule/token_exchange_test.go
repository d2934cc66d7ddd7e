package caddymodule

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// a service calls on for the user, and is cut off with the user's session.
func TestServiceCallsOnThroughCaddy(t *testing.T) {
	s, db := newRealScene(t, `client service {
		secret another-client-secret-that-is-long-enough
		introspect `+testIssuer+`
		token_exchange `+testIssuer+`
	}`)
	status, answer := s.post("/oauth/token", url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "client_id": {"service"}, "client_secret": {"another-client-secret-that-is-long-enough"},
		"subject_token": {s.token()}, "subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"}, "scope": {"jobs:read"},
	})
	if status != http.StatusOK {
		t.Fatalf("%d %v", status, answer)
	}
	request := fmt.Sprintf("GET /jobs HTTP/1.1\nHost: api.example.com\nConnection: close\nAuthorization: Bearer %s\n\n", answer["access_token"])
	if got := s.raw(request); got.status != http.StatusOK {
		t.Fatalf("%+v", got)
	}
	if header := s.upstream.one(t).header; header.Get("X-User-Id") != "user-1" || header.Get("X-Client-Id") != "service" || header.Get("X-Scopes") != "jobs:read" {
		t.Errorf("%v", header)
	}
	if _, err := db.Exec(t.Context(), "UPDATE gpt_sessions SET revoked_at = now() WHERE id = $1", testSession); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(2 * time.Second); s.raw(request).status != http.StatusUnauthorized; {
		if time.Now().After(until) {
			t.Fatal("the service goes on after the user's session was revoked")
		}
	}
}
