package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// machineWords declare a client that acts for itself.
const machineWords = `client indexer {
	secret another-client-secret-that-is-long-enough
	grants client_credentials
	scope jobs:read
}`

// post sends a form to an endpoint of the server and reads the JSON.
func (s *gateScene) post(path string, form url.Values) (int, map[string]any) {
	s.t.Helper()
	got, answer := s.postWith(path, form)
	return got.status, answer
}

// postWith sends lines of the header too.
func (s *gateScene) postWith(path string, form url.Values, headers ...string) (answer, map[string]any) {
	s.t.Helper()
	body := form.Encode()
	got := s.raw(fmt.Sprintf("POST %s HTTP/1.1\nHost: api.example.com\nConnection: close\nContent-Type: application/x-www-form-urlencoded\nContent-Length: %d\n%s\n%s",
		path, len(body), strings.Join(append(headers, ""), "\n"), body))
	var answer map[string]any
	if err := json.Unmarshal([]byte(got.body), &answer); err != nil {
		s.t.Fatalf("%d %s: %v", got.status, got.body, err)
	}
	return got, answer
}

// An upstream that goes by X-User-Id must not take a client for the user of
// that name.
func TestClientOfItsOwnIsNoUserToTheUpstream(t *testing.T) {
	s, db := newRealScene(t, machineWords)
	status, answer := s.post("/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {"indexer"}, "client_secret": {"another-client-secret-that-is-long-enough"}})
	if status != http.StatusOK {
		t.Fatalf("%d %v", status, answer)
	}
	request := fmt.Sprintf("GET /jobs HTTP/1.1\nHost: api.example.com\nConnection: close\nX-User-Id: admin\nAuthorization: Bearer %s\n\n", answer["access_token"])
	if got := s.raw(request); got.status != http.StatusOK {
		t.Fatalf("%+v", got)
	}
	header := s.upstream.one(t).header
	if _, named := header["X-User-Id"]; named || header.Get("X-Client-Id") != "indexer" || header.Get("X-Scopes") != "jobs:read" {
		t.Errorf("%v", header)
	}
	if got := s.raw(strings.Replace(request, "GET /jobs ", "GET /nowhere ", 1)); got.status != http.StatusForbidden {
		t.Errorf("%+v", got)
	}
	if _, err := db.Exec(t.Context(), "UPDATE gpt_clients SET disabled_at = now() WHERE client_id = 'indexer'"); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(2 * time.Second); s.raw(request).status != http.StatusUnauthorized; {
		if time.Now().After(until) {
			t.Fatal("the token of a disabled client still works")
		}
	}
}

// A device begins and polls through Caddy, and its page is there.
func TestDeviceAuthorizationThroughCaddy(t *testing.T) {
	s, _ := newRealScene(t, "client tv {\n\tgrants device_code\n}")
	status, started := s.post("/oauth/device_authorization", url.Values{"client_id": {"tv"}, "scope": {"jobs:read"}})
	if status != http.StatusOK || started["verification_uri"] != testIssuer+"/oauth/device" {
		t.Fatalf("%d %v", status, started)
	}
	code, _ := started["device_code"].(string)
	status, waiting := s.post("/oauth/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {"tv"}, "device_code": {code}})
	if status != http.StatusBadRequest || waiting["error"] != "authorization_pending" {
		t.Errorf("%d %v", status, waiting)
	}
	if page := s.get("/oauth/device"); page.status != http.StatusOK || !strings.Contains(page.body, "Connect a device") {
		t.Errorf("%+v", page)
	}
}
